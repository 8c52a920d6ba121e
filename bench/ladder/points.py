"""The points of a ladder: every entry is a recipe, run for every seed; every figure is of the exported artifact.

The entries of one problem share a run directory, and so its teachers. A point that was measured with the same recipe,
data and version is not measured again: a ladder that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from slimrank import runtime
from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.data.rows import Dataset, group_codes
from slimrank.files import read_json, write_json
from slimrank.metrics import quality
from slimrank.pipeline.run import STEPS, run
from slimrank.pipeline.stages import key_of
from slimrank.recipe import Recipe

RATIOS = (4, 8, 16, 32, 64, 128, 256)


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
    """A dataset and a teacher, and what is tried on them: `entries(bytes of the teacher's artifact)`."""

    name: str
    base: Recipe
    entries: Callable[[int], list[Entry]]


def ladder(problem: Problem, folder: Path) -> dict[str, Any]:
    """All points of `problem`, made in the run directory `folder`, with the front of those on the test rows."""
    dataset = load_dataset(problem.base.data)
    teacher = _teacher(problem.base, folder, dataset)
    points = [_point(entry, folder, dataset, teacher) for entry in problem.entries(teacher["bytes"])]
    made = [point for point in points if "refused" not in point]
    return {
        "what": f"test AUC of artifacts by bytes (graph and weights), {problem.name}, {len(problem.base.seeds)} seeds",
        "teacher": teacher,
        "points": points,
        "front": [point["name"] for point in front(made)],
        "data_fingerprint": dataset.fingerprint,
        "base": problem.base.model_dump(mode="json"),
    }


def front(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that no other one beats in AUC without more bytes, from small to large."""
    chosen: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda point: (point["bytes"], -point["auc"])):
        if not chosen or point["auc"] > chosen[-1]["auc"]:
            chosen.append(point)
    return chosen


def _teacher(base: Recipe, folder: Path, dataset: Dataset) -> dict[str, Any]:
    """Bytes and quality of the teacher's artifacts."""
    bare = base.model_copy(update={"student": None, "distillation": None, "steps": (), "retraining": None})
    return _cached(bare, "teacher", folder, dataset)


def _point(entry: Entry, folder: Path, dataset: Dataset, teacher: dict[str, Any]) -> dict[str, Any]:
    """One point, beside the teacher; what was refused, with the words."""
    known = {"name": entry.name, "kind": entry.kind, "aimed": entry.times}
    try:
        found = _cached(entry.recipe, entry.name, folder, dataset)
    except InputError as error:
        return {**known, "refused": str(error)}
    drops = [before - after for before, after in zip(teacher["auc_by_seed"], found["auc_by_seed"], strict=True)]
    return {**known, **found, "ratio": teacher["bytes"] / found["bytes"], "auc_drop": fmean(drops)}


def _cached(recipe: Recipe, name: str, folder: Path, dataset: Dataset) -> dict[str, Any]:
    """What `_measured` finds, from the point's file where that is of the same recipe and data."""
    path = folder / "points" / f"{name}.json"
    key = key_of({"recipe": recipe.model_dump(mode="json"), "data": dataset.fingerprint})
    before = read_json(path) if path.exists() else {}
    if before.get("key") == key:
        return {one: value for one, value in before.items() if one != "key"}
    found = _measured(recipe, folder, dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": key, **found})
    return found


def _measured(recipe: Recipe, folder: Path, dataset: Dataset) -> dict[str, Any]:
    """Run `recipe` up to its artifacts and score them on the test rows: means over seeds."""
    run(recipe, folder, until="export")
    seeds = [folder / f"seed-{seed}" for seed in recipe.seeds]
    shipped = [seed / "artifacts" / "slim" for seed in seeds]
    scored = [score_artifact(path, dataset) for path in shipped]
    sizes = [graph_bytes(path) for path in shipped]
    return {
        "bytes": fmean(sizes),
        "bytes_by_seed": sizes,
        **{name: fmean(one[name] for one in scored) for name in scored[0]},
        "auc_by_seed": [one["auc"] for one in scored],
        "steps": read_json(seeds[0] / "slim" / STEPS),
        "recipe": recipe.model_dump(mode="json"),
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
