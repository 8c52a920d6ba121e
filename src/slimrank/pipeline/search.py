"""A search from a goal to a proven artifact: teachers, a first look, trials in worker processes, a choice, a test.

A search is a directory. Trials are led by one half of the validation rows, the artifact is chosen on the other half,
and what is said of it in the end was measured on test rows, which took no part in either.

    search.json  search.db        what was asked, and the study
    teacher-SEED/  baseline/      the teachers, and the artifact of the one that trials are compared with
    trials/NUMBER/                artifacts
    artifact/  recipe.json  result.json  report.html      what was found
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from slimrank import runtime
from slimrank.config import InputError
from slimrank.evaluation.paired import MARGIN
from slimrank.exporting.artifact import with_metrics
from slimrank.files import only_here, read_json, write_json
from slimrank.pipeline.models import STEPS
from slimrank.pipeline.result import combined, measured_record
from slimrank.pipeline.stages import clear_partial
from slimrank.pipeline.trials import ARTIFACT, Trials, losses
from slimrank.pipeline.worker import ASKED, study_of, workers_of
from slimrank.recipe import Recipe
from slimrank.report import write_report
from slimrank.searching.goal import Goal, amount
from slimrank.searching.search import Search, Worker, concessions, front_of, order_of_choice, recipe_of, sampler_of
from slimrank.searching.study import Trial, fail_running, open_study, readable, trials_of

WATCH = 2.0  # seconds between two looks at the study; a look reads all of it
END = 0.1  # share of the minutes, and the most seconds, that are kept for the choice and the test
LONGEST_END = 30.0
TIMED_AGAIN = 8  # candidates that are timed once more when the workers have ended

Say = Callable[[str], None]


def search(
    recipe: Recipe, asked: Search, out: Path, *, data: Path | None = None, say: Say = lambda _: None
) -> dict[str, Any]:
    """Everything from a goal to an artifact, in the directory `out`; goes on with what an earlier search left there.

    Args:
        recipe: says the data, the teachers and the training; what is tried changes its student and its steps.
        asked: the goal, and what the search may cost.
        out: the directory.
        data: where the recipe's data is.
        say: takes a line a trial.

    Returns:
        The content of `result.json`; its part `search` says whether the goal was met.

    Raises:
        InputError: goal, recipe, data or study are unfit; another search works in `out`; every trial failed.
    """
    begun = time.time()
    trials = Trials(asked, recipe, out, data)
    trials.run.check()
    _check_goal(trials)
    if asked.space:
        trials.space  # noqa: B018 - a key that is not the recipe's is told before anything is trained
    with only_here(out):
        clear_partial(out)
        write_json(out / ASKED, {**recipe.model_dump(mode="json"), "search": asked.model_dump(mode="json")})
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        trials.prepare()
        url, name, identity = study_of(trials)
        study = open_study(url, name, identity, create=True)
        with readable(url):
            _tidy(trials, study)
            guided = asked.sampler != "random" or asked.space
            if guided and not study.get_trials(deepcopy=False):
                for start in trials.space.starts:
                    study.enqueue_trial(trials.space.parameters(start))
        seconds = asked.minutes * 60
        deadline = begun + seconds - min(LONGEST_END, END * seconds)
        _work(trials, study, deadline, say)
        found = _enough(trials, study, url)
        return _finish(trials, found, time.time() - begun)


def _check_goal(trials: Trials) -> None:
    """Raises `InputError` where the goal bounds what these rows do not have."""
    asked, grouped = trials.search, trials.run.dataset.schema.group is not None
    if not grouped and any(key.startswith("gauc") for key in asked.measured):
        raise InputError(f"goal {str(asked.goal)!r}: gauc_drop needs groups, and {trials.run.dataset.name} has none")


def _tidy(trials: Trials, study: Any) -> None:
    """Mark what an earlier process left half done as failed, and remove its files."""
    fail_running(study, trials.place)
    for left in trials.folder.glob("trial-*-*"):
        shutil.rmtree(left)
    complete = {str(trial.number) for trial in trials_of(study) if trial.state == "complete"}
    folder = trials.folder / "trials"
    for left in folder.iterdir() if folder.is_dir() else ():
        if left.name not in complete:
            shutil.rmtree(left)


def _work(trials: Trials, study: Any, deadline: float, say: Say) -> None:
    """Let the workers try until all is spent, and tell every trial that ended; Ctrl-C ends them and goes on.

    Raises:
        InputError: all workers failed; with the words of one of them.
    """
    count = workers_of(trials.search)
    command = [sys.executable, "-m", "slimrank.pipeline.worker", str(trials.folder)]
    logs = [trials.folder / f"worker-{number}.log" for number in range(1, count + 1)]
    processes = []
    told = {trial.number for trial in trials_of(study) if trial.state != "running"}
    try:
        for number, log in enumerate(logs, 1):
            with log.open("w") as output:
                order = [*command, str(number), repr(deadline), *([str(trials.data)] if trials.data else [])]
                processes.append(subprocess.Popen(order, stdout=output, stderr=subprocess.STDOUT))
        while any(process.poll() is None for process in processes):
            _wait(processes)
            _tell(trials, study, told, say)
    except KeyboardInterrupt:
        say("stopped; what was found so far is measured now")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    _tell(trials, study, told, say)
    fail_running(study, trials.place)
    failed = [(process.returncode, log) for process, log in zip(processes, logs, strict=True) if process.returncode > 0]
    if failed:
        code, log = failed[0]
        words = log.read_text(errors="replace").strip().splitlines()
        message = words[-1].removeprefix("error: ") if words else f"exit code {code}"
        if len(failed) == count:
            raise InputError(f"every worker failed: {message} ({log})")
        say(f"{len(failed)} of {count} workers failed: {message} ({log})")


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until the next look, or until the last process ends."""
    until = time.time() + WATCH
    while time.time() < until and any(process.poll() is None for process in processes):
        time.sleep(0.1)


