"""What is tried on each problem, at each rung of its ladder.

Every entry has the data, soft labels and retraining of its problem; it differs in what is done to the tables, and the
students of Frappe get narrower from rung to rung. Settings were chosen on validation rows (docs/log.md). A rung is a
budget for all bytes of the model; steps are given what the graph itself leaves of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.ladder.peers import peer_points
from bench.ladder.points import RATIOS, Entry, Problem
from slimrank.config import as_config
from slimrank.models.dnn import DNN
from slimrank.models.gmf import GMF
from slimrank.recipe import Recipe, Student, read_recipe
from slimrank.training.losses.loss import Distillation

RECIPES = Path(__file__).parents[2] / "recipes"
Steps = list[dict[str, Any] | str]
FRAPPE_GRAPH, GMF_GRAPH, SYNTHETIC_GRAPH = 3400, 2600, 6000  # bytes of nodes, names and constants: not in a budget
STUDENTS = {64: (8, (32, 16)), 128: (8, (32, 16)), 256: (4, (16, 8))}  # dimension and neurons; (16, (64, 32)) before
GMF_RANKS = {32: 12, 64: 8, 128: 8, 256: 4}  # of what is shortened first; 16 before
PEERS = "Peers are applied to the trained teachers as their documentation says; none of them retrains embeddings."
STUDENTS_OF = (
    "Students (DNN, four of ten fields) are distilled from three teachers, compressed, and retrained on soft labels; "
    f"'teacher itself' is the DCNv2 after training, without retraining. {PEERS}"
)
SAME_MODEL = (
    "Every kind is applied to the trained teacher and retrained on its soft labels, but for 'post-training'; a lower "
    f"dimension is trained from the start on the labels. {PEERS}"
)
NETWORKS: dict[int, tuple[int, tuple[int, ...], Steps]] = {  # distilled from ML-1M's: dimension, neurons, steps
    16: (14, (64, 32), [{"name": "quantize-tables", "bits": 4}, "quantize-dense"]),
    32: (6, (96, 48), [{"name": "quantize-tables", "bits": 4}, "quantize-dense"]),
    64: (4, (96, 32), [{"name": "quantize-tables", "bits": 2, "levels": "midrise"}, "quantize-dense"]),
}
CLUSTERED_FROM = 64  # times; millions of centres of millions of rows take minutes each
MET_OFTEN = {16: (1, 8), 32: (1, 4), 64: (2, 4), 128: (4, 4)}  # times and bits of ids that keep a row
LOW_DIMENSIONS = {4: 16, 8: 8, 16: 4, 32: 2, 64: 1}  # of a Frappe student in floats


def frappe() -> Problem:
    """The DCNv2 teachers of `recipes/frappe.py` and students distilled from them."""
    recipe = read_recipe(RECIPES / "frappe.py")
    return Problem("Frappe, DCNv2 and its students", STUDENTS_OF, recipe, partial(_frappe_entries, recipe), peer_points)


def movielens_1m() -> Problem:
    """The matrix factorisation of `recipes/movielens_1m.py`."""
    recipe = read_recipe(RECIPES / "movielens_1m.py")
    how = (
        "Every kind is applied to the trained teacher and retrained on its soft labels, but for 'post-training'; "
        "'distilled' are networks of their own, learning from three teachers, compressed and retrained on soft labels; "
        "a lower dimension is trained from the start on the labels."
    )
    return Problem("MovieLens-1M, matrix factorisation", how, recipe, partial(_movielens_entries, recipe))


def beauty() -> Problem:
    """The matrix factorisation of `recipes/beauty.py`."""
    recipe = read_recipe(RECIPES / "beauty.py")
    return Problem(
        "Amazon Beauty, matrix factorisation", SAME_MODEL, recipe, partial(_gmf_entries, recipe), peer_points
    )


def synthetic() -> Problem:
    """The network of `recipes/synthetic_20m.py`; post-training, as most of its ids are never met again."""
    recipe = read_recipe(RECIPES / "synthetic_20m.py")
    how = "Every kind is applied to the trained model, without retraining."
    return Problem("Synthetic, 20 million ids of power-law frequency", how, recipe, partial(_synthetic_entries, recipe))


def within(name: str, budget: int, **settings: Any) -> dict[str, Any]:
    """A step with a budget."""
    return {"name": name, "budget": budget, **settings}


def _frappe_entries(base: Recipe, teacher_bytes: int) -> list[Entry]:
    entries = []
    for times in RATIOS:
        student, retraining = base.student, base.retraining
        assert student is not None
        assert retraining is not None
        dim, hidden = STUDENTS.get(times, (16, (64, 32)))
        narrow = student.model_copy(update={"model": DNN(embedding_dim=dim, hidden=hidden)})
        budget = teacher_bytes // times - FRAPPE_GRAPH
        for kind, steps in _frappe_steps(budget).items():
            entries.append(Entry(kind, times, _changed(base, steps, student=narrow)))
        if times in (64, 128):
            rare = {"name": "threshold-rows", "min_count": 20 if times == 128 else 5}
            few = {"bits": 2, "levels": "midrise"} if times == 128 else {"bits": 4}
            stack: Steps = [rare, {"name": "quantize-tables", **few}, "quantize-dense"]
            again = retraining.model_copy(update={"epochs": 12})
            changed = _changed(base, stack, student=narrow, retraining=again)
            entries.append(Entry("thresholded, short, scaled", times, changed))
        if times == 4:
            itself: Steps = [{"name": "quantize-tables", "bits": 4}, "quantize-dense"]
            plain = _changed(base, itself, student=None, distillation=None, retraining=None)
            entries.append(Entry("teacher itself, post-training", times, plain))
        if times in LOW_DIMENSIONS:
            width = hidden if times < 32 else (16, 8)
            plain = student.model_copy(update={"model": DNN(embedding_dim=LOW_DIMENSIONS[times], hidden=width)})
            entries.append(Entry("low dimension, fp32", times, _changed(base, [], student=plain, retraining=None)))
    return _low_dimensions_last(entries)


def _frappe_steps(budget: int) -> dict[str, Steps]:
    """By kind, the steps to a model of at most `budget` packed bytes."""
    return {
        "scaled": [within("quantize-tables", budget), "quantize-dense"],
        "mixed": [within("mix-bits", budget), "quantize-dense"],
        "codebook": [within("codebook-tables", budget), "quantize-tables", "quantize-dense"],
        "hashed, weighted": [within("hash-tables", budget), "quantize-dense"],
        "hashed, clustered": [within("hash-tables", budget, method="clustered", chunks=4), "quantize-dense"],
        "hashed, plain fp32": [within("hash-tables", budget, method="plain"), "quantize-dense"],
        "low-rank, scaled": [
            {"name": "reduce-dimensions", "rank": 8},
            within("quantize-tables", budget),
            "quantize-dense",
        ],
    }


def _movielens_entries(base: Recipe, teacher_bytes: int) -> list[Entry]:
    """All of a matrix factorisation, hashed rows trained for longer (they share what they had learned), and networks
    distilled from three teachers, whose short vectors are read by layers of integers."""
    longer = base.teacher.training.model_copy(update={"epochs": 3})
    entries = [
        replace(entry, recipe=entry.recipe.model_copy(update={"retraining": longer}))
        if "hashed" in entry.kind
        else entry
        for entry in _gmf_entries(base, teacher_bytes)
    ]
    ensemble = base.model_copy(
        update={
            "teacher": base.teacher.model_copy(update={"seeds": base.seeds}),
            "distillation": Distillation(soft_weight=0.9),
        }
    )
    training = base.teacher.training.model_copy(update={"epochs": 4, "l2": 0.005})
    for times, (dim, hidden, steps) in NETWORKS.items():
        student = Student(model=DNN(embedding_dim=dim, hidden=hidden), training=training, min_field_importance=0.0)
        again = training.model_copy(update={"learning_rate": 5e-3, "epochs": 8})
        entries.append(
            Entry("distilled, short, scaled", times, _changed(ensemble, steps, student=student, retraining=again))
        )
    return entries


def _gmf_entries(base: Recipe, teacher_bytes: int) -> list[Entry]:
    entries = []
    for times in RATIOS:
        for kind, steps in _gmf_steps(times, teacher_bytes // times - GMF_GRAPH).items():
            entries.append(Entry(kind, times, _changed(base, steps)))
        if times <= 32:
            post: Steps = [within("quantize-tables", teacher_bytes // times - GMF_GRAPH)]
            entries.append(Entry("post-training, scaled", times, _changed(base, post, retraining=None)))
            bands: Steps = [within("reduce-dimensions", teacher_bytes // times - GMF_GRAPH, by_frequency=True)]
            entries.append(Entry("low-rank by frequency", times, _changed(base, bands)))
            small = base.teacher.model_copy(update={"model": GMF(embedding_dim=32 // times)})
            plain = base.model_copy(update={"teacher": small})
            entries.append(Entry("low dimension, fp32", times, _changed(plain, [], retraining=None)))
    return _low_dimensions_last(entries)


def _low_dimensions_last(entries: list[Entry]) -> list[Entry]:
    """They need teachers or students of their own, which take the place of those that the others share."""
    return sorted(entries, key=lambda entry: entry.kind == "low dimension, fp32")


def _gmf_steps(times: int, budget: int) -> dict[str, Steps]:
    """By kind, the steps to a matrix factorisation of at most `budget` packed bytes."""
    shorter: dict[str, Any] = {"name": "reduce-dimensions", "rank": GMF_RANKS.get(times, 16), "fold": False}
    return {
        "scaled": [within("quantize-tables", budget)],
        "mixed": [within("mix-bits", budget)],
        "codebook": [within("codebook-tables", budget)],
        "low-rank, scaled": [shorter, within("quantize-tables", budget)],
        "low-rank, mixed": [shorter, within("mix-bits", budget)],
        "hashed, weighted": [within("hash-tables", budget)],
        "hashed, clustered": [within("hash-tables", budget, method="clustered", chunks=4)],
        "hashed, plain fp32": [within("hash-tables", budget, method="plain")],
    }


def _synthetic_entries(base: Recipe, teacher_bytes: int) -> list[Entry]:
    entries = []
    for times in RATIOS:
        steps = _synthetic_steps(teacher_bytes // times - SYNTHETIC_GRAPH)
        if times < CLUSTERED_FROM:
            del steps["hashed, clustered"]
        if times in MET_OFTEN:
            count, bits = MET_OFTEN[times]
            rare = {"name": "threshold-rows", "min_count": count}
            steps["thresholded, scaled"] = [rare, {"name": "quantize-tables", "bits": bits}]
        entries += [Entry(kind, times, _changed(base, each, retraining=None)) for kind, each in steps.items()]
    return entries


def _synthetic_steps(budget: int) -> dict[str, Steps]:
    """By kind, the steps to a model of at most `budget` packed bytes."""
    return {
        "scaled": [within("quantize-tables", budget)],
        "mixed": [within("mix-bits", budget)],
        "codebook": [within("codebook-tables", budget)],
        "low-rank, mixed": [{"name": "reduce-dimensions", "rank": 4, "fold": False}, within("mix-bits", budget)],
        "hashed, weighted": [within("hash-tables", budget)],
        "hashed, clustered": [within("hash-tables", budget, method="clustered", chunks=2)],
        "hashed, plain fp32": [within("hash-tables", budget, method="plain")],
    }


def _changed(base: Recipe, steps: Steps, **changes: Any) -> Recipe:
    """`base` with other steps, and perhaps another student or no retraining."""
    return base.model_copy(update={"steps": tuple(as_config("step", step) for step in steps), **changes})


LADDERS: dict[str, Callable[[], Problem]] = {
    "frappe": frappe,
    "movielens-1m": movielens_1m,
    "beauty": beauty,
    "synthetic": synthetic,
}
