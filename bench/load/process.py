"""A generator in a process of its own: started, waited for, its samples read."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from bench.load.generator import Loaded
from bench.load.plan import Plan
from bench.load.requests import Request, write_requests
from slimrank.config import InputError

ROOT = Path(__file__).parents[2]


class Load:
    """A stretch of load that runs beside its starter; `result()` waits for its end."""

    def __init__(self, plan: Plan, requests: Sequence[Request] | None = None) -> None:
        """Start it; `requests` are those in the plan's file, where there are none here.

        Raises:
            InputError: it did not start, with its last words.
        """
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        if requests is not None:
            write_requests(folder / "requests.npz", requests)
            plan = replace(plan, requests=str(folder / "requests.npz"))
        self.plan, self._samples = plan, folder / "samples.npy"
        (folder / "plan.json").write_text(json.dumps(asdict(plan)))
        command = [sys.executable, "-m", "bench.load", str(folder / "plan.json"), str(self._samples)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise InputError(f"the generator did not start: {self.process.communicate()[1].strip()[-400:]}")

    def result(self) -> Loaded:
        """What it saw.

        Raises:
            InputError: it failed, with its last words.
        """
        said, errors = self.process.communicate()
        if self.process.returncode:
            raise InputError(f"the generator ended with {self.process.returncode}: {errors.strip()[-400:]}")
        told = json.loads(said.strip().splitlines()[-1])
        return Loaded(np.load(self._samples), told["processor"], told["seconds"], told["wrong"])

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self._folder.cleanup()


def load(plan: Plan, requests: Sequence[Request] | None = None) -> Loaded:
    """A stretch of load, from begin to end."""
    with Load(plan, requests) as running:
        return running.result()