def _tell(trials: Trials, study: Any, told: set[int], say: Say) -> None:
    """A line for every trial that has ended since the last look."""
    found = trials_of(study)
    for trial in found:
        if trial.state == "running" or trial.number in told:
            continue
        told.add(trial.number)
        if trial.figures:
            say(trial_line(trial, trials.search))
            _warn(trials, trial, first=len(told) == 1, say=say)
        elif trial.reason:
            say(f"trial {trial.number}: failed, {trial.reason.splitlines()[0]}")


def _warn(trials: Trials, trial: Trial, *, first: bool, say: Say) -> None:
    """Say, after the first trial, where the test rows are too few to prove what the goal asks for."""
    rows = len(trials.rows["test"])
    for key, needed in trial.selection.get("rows_needed", {}).items() if first else ():
        if needed > rows:
            say(f"{rows:,} test rows may not decide {key}: of equally good models about {needed:,} like these would")


def trial_line(trial: Trial, asked: Search) -> str:
    """A trial in one line: what it came to on the rows that lead the search."""
    known = {key: trial.figures[key] for key in asked.measured if key in trial.figures}
    figures = ", ".join(f"{key} {amount(key.partition('@')[0], value)}" for key, value in known.items())
    how = "" if trial.state == "complete" else f" (stopped after {trial.share:.0%} of its epochs)"
    within = " within the goal" if trial.state == "complete" and asked.goal.met(trial.figures) else ""
    return f"trial {trial.number}: {figures}{how}{within}"


def _enough(trials: Trials, study: Any, url: str) -> list[Trial]:
    """All trials, one of them trained whole: where time was too short for that, one more whatever it takes.

    Raises:
        InputError: no trial could be trained.
    """
    found = trials_of(study)
    if not any(trial.state == "complete" for trial in found):
        study.sampler = sampler_of(trials.search, 0)
        whole = trials.search.model_copy(update={"halving": False})
        Worker(whole, trials.recipe, trials.space, trials.attempt, trials.place, url).once(study)
        found = trials_of(study)
    if not any(trial.state == "complete" for trial in found):
        reasons = list(dict.fromkeys(trial.reason.splitlines()[0] for trial in found if trial.reason))[:3]
        raise InputError("every trial failed: " + "; ".join(reasons or ["no reason is known"]))
    return found


