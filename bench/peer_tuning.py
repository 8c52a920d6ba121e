"""The search of `frappe_goal.py` beside general tuners: the same teacher, the same loss of AUC, at most as much time.

Peers compress the trained teacher, as they do; none of them trains a student. The search's own time has the training of
its teachers in it, which the peers are given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.frappe_goal import ASKED, frappe_goal
from bench.peers import in_environment
from slimrank.files import read_json


def peer_tuning(folder: Path, minutes: float = ASKED.minutes) -> dict[str, Any]:
    """A record for the search in `folder`, which is done where it is not, and one for each peer.

    Raises:
        InputError: the peers' environment is not there, or their process failed.
    """
    ours = frappe_goal(folder)
    peers = in_environment("tuning", str(folder.resolve()), repr(minutes))
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
