"""A search from a goal to a proven artifact: teachers, a first look, trials in worker processes, a choice, a test.

A search is a directory. Trials are led by one half of the validation rows, the artifact is chosen on the other half,
and what is said of it in the end was measured on test rows, which took no part in either.

    search.json  search.db        what was asked, and the study
    teacher-SEED/  baseline/      the teachers, and the artifact of the one that trials are compared with
    trials/STUDY/NUMBER/          artifacts
    artifact/  recipe.json  result.json  report.html      what was found
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
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
from slimrank.pipeline.trials import ARTIFACT, METRIC, Trials, losses
from slimrank.pipeline.worker import ASKED
from slimrank.pipeline.workers import Say, work
from slimrank.recipe import Recipe
from slimrank.report import write_report
from slimrank.searching.choice import concessions, front_of, order_of_choice, recipe_of, worst
from slimrank.searching.goal import Goal
from slimrank.searching.search import IN_A_ROW, Search, Worker, sampler_of
from slimrank.searching.space import named_space
from slimrank.searching.study import Trial, cut_off, readable, trials_of

END = 0.1  # share of the minutes, and the most seconds, that are kept for the choice and the test
LONGEST_END = 30.0
TIMED_AGAIN = 8  # candidates that are timed once more when the workers have ended


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
    if recipe.stability is not None:
        raise InputError("a search looks for another model than that of stability.base: leave `stability` out")
    trials = Trials(asked, recipe, out, data)
    trials.run.check()
    _check_goal(trials)
    if asked.space:
        named_space(recipe, asked.space)  # a key that is not the recipe's is told before anything is trained
    with only_here(out):
        clear_partial(out)
        study = trials.open_study(create=True)
        public = asked.model_dump(mode="json", exclude={"storage"})  # its URL may hold a password
        write_json(out / ASKED, {**recipe.model_dump(mode="json"), "search": public})
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        trials.prepare()
        with readable(trials.url):
            trials.look(study)
            _line_up(trials, study)
        _tidy(trials, study)
        seconds = asked.minutes * 60
        deadline = begun + seconds - min(LONGEST_END, END * seconds)
        failure = work(trials, study, deadline, say)
        found = _enough(trials, study, failure)
        result = _finish(trials, found, time.time() - begun)
        if failure:
            raise InputError(f"{failure}; what was found before is in {out}")
        return result


def _check_goal(trials: Trials) -> None:
    """Raises `InputError` where the goal bounds what these rows do not have."""
    asked = trials.search
    for part in trials.rows:
        known = trials.defined(part)
        missing = [key for key in asked.measured if key in METRIC and key not in known]
        if missing:
            raise InputError(
                f"goal {str(asked.goal)!r}: {', '.join(missing)} needs groups with rows of both classes, and the "
                f"{part} rows of {trials.run.dataset.name} have none"
            )


def _line_up(trials: Trials, study: Any) -> None:
    """What an earlier process left half done is tried again; a new study begins with what has done well."""
    cut_off(study, trials.place)
    guided = trials.search.sampler != "random" or trials.search.space
    if guided and not study.get_trials(deepcopy=False):
        for start in trials.space.starts:
            study.enqueue_trial(trials.space.parameters(start))


def _tidy(trials: Trials, study: Any) -> None:
    """Remove the files of trials that never ended."""
    for left in trials.folder.glob("trial-*-*"):
        shutil.rmtree(left)
    whole = {str(trial.number) for trial in _complete(trials, study)}
    for left in trials.artifacts.iterdir() if trials.artifacts.is_dir() else ():
        if left.name not in whole:
            shutil.rmtree(left)


def _complete(trials: Trials, study: Any) -> list[Trial]:
    """The trials that were trained whole."""
    with readable(trials.url):
        return [trial for trial in trials_of(study) if trial.state == "complete"]


def _enough(trials: Trials, study: Any, failure: str) -> list[Trial]:
    """All trials, one of them trained whole: where time was too short for that, more of them whatever it takes.

    Raises:
        InputError: no trial could be trained.
    """
    whole = trials.search.model_copy(update={"halving": False})
    worker = Worker(whole, trials.recipe, trials.space, trials.attempt, trials.place, trials.url)
    study.sampler = sampler_of(trials.search, 0)
    for _ in range(0 if failure else IN_A_ROW):
        if _complete(trials, study):
            break
        worker.once(study)
    with readable(trials.url):
        found = trials_of(study)
    if not any(trial.state == "complete" for trial in found):
        reasons = list(dict.fromkeys(trial.reason.splitlines()[0] for trial in found if trial.reason))[:3]
        raise InputError(failure or "every trial failed: " + "; ".join(reasons or ["no reason is known"]))
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
    result["command"] = f"slimrank search {ASKED}" + (f" --data {trials.data}" if trials.data else "")
    result["search"] = {
        **_outcome(trials, found, figures, paths["slim"]),
        "trials": [asdict(trial) for trial in found],
        "front": [trial.number for trial in front_of(found, asked)],
        "chosen": chosen.number,
        "figures": figures,
        "cost": asked.cost,
        "loss": asked.loss,
        "rows": {part: len(rows) for part, rows in trials.rows.items()},
        "sensitivity": trials.sensitivity.record(),
        "workers": trials.workers,
        "seconds": round(seconds, 1),
        "spent": round(sum(trial.spent for trial in found), 2),
    }
    figures_of_artifact = {key: measured["models"]["slim"][key] for key in ("quality", "bytes", "latency_ms")}
    with_metrics(artifact / ARTIFACT, out / "artifact", figures_of_artifact, measured["reference"])
    write_json(out / "recipe.json", recipe.model_dump(mode="json"))
    write_json(out / "result.json", result)
    write_report(out / "result.json", out / "report.html")
    return result


def margin_of(goal: Goal) -> float:
    """The loss of AUC that the verdict is of: the goal's, or what the field calls a difference."""
    limits = [bound.limit for bound in goal.quality if bound.figure == "auc_drop" and bound.limit > 0]
    return limits[0] if limits else MARGIN


