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

import numpy as np
import onnx_ir as ir

from bench.lookups import session
from slimrank.compression.steps import compress
from slimrank.data.encoding import Inputs
from slimrank.evaluation.cost import floor, latency
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

SIZES = (1, 32, 256)
JOIN, FOLD = "join-fields", "fold-first-layer"
BITS = {"name": "quantize-tables", "bits": 4}
GOAL = {"faster_at_256": 1.3, "over_floor_at_256": 2.0, "largest_difference": 1e-5}
Steps = Sequence[str | dict[str, Any]]


@dataclass(frozen=True)
class Graph:
    """A session that `latency` can time, and the rows that it is fed."""

    session: Any
    inputs: Inputs


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
            paths[family.before] = _written(family.model.cpu().eval(), Path(place) / "before.onnx", rewrites=False)
        graphs = {name: Graph(session(path), rows) for name, path in paths.items()}
    lookups = floor(rows, cut, family.model.embedding.table.nbytes)
    timed = {**graphs, "floor": lookups}
    inputs = {name: each.inputs for name, each in timed.items()}
    scores = {name: each.session.run(None, _feeds(each))[0] for name, each in graphs.items()}
    base = family.before or next(iter(family.variants))
    turns = [latency(timed, inputs, SIZES) for _ in range(repetitions)]
    return {
        name: {
            "p50_ms": {str(size): median(turn[name][str(size)]["p50"] for turn in turns) for size in SIZES},
            "faster": {str(size): _ratio(turns, base, name, size) for size in SIZES},
            "over_floor": {str(size): _ratio(turns, name, "floor", size) for size in SIZES},
            "largest_difference": float(np.abs(scores[name] - scores[base]).max()) if name in scores else 0.0,
        }
        for name in timed
    }


def _written(model: Ranker, path: Path, *, rewrites: bool = True) -> Path:
    """The graph of `model`, perhaps without the rewrites that part 1 did not have."""
    layout = model.embedding.layout
    columns, packed = sum(layout.widths), pack(model)
    graph = exporter.build_graph(packed, columns) if rewrites else _as_part_1(packed, columns)
    return exporter.write_graph(graph, path)[0]


def _as_part_1(packed: Ranker, columns: int) -> ir.Model:
    """What `build_graph` does, but for `expand_offsets` and `convolve`."""
    graph = exporter.trace(packed, columns)
    exporter.fold_constants(graph.graph)
    exporter.split_flattened(graph.graph)
    exporter.split_quantizers(graph.graph)
    exporter.feed_codes(graph.graph)
    exporter.unpack_at_load(graph.graph, exporter.LOAD_UNPACK_LIMIT)
    exporter.shrink(graph)
    exporter.strip(graph)
    return graph


def _feeds(graph: Graph) -> dict[str, np.ndarray]:
    return {"ids": graph.inputs.ids}


def _ratio(turns: Sequence[dict[str, Any]], above: str, below: str, size: int) -> float:
    return median(turn[above][str(size)]["p50"] / turn[below][str(size)]["p50"] for turn in turns)


def _over_seeds(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over seeds; the largest difference of all."""
    return {
        name: {
            **{
                key: {str(size): median(one[name][key][str(size)] for one in found) for size in SIZES}
                for key in ("p50_ms", "faster", "over_floor")
            },
            "largest_difference": max(one[name]["largest_difference"] for one in found),
        }
        for name in found[0]
    }
