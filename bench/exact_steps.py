"""The exact steps on Frappe: the same scores in less time, with every variant of a model in turns in one run.

The slim artifact as part of `recipes/frappe.py`, its graph once without the two rewrites of integer layers that part 1
did not have (narrow layers as convolutions, offsets as whole matrices), as it ships now, and with fields joined; the
student before its layers become integers, with fields joined and the first layer folded; and a network of all ten
fields, untrained, of which five become one of 588 rows. Beside each the floor: its own lookups and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

from bench.lookups import Opened, session
from bench.shipped import SIZES, ratios
from slimrank.compression.steps import compress
from slimrank.evaluation.cost import Timed, floor, latency
from slimrank.evaluation.measure import LATENCY_ROWS
from slimrank.exporting import graph as exporter
from slimrank.exporting.pack import pack
from slimrank.models.architecture import build_model
from slimrank.models.dnn import DNN
from slimrank.models.layers import Ranker
from slimrank.pipeline.models import slim_model, uncompressed
from slimrank.pipeline.run import run
from slimrank.pipeline.workspace import Run
from slimrank.recipe import read_recipe

JOIN, FOLD = "join-fields", "fold-first-layer"
BITS = {"name": "quantize-tables", "bits": 4}
GOAL = {"faster_at_256": 1.3, "over_floor_at_256": 2.0, "largest_difference": 1e-5}
Steps = Sequence[str | dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """One model, and the variants of it that give the same scores: name to steps, the first one being the base."""

    name: str
    model: Ranker
    variants: dict[str, Steps]
    before: str | None = None  # the name of one more variant: the model as part 1 wrote its graph


def exact_steps(folder: Path, repetitions: int = 5) -> dict[str, Any]:
    """Milliseconds, ratios to the base and to the floor, and the largest difference of scores, for every variant."""
    recipe = read_recipe(Path(__file__).parents[1] / "recipes" / "frappe.py")
    run(recipe, folder, until="compress")
    work = Run(recipe, folder)
    seeds = [_seed(work, seed, repetitions) for seed in recipe.seeds]
    return {
        "what": f"variants of one model with the same scores, Frappe test rows, one thread, {len(seeds)} seeds",
        "goal": GOAL,
        "families": {name: _over_seeds([found[name] for found in seeds]) for name in seeds[0]},
        "runs": seeds,
    }


def families(work: Run, seed: int) -> list[Family]:
    """The models of one seed."""
    both = {"as it ships": [], "joined": [JOIN], "folded": [FOLD], "joined and folded": [JOIN, FOLD]}
    student, slim = uncompressed(work, seed), slim_model(work, seed)
    table, _ = compress(student, [BITS], work.context(seed))
    ten = build_model(DNN(embedding_dim=16, hidden=(64, 32), embedding_std=0.1), work.layout, seed)
    ten_table, _ = compress(ten, [BITS], work.context(seed))
    return [
        Family("slim artifact", slim, {"as it ships": [], "joined": [JOIN]}, before="as part 1 wrote it"),
        Family("student in floats", student, both),
        Family("student with a 4-bit table", table, both),
        Family("ten fields in floats", ten, both),
        Family("ten fields with a 4-bit table", ten_table, both),
    ]


def _seed(work: Run, seed: int, repetitions: int) -> dict[str, Any]:
    return {family.name: _measured(family, work, seed, repetitions) for family in families(work, seed)}


def _measured(family: Family, work: Run, seed: int, repetitions: int) -> dict[str, Any]:
    """All variants of a family and its floor in turns, some times over."""
    layout = family.model.embedding.layout
    cut = work.encoded.encoding.cut(dict(zip(layout.names, layout.sizes, strict=True)))
    rows = cut.encode(work.dataset.test).take(slice(0, LATENCY_ROWS))
    with TemporaryDirectory(prefix="bench-") as place:
        paths = {}
        for name, steps in family.variants.items():
            changed, _ = compress(family.model, steps, work.context(seed))
            paths[name] = _written(changed.cpu().eval(), Path(place) / f"{len(paths)}.onnx")
        if family.before:
            paths[family.before] = _written_as_part_1(family.model.cpu().eval(), Path(place) / "before.onnx")
        graphs = {name: Opened(session(path)) for name, path in paths.items()}
    lookups = floor(rows, cut, family.model.embedding.table.nbytes)
    timed: dict[str, Timed] = {**graphs, "floor": lookups}
    inputs = {**dict.fromkeys(graphs, rows), "floor": lookups.inputs}
    scores = {name: each.session.run(None, {"ids": rows.ids})[0] for name, each in graphs.items()}
    base = family.before or next(iter(family.variants))
    turns = [latency(timed, inputs) for _ in range(repetitions)]
    return {
        name: {
            "p50_ms": {size: median(turn[name][size]["p50"] for turn in turns) for size in SIZES},
            "faster": ratios(turns, base, name),
            "over_floor": ratios(turns, name, "floor"),
            "largest_difference": float(np.abs(scores[name] - scores[base]).max()) if name in scores else 0.0,
        }
        for name in timed
    }


def _written(model: Ranker, path: Path) -> Path:
    """The graph of `model`."""
    layout = model.embedding.layout
    return exporter.write_graph(exporter.build_graph(pack(model), sum(layout.widths)), path)[0]


def _written_as_part_1(model: Ranker, path: Path) -> Path:
    """The graph of `model` without the rewrites that part 1 did not have."""
    with patch.object(exporter, "expand_offsets"), patch.object(exporter, "convolve"):
        return _written(model, path)


def _over_seeds(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over seeds; the largest difference of all."""
    return {
        name: {
            **{
                key: {size: median(one[name][key][size] for one in found) for size in SIZES}
                for key in ("p50_ms", "faster", "over_floor")
            },
            "largest_difference": max(one[name]["largest_difference"] for one in found),
        }
        for name in found[0]
    }
