"""The front of a search beside chance over the same space, and beside every ladder of one kind of table.

Each side has as many trainings as a ladder has points: seven rungs of three seeds. A search is asked for the smallest
model within .001, not for a front: the front is what it leaves by the way. Which models are on a front is decided by
the rows that led the search; what they are worth, by the test rows. A ladder's points are means of three seeds, and the
best of them are seen on the test rows, which is in its favour. Losses of all sides are counted from one AUC, the mean
of the ladder's teachers: a side whose own teacher came out lower would gain by it otherwise.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from slimrank import runtime
from slimrank.data import load_dataset
from slimrank.data.rows import Dataset
from slimrank.files import read_json
from slimrank.metrics import auc
from slimrank.pipeline.search import search
from slimrank.recipe import read_recipe
from slimrank.searching.search import Search

TRAININGS, SEEDS = 21, (1, 2, 3, 4, 5)
REFERENCE = (4.0, 0.02)  # times smaller, and AUC lost: what is worse than either has no volume
SIDES: dict[str, dict[str, Any]] = {
    "search": {"sampler": "tpe", "halving": True},
    "chance": {"sampler": "random", "halving": False},
}


def search_front(folder: Path, ladder: Path) -> dict[str, Any]:
    """Hypervolumes of both sides by seed, and of every kind of the ladder in the result file `ladder`."""
    recipe = read_recipe(Path(__file__).parents[1] / "recipes" / "frappe.py")
    dataset = load_dataset(recipe.data)
    level = float(json.loads(ladder.read_text())["teacher"]["auc"])
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for seed in SEEDS:
        for side, settings in SIDES.items():
            out = folder / f"{side}-{seed}"
            if not (out / "result.json").exists():
                _share_teachers(folder, out)
                asked = {"goal": "auc_drop <= 0.001", "minutes": 600, "workers": 2, "trainings": TRAININGS}
                search(recipe, Search.parse({**asked, "seed": seed, **settings}), out, say=print)
            found[side].append({"seed": seed, **_front(out, dataset, level)})
    volumes = {side: [one["hypervolume"] for one in runs] for side, runs in found.items()}
    margins = [mine - other for mine, other in zip(volumes["search"], volumes["chance"], strict=True)]
    kinds = _ladder(ladder)
    best = max(kinds, key=lambda name: kinds[name])
    return {
        "what": f"hypervolume of fronts on Frappe, test rows, {TRAININGS} trainings a side, {len(SEEDS)} seeds: "
        f"log2 of times smaller than {REFERENCE[0]:g}, times AUC kept above a loss of {REFERENCE[1]:g}",
        "hypervolume": {side: {"mean": fmean(each), "by_seed": each} for side, each in volumes.items()},
        "margin": {"mean": fmean(margins), "by_seed": margins, "standard_deviation": stdev(margins)},
        "ladders": kinds,
        "best_ladder": best,
        "over_best_ladder": fmean(volumes["search"]) / kinds[best],
        "over_chance": fmean(volumes["search"]) / fmean(volumes["chance"]),
        "fronts": found,
        "reference": {"times_smaller": REFERENCE[0], "auc_drop": REFERENCE[1], "below_auc": level},
    }


def _share_teachers(folder: Path, out: Path) -> None:
    """Copy the teachers of a search that is there to a new one: they are the same, and no part of the comparison."""
    for other in sorted(folder.glob("*-*/result.json"))[:1]:
        out.mkdir(parents=True, exist_ok=True)
        for part in (*other.parent.glob("teacher-*"), other.parent / "baseline"):
            shutil.copytree(part, out / part.name, dirs_exist_ok=True)


def _front(out: Path, dataset: Dataset, level: float) -> dict[str, Any]:
    """Times smaller, and AUC below `level` on test rows, of the models on a search's front."""
    result = read_json(out / "result.json")
    label = dataset.test[dataset.schema.label].to_numpy()

    def score(artifact: Path) -> float:
        model = runtime.load(artifact)
        return auc(label, model.score(model.encoding.encode(dataset.test)))

    said = result["search"]
    trials = {trial["number"]: trial for trial in said["trials"]}
    (artifacts,) = (out / "trials").iterdir()  # of the one study that is there
    points = [
        {
            "times_smaller": result["teacher"]["bytes"]["disk"] / trials[number]["figures"]["bytes"],
            "auc_drop": level - score(artifacts / str(number) / "artifact"),
        }
        for number in said["front"]
    ]
    return {
        "hypervolume": _volume([(point["times_smaller"], point["auc_drop"]) for point in points]),
        "points": points,
        "teacher_auc": score(out / "baseline" / "artifact"),
        "trials": len(trials),
        "trainings": said["spent"],
        "seconds": said["seconds"],
        "chosen": said["figures"],
    }


def _volume(points: Sequence[tuple[float, float]]) -> float:
    return hypervolume([(-math.log2(times), lost) for times, lost in points], (-math.log2(REFERENCE[0]), REFERENCE[1]))


def _ladder(path: Path) -> dict[str, float]:
    """The hypervolume of all points of every kind of ours, and of peers, in a ladder's result."""
    kinds: dict[str, list[tuple[float, float]]] = {}
    for point in json.loads(path.read_text())["points"]:
        if "refused" not in point:
            kinds.setdefault(point["kind"], []).append((point["ratio"], point["auc_drop"]))
    return {kind: _volume(points) for kind, points in kinds.items()}


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """The area that points of two values dominate within `reference` (Zitzler and Thiele 1998).

    >>> hypervolume([(1.0, 2.0), (2.0, 1.0), (9.0, 0.0)], reference=(3.0, 3.0))
    3.0
    """
    area, height = 0.0, reference[1]
    for x, y in sorted(points):
        if x < reference[0] and y < height:
            area += (reference[0] - x) * (height - y)
            height = y
    return area
