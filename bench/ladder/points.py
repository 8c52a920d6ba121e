"""The points of a ladder: every entry is a recipe, run for every seed; every figure is of the exported artifact.

The entries of one problem share a run directory, and so its teachers. A point that was measured with the same recipe,
data and version is not measured again: a ladder that was killed goes on where it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from slimrank import runtime
from slimrank.config import InputError
from slimrank.data.rows import Dataset, group_codes
from slimrank.exporting.artifact import export
from slimrank.files import read_json, write_json
from slimrank.metrics import quality
from slimrank.pipeline.run import slim_models
from slimrank.pipeline.stages import key_of
from slimrank.pipeline.workspace import Run
from slimrank.recipe import Recipe

RATIOS = (4, 8, 16, 32, 64, 128, 256)
OTHERS = ("hashed, plain fp32", "low dimension, fp32")


@dataclass(frozen=True)
class Entry:
    """One thing to try: a kind of table or a stack of them, aimed at a model `times` smaller than the teacher."""

    kind: str
    times: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """What the point's file is called."""
        return f"{self.kind.replace(' ', '-').replace(',', '')}-{self.times}x"


@dataclass(frozen=True)
class Problem:
    """A recipe with its teacher, and what is tried on it: `entries(bytes of the teacher's artifact)`, and peers.

    `how` says in words what was done to ours and to the peers, for the page.
    """

    title: str
    how: str
    base: Recipe
    entries: Callable[[int], list[Entry]]
    peers: Callable[[Path, Sequence[int], dict[str, Any]], list[dict[str, Any]]] | None = None


def ladder(problem: Problem, folder: Path) -> dict[str, Any]:
    """All points of `problem`, made in the run directory `folder`, with the front of those on the test rows."""
    work = Run(problem.base, folder)
    folder.mkdir(parents=True, exist_ok=True)
    teacher = _teacher(work)
    points = [_point(entry, work, teacher) for entry in problem.entries(int(teacher["bytes"]))]
    if problem.peers is not None:
        points += problem.peers(folder, problem.base.seeds, teacher)
    made = [point for point in points if "refused" not in point]
    return {
        "title": problem.title,
        "what": f"test AUC of artifacts by bytes (graph and weights), means of {len(problem.base.seeds)} seeds",
        "how": problem.how,
        "teacher": teacher,
        "points": points,
        "front": [point["name"] for point in front(made)],
        "rungs": rungs(made),
        "facts": work.dataset.facts,
        "data_fingerprint": work.dataset.fingerprint,
        "base": problem.base.model_dump(mode="json"),
    }


def front(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that no other one beats in AUC without more bytes, from small to large.

    >>> points = [{"bytes": 2, "auc": 0.7}, {"bytes": 1, "auc": 0.6}, {"bytes": 3, "auc": 0.65}]
    >>> [point["bytes"] for point in front(points)]
    [1, 2]
    """
    chosen: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda point: (point["bytes"], -point["auc"])):
        if not chosen or point["auc"] > chosen[-1]["auc"]:
            chosen.append(point)
    return chosen


def rungs(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """At every ratio the name of the point of highest AUC that is at least so small: of ours, and of all else.

    >>> points = [{"name": "a", "kind": "scaled", "ratio": 9.0, "auc": 0.7}]
    >>> rungs([*points, {"name": "b", "kind": "low dimension, fp32", "ratio": 4.5, "auc": 0.6}])[:2]
    [{'times': 4, 'own': 'a', 'other': 'b'}, {'times': 8, 'own': 'a', 'other': None}]
    """

    def best(times: int, *, own: bool) -> str | None:
        small = [point for point in points if point["ratio"] >= times and is_own(point["kind"]) == own]
        return max(small, key=lambda point: point["auc"])["name"] if small else None

    return [{"times": times, "own": best(times, own=True), "other": best(times, own=False)} for times in RATIOS]


def is_own(kind: str) -> bool:
    """Whether a kind is one of ours, and not what a user would otherwise do."""
    return kind not in OTHERS and not kind.startswith("peer: ")


def _teacher(work: Run) -> dict[str, Any]:
    """Bytes and quality of the teacher's artifacts, which stay where peers find them."""
    bare = {"student": None, "distillation": None, "steps": (), "retraining": None}
    return _cached(work.with_recipe(work.recipe.model_copy(update=bare)), "teacher")


def _point(entry: Entry, work: Run, teacher: dict[str, Any]) -> dict[str, Any]:
    """One point, beside the teacher; what was refused, with the words."""
    known = {"name": entry.name, "kind": entry.kind, "aimed": entry.times}
    try:
        own = work.with_recipe(entry.recipe)
        if not _same_teachers(entry.recipe, work.recipe):
            own.folder = work.folder / "other-teachers" / entry.name
        found = _cached(own, entry.name)
    except InputError as error:
        return {**known, "refused": str(error)}
    drops = [before - after for before, after in zip(teacher["auc_by_seed"], found["auc_by_seed"], strict=True)]
    return {
        **known,
        **found,
        "ratio": teacher["bytes"] / found["bytes"],
        "auc_drop": fmean(drops),
        "auc_kept": found["auc"] / teacher["auc"],
    }


def _same_teachers(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes train the same teachers, of whatever seeds."""
    return one.teacher.model_copy(update={"seeds": other.teacher.seeds}) == other.teacher


def _cached(work: Run, name: str) -> dict[str, Any]:
    """What `_measured` finds, from the point's file where that is of the same recipe and data."""
    path = work.folder / "points" / f"{name}.json"
    key = key_of({"recipe": work.recipe.model_dump(mode="json"), "data": work.dataset.fingerprint})
    before = read_json(path) if path.exists() else {}
    if before.get("key") == key:
        return {one: value for one, value in before.items() if one != "key"}
    path.parent.mkdir(parents=True, exist_ok=True)
    found = _measured(work, work.folder / "points" / name)
    write_json(path, {"key": key, **found})
    if name != "teacher":
        shutil.rmtree(work.folder / "points" / name)
    return found


def _measured(work: Run, folder: Path) -> dict[str, Any]:
    """Make the artifact of every seed in `folder`, and score it on the test rows: means over seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes, scored, steps = [], [], list[Any]()
    for seed, model, records in slim_models(work):
        path, steps = folder / f"seed-{seed}", steps or records
        export(model.cpu().eval(), work.encoded.encoding, path)
        sizes.append(graph_bytes(path))
        scored.append(score_artifact(path, work.dataset))
    return {
        "bytes": fmean(sizes),
        "bytes_by_seed": sizes,
        **{name: fmean(one[name] for one in scored) for name in scored[0]},
        "auc_by_seed": [one["auc"] for one in scored],
        "steps": steps,
        "recipe": work.recipe.model_dump(mode="json"),
    }


def score_artifact(path: Path, dataset: Dataset) -> dict[str, float]:
    """Quality of an artifact on the test rows, by the runtime."""
    model, groups = runtime.load(path), group_codes(dataset)
    logits = model.score(model.encoding.encode(dataset.test))
    label = dataset.test[dataset.schema.label].to_numpy()
    return quality(label, logits, None if groups is None else groups["test"])


def graph_bytes(path: Path) -> int:
    """Bytes of an artifact's graph and weights."""
    return sum(file.stat().st_size for file in path.iterdir() if file.name.startswith("model.onnx"))
