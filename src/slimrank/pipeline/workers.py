"""The processes of a search: started, watched, told of, and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from slimrank.config import InputError
from slimrank.pipeline.trials import Trials
from slimrank.pipeline.worker import STORAGE, url_of, workers_of
from slimrank.searching.goal import amount
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
    count = workers_of(trials.search)
    logs = [trials.folder / f"worker-{number}.log" for number in range(1, count + 1)]
    processes: list[Process] = []
    told = {trial.number for trial in _known(trials, study) if trial.state != "running"}
    try:
        for number, log in enumerate(logs, 1):
            processes.append(_started(trials, number, deadline, log))
        while any(process.poll() is None for process in processes):
            _wait(processes)
            _tell(trials, study, told, say)
            if time.time() > deadline and any(trial.state == "complete" for trial in _known(trials, study)):
                break
    except KeyboardInterrupt:
        say("stopped; what was found so far is measured now")
    finally:
        codes = [process.poll() for process in processes]
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    _tell(trials, study, told, say)
    with readable(url_of(trials)):
        cut_off(study, trials.place)
    return _failures(codes, logs, say)


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


def _known(trials: Trials, study: Any) -> list[Trial]:
    """The trials, or none where the database does not answer just now."""
    with suppress(InputError), readable(url_of(trials)):
        return trials_of(study)
    return []


def _tell(trials: Trials, study: Any, told: set[int], say: Say) -> None:
    """A line for every trial that has ended since the last look."""
    for trial in _known(trials, study):
        if trial.state in ("running", "cut off") or trial.number in told:
            continue
        told.add(trial.number)
        say(trial_line(trial, trials.search))
        if trial.state == "complete":
            _warn(trials, trial, say)


def _warn(trials: Trials, trial: Trial, say: Say) -> None:
    """Say once where the test rows are too few to prove what the goal asks for."""
    rows = len(trials.rows["test"])
    for key, needed in trial.selection.get("rows_needed", {}).items():
        if needed > rows and key not in trials.warned:
            trials.warned.add(key)
            say(f"{rows:,} test rows may not decide {key}: of equally good models about {needed:,} like these would")


def trial_line(trial: Trial, asked: Search) -> str:
    """A trial in one line: what it came to on the rows that lead the search, or why it failed."""
    if trial.state == "failed":
        return f"trial {trial.number}: failed, {trial.reason.splitlines()[0]}"
    known = {key: trial.figures[key] for key in asked.measured if key in trial.figures}
    figures = ", ".join(f"{key} {amount(key.partition('@')[0], value)}" for key, value in known.items())
    how = f" (stopped after {trial.share:.0%} of its epochs)" if trial.state == "stopped" else ""
    within = " within the goal" if trial.state == "complete" and asked.goal.met(trial.figures) else ""
    return f"trial {trial.number}: {figures}{how}{within}"
