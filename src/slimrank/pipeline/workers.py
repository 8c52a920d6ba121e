"""The processes of a search: started, watched, told of, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slimrank.config import InputError
from slimrank.pipeline.trials import Trials
from slimrank.pipeline.worker import STORAGE
from slimrank.report.figures import figure
from slimrank.searching.search import Search
from slimrank.searching.study import Trial, cut_off, readable, trials_of

WATCH = 2.0  # seconds between two looks at the study; a look reads all of it

Say = Callable[[str], None]
Process = subprocess.Popen[bytes]


def work(trials: Trials, study: Any, deadline: float, say: Say) -> str:
    """Let the workers try until all is spent, and tell every trial that ended; Ctrl-C ends them and goes on.

    What is in flight at the deadline is cut off, unless no trial is complete yet.

    Returns:
        Why all workers failed, or nothing if one of them did not.
    """
    logs = [trials.folder / f"worker-{number}.log" for number in range(1, trials.workers + 1)]
    processes: list[Process] = []
    watch = Watch(trials, study, say)
    watch.look(silent=True)
    try:
        for number, log in enumerate(logs, 1):
            processes.append(_started(trials, number, deadline, log))
        while any(process.poll() is None for process in processes):
            _wait(processes)
            watch.look()
            if watch.complete and time.time() > deadline:
                break
    except KeyboardInterrupt:
        say("stopped; what was found so far is measured now")
    finally:
        codes = [process.poll() for process in processes]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    watch.look()
    with readable(trials.url):
        cut_off(study, trials.place)
    return _failures(codes, logs, say)


@dataclass
class Watch:
    """Looks at the study, and says what is new: `told` trials, and the `warned` of figures that rows may not decide."""

    trials: Trials
    study: Any
    say: Say
    told: set[int] = field(default_factory=set)
    warned: set[str] = field(default_factory=set)
    complete: bool = False

    def look(self, *, silent: bool = False) -> None:
        """Say a line for every trial that has ended since the last look; nothing where the database does not answer."""
        with suppress(InputError), readable(self.trials.url):
            for trial in trials_of(self.study):
                self.complete |= trial.state == "complete"
                if trial.state in ("running", "cut off") or trial.number in self.told:
                    continue
                self.told.add(trial.number)
                if not silent:
                    self.say(trial_line(trial, self.trials.search))
                    self._warn(trial)

    def _warn(self, trial: Trial) -> None:
        """Say once where the test rows are too few to prove what the goal asks for."""
        rows = len(self.trials.rows["test"])
        for key, needed in trial.selection.get("rows_needed", {}).items():
            if needed > rows and key not in self.warned:
                self.warned.add(key)
                few = f"{rows:,} test rows may not decide {key}"
                self.say(f"{few}: of equally good models about {needed:,} like these would")


def _started(trials: Trials, number: int, deadline: float, log: Path) -> Process:
    """A worker; the database's URL, which may hold a password, is in its environment and not in its command."""
    command = [sys.executable, "-m", "slimrank.pipeline.worker", str(trials.folder), str(number), repr(deadline)]
    command += [str(os.getpid()), *([str(trials.data)] if trials.data else [])]
    environment = os.environ | {STORAGE: trials.search.storage}
    with log.open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)


def _failures(codes: Sequence[int | None], logs: Sequence[Path], say: Say) -> str:
    """Tell which workers ended otherwise than they should; why, if that is all of them."""
    failed = [(code, log) for code, log in zip(codes, logs, strict=True) if code]
    for code, log in failed:
        if code < 0:
            say(f"{log.stem} was killed by {signal.Signals(-code).name}: was there too little memory?")
    if not failed:
        return ""
    code, log = failed[0]
    words = log.read_text(errors="replace").strip().splitlines()
    message = f"{words[-1].removeprefix('error: ') if words else f'exit code {code}'} ({log})"
    if len(failed) == len(codes):
        return f"every worker failed: {message}"
    say(f"{len(failed)} of {len(codes)} workers failed: {message}")
    return ""


def _wait(processes: Sequence[Process]) -> None:
    """Until the next look, or until the last process ends."""
    until = time.time() + WATCH
    while time.time() < until and any(process.poll() is None for process in processes):
        time.sleep(0.1)


def trial_line(trial: Trial, asked: Search) -> str:
    """A trial in one line: what it came to on the rows that lead the search, or why it failed."""
    if trial.state == "failed":
        return f"trial {trial.number}: failed, {trial.reason.splitlines()[0]}"
    known = {key: trial.figures[key] for key in asked.measured if key in trial.figures}
    figures = ", ".join(f"{key} {figure(key, value)}" for key, value in known.items())
    how = f" (stopped after {trial.share:.0%} of its epochs)" if trial.state == "stopped" else ""
    within = " within the goal" if trial.state == "complete" and asked.goal.met(trial.figures) else ""
    return f"trial {trial.number}: {figures}{how}{within}"