def _finish(trials: Trials, found: Sequence[Trial], seconds: float) -> dict[str, Any]:
    """Choose on selection rows, measure on test rows, write all of it down."""
    asked, out = trials.search, trials.folder
    chosen = _chosen(trials, found)
    artifact = _artifact_of(trials, chosen)
    recipe = recipe_of(chosen, trials.recipe)
    paths = {"teacher": trials.teacher / ARTIFACT, "slim": artifact / ARTIFACT}
    steps = read_json(artifact / STEPS)
    measured = measured_record(trials.seed, paths, trials.run.dataset, trials.run.encoded, steps, margin_of(asked.goal))
    result = combined(recipe.model_copy(update={"seeds": (trials.seed,)}), trials.run.dataset, [measured])
    figures = figures_of(measured["models"]["teacher"], measured["models"]["slim"])
    result["command"] = f"slimrank search {ASKED}"
    result["search"] = {
        **_outcome(trials, found, figures, paths["slim"]),
        "trials": [asdict(trial) for trial in found],
        "front": [trial.number for trial in front_of(found, asked)],
        "chosen": chosen.number,
        "figures": figures,
        "cost": asked.cost,
        "loss": asked.loss,
        "baseline": _baseline_figures(measured["models"]["teacher"]),
        "rows": {part: len(rows) for part, rows in trials.rows.items()},
        "sensitivity": trials.sensitivity.record(),
        "workers": workers_of(asked),
        "seconds": round(seconds, 1),
        "spent": round(sum(trial.spent for trial in found), 2),
    }
    figures_of_artifact = {key: measured["models"]["slim"][key] for key in ("quality", "bytes", "latency_ms")}
    with_metrics(artifact / ARTIFACT, out / "artifact", figures_of_artifact)
    write_json(out / "recipe.json", recipe.model_dump(mode="json"))
    write_json(out / "result.json", result)
    write_report(out / "result.json", out / "report.html")
    return result


def margin_of(goal: Goal) -> float:
    """The loss of AUC that the verdict is of: the goal's, or what the field calls a difference."""
    limits = [bound.limit for bound in goal.quality if bound.figure == "auc_drop" and bound.limit > 0]
    return limits[0] if limits else MARGIN


def _chosen(trials: Trials, found: Sequence[Trial]) -> Trial:
    """The first in the order of choice; where the goal bounds time, the first that is within it on a quiet machine."""
    order = order_of_choice(found, trials.search)
    if not any("@" in key for key in trials.search.measured):
        return order[0]
    timed = []
    for trial in order[:TIMED_AGAIN]:
        costs = trials.costs(_artifact_of(trials, trial) / ARTIFACT)
        again = replace(trial, figures={**trial.figures, **costs})
        if trials.search.goal.met(again.figures) or not trials.search.goal.met(trial.figures):
            return again
        timed.append(again)
    return min(timed, key=lambda trial: trials.search.goal.excess(trial.figures))


def _artifact_of(trials: Trials, trial: Trial) -> Path:
    """The folder with a trial's artifact; one that another machine made is made here, from its recipe."""
    folder = trials.folder / "trials" / str(trial.number)
    if not folder.exists() or trial.place != trials.place:
        trials.attempt(recipe_of(trial, trials.recipe), trial.number, 1.0)
    return folder


def figures_of(teacher: Mapping[str, Any], slim: Mapping[str, Any]) -> dict[str, float]:
    """What a goal may bound, from the records of a teacher and of what was made of it."""
    sizes, latency = slim["bytes"], slim["latency_ms"]
    return {
        **losses(teacher["quality"], slim["quality"]),
        "bytes": sizes["disk"],
        "wire_bytes": sizes["wire"],
        "resident_bytes": sizes["resident"],
        **{f"{quantile}_ms@{rows}": latency[rows][quantile] for rows in latency for quantile in ("p50", "p99")},
    }


def _baseline_figures(teacher: Mapping[str, Any]) -> dict[str, float]:
    return figures_of(teacher, teacher)


def _outcome(trials: Trials, found: Sequence[Trial], figures: Mapping[str, float], artifact: Path) -> dict[str, Any]:
    """Whether the goal is met on test rows, whether they prove it, and what would have to give."""
    goal, model = trials.search.goal, runtime.load(artifact, threads=1)
    missed = goal.missed(figures)
    bounds = [
        {
            "key": bound.key,
            "limit": bound.limit,
            "value": figures[bound.key],
            "met": bound not in missed,
            **({"proof": trials.proof(model, bound, "test")} if bound.of_quality else {}),
        }
        for bound in goal.bounds
    ]
    given = concessions(found, trials.search) if missed else []
    return {
        "goal": str(goal),
        "met": not missed,
        "bounds": bounds,
        "concessions": [
            {"key": bound.key, "limit": bound.limit, "value": trial.figures[bound.key], "trial": trial.number}
            for bound, trial in given
        ],
    }
