"""What a user would do otherwise, each in an environment of its own, as their packages do not go with ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from slimrank.config import InputError

ROOT = Path(__file__).parents[2]


def in_environment(name: str, *arguments: str, environment: str | None = None) -> dict[str, Any]:
    """What `python -m bench.peers.NAME ARGUMENTS` prints as its last line, in an environment, by default of that name.

    Raises:
        InputError: the environment is not there, or the process failed; with its last words.
    """
    environment = environment or name
    python = ROOT / f".venv-{environment}" / "bin" / "python"
    if not python.exists():
        raise InputError(f"{python} is missing: sh bench/peers/{environment}.sh makes it")
    return run_alone(name, *arguments, python=python)


def run_alone(name: str, *arguments: str, python: Path = Path(sys.executable)) -> dict[str, Any]:
    """The same in a process of its own of another Python, or of this one.

    Raises:
        InputError: the process failed; with its last words.
    """
    module = f"bench.peers.{name}"
    command = [str(python), "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=os.environ)
    if done.returncode:
        raise InputError(f"{module} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
