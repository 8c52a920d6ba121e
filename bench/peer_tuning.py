"""The search of `frappe_goal.py` beside general tuners: the same teacher, the same loss of AUC, at most as much time.

Peers compress the trained teacher, as they do; none of them trains a student. The search's own time has the training of
its teachers in it, which the peers are given.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from bench.frappe_goal import ASKED, frappe_goal
from slimrank.config import InputError
from slimrank.files import read_json

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-tuning" / "bin" / "python"


def peer_tuning(folder: Path, minutes: float = ASKED.minutes) -> dict[str, Any]:
    """A record for the search in `folder`, which is done where it is not, and one for each peer.

    Raises:
        InputError: the peers' environment is not there, or their process failed.
    """
    if not PYTHON.exists():
        raise InputError(f"{PYTHON} is missing: sh bench/peers/tuning.sh makes it")
    ours = frappe_goal(folder)
    peers = _in_child(folder, minutes)
    said = read_json(folder / "result.json")["search"]
    mine = {
        "bytes": ours["bytes_on_disk"]["slim"],
        "auc": ours["auc"]["slim"],
        "auc_drop": said["figures"]["auc_drop"],
        "seconds": ours["seconds"],
        "tried": len(said["trials"]),
        "goal_met": said["met"],
        "p50_ms": ours["p50_ms"]["slim"],
        "p50_ratio": ours["p50_ratio"],
    }
    return {
        "what": f"{said['goal']} on Frappe: slimrank's search beside general tuners of the trained teacher, "
        f"{minutes:g} minutes each at most; bytes of graph and weights, test AUC, p50 in turns, one thread",
        "teacher": {"bytes": ours["bytes_on_disk"]["teacher"], "auc": ours["auc"]["teacher"]},
        "tuners": [
            {"name": name, **one, "times_smaller": ours["bytes_on_disk"]["teacher"] / one["bytes"]}
            if "bytes" in one
            else {"name": name, **one}
            for name, one in {"slimrank": mine, **peers}.items()
        ],
    }


def _in_child(folder: Path, minutes: float) -> dict[str, Any]:
    """What the peers found, in their own environment."""
    command = [str(PYTHON), "-m", "bench.peers.tuning", str(folder.resolve()), repr(minutes)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=os.environ)
    if done.returncode:
        raise InputError(f"bench.peers.tuning ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