def _chosen(trials: Trials, found: Sequence[Trial]) -> Trial:
    """The first in the order of choice; where the goal is of time, the first that is within it when timed alone."""
    order = order_of_choice(found, trials.search)
    if not trials.search.timed:
        return order[0]
    timed = []
    for trial in order[:TIMED_AGAIN]:
        alone = trials.timed_alone(_artifact_of(trials, trial) / ARTIFACT)
        timed.append(replace(trial, figures={**trial.figures, **alone}))
        if trials.search.goal.met(worst(timed[-1])):
            return timed[-1]
    return min(timed, key=lambda trial: trials.search.goal.excess(worst(trial)))


def _artifact_of(trials: Trials, trial: Trial) -> Path:
    """The folder with a trial's artifact; one that another machine made is made here, from its recipe."""
    folder = trials.artifacts / str(trial.number)
    if not folder.exists():
        trials.attempt(recipe_of(trial, trials.recipe), trial.number, 1.0)
    return folder


def figures_of(teacher: Mapping[str, Any], slim: Mapping[str, Any]) -> dict[str, float]:
    """What a goal may bound, from the records of a teacher and of what was made of it."""
    sizes, latency = slim["bytes"], slim["latency_ms"]
    return {
        **losses(teacher["quality"], slim["quality"]),
        "bytes": sizes["disk"],
        **{f"{name}_bytes": count for name, count in sizes.items() if name.startswith("wire")},
        "resident_bytes": sizes["resident"],
        **{f"{quantile}_ms@{rows}": latency[rows][quantile] for rows in latency for quantile in ("p50", "p99")},
    }


def _outcome(trials: Trials, found: Sequence[Trial], figures: Mapping[str, float], artifact: Path) -> dict[str, Any]:
    """Whether the goal is met on test rows, whether they prove it, and what would have to give."""
    goal = trials.search.goal
    logit = trials.score(runtime.load(artifact, threads=1), "test")
    missed = goal.missed(figures)
    bounds = [
        {
            "key": bound.key,
            "limit": bound.limit,
            "value": figures[bound.key],
            "met": bound not in missed,
            **({"proof": trials.proof(logit, bound, "test")} if bound.of_quality else {}),
        }
        for bound in goal.bounds
    ]
    given = concessions(found, trials.search) if missed else []
    return {
        "goal": str(goal),
        "met": not missed,
        "bounds": bounds,
        "concessions": [
            {"key": bound.key, "limit": bound.limit, "value": value, "trial": trial.number}
            for bound, trial, value in given
        ],
    }
