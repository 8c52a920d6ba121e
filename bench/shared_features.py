"""A ranking request's shared features: the unsplit graph beside the one that looks them up and multiplies them once.

256 candidates, half of the fields shared, one thread of ONNX Runtime, encoded rows; unsplit and split take turns in one
run. Weights are untrained, which changes no time, and ids uniform, so that lookups are as cold as they can be. Beside
the scores of one request the whole of it is timed too: raw values in, probabilities out, as `runtime` answers them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch

from slimrank import runtime
from slimrank.compression.steps import Context, compress
from slimrank.config import as_config
from slimrank.data.encoding import Encoding, Inputs
from slimrank.data.schema import Field, Schema
from slimrank.evaluation.cost import take_turns
from slimrank.exporting.artifact import export
from slimrank.models.architecture import build_model
from slimrank.runtime.shared import SharedScorer
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples

CANDIDATES = 256
SAMPLES, REPETITIONS = 400, 5
REQUESTS = 64  # gone round, so that no lookup is the one before
GOAL = {"faster_at_256": 1.5, "largest_difference": 1e-5}
INTEGERS = ({"name": "quantize-tables", "bits": 8}, "quantize-dense")
SLIM = ({"name": "quantize-tables", "bits": 4}, "quantize-dense")


@dataclass(frozen=True)
class Case:
    """A model: its fields, of which every second one is shared, its architecture, and steps that make it smaller."""

    fields: int
    ids: int
    model: Mapping[str, Any]
    steps: Sequence[Any] = ()
    history: int = 0  # ids of one more field, a sequence, which is shared


WIDE = {"embedding_dim": 16, "hidden": (400, 400, 400)}
NARROW = {"embedding_dim": 16, "hidden": (64, 32)}
CASES = {
    "DeepFM, 26 x 16, 400-400-400, floats": Case(26, 100_000, {"name": "deepfm", **WIDE}),
    "DCNv2, 26 x 16, 3 cross layers, 400-400-400, floats": Case(26, 100_000, {"name": "dcnv2", **WIDE}),
    "DNN, 26 x 16, 64-32, floats": Case(26, 100_000, {"name": "dnn", **NARROW}),
    "DNN, 26 x 16, 64-32, integers": Case(26, 100_000, {"name": "dnn", **NARROW}, INTEGERS),
    "DeepFM, 26 x 16, 64-32, integers": Case(26, 100_000, {"name": "deepfm", **NARROW}, INTEGERS),
    "slim DNN of Frappe's shape, 10 x 16, 64-32, integers": Case(10, 500, {"name": "dnn", **NARROW}, SLIM),
    "DNN, 10 x 16 and a history of 50, 64-32, floats": Case(10, 20_000, {"name": "dnn", **NARROW}, history=50),
    "DNN, 10 x 16 and a history of 50, 64-32, integers": Case(10, 20_000, {"name": "dnn", **NARROW}, INTEGERS, 50),
}


def shared_features(samples: int = SAMPLES, repetitions: int = REPETITIONS) -> dict[str, Any]:
    """Milliseconds of both graphs, their ratio, and the largest difference of scores, for every model."""
    return {
        "what": f"{CANDIDATES} candidates, half of the fields shared, unsplit / split, one thread",
        "goal": GOAL,
        "samples": samples,
        "repetitions": repetitions,
        "models": {name: _measured(case, samples, repetitions) for name, case in CASES.items()},
    }


def _measured(case: Case, samples: int, repetitions: int) -> dict[str, Any]:
    with TemporaryDirectory(prefix="bench-") as place:
        model = written(case, Path(place) / "artifact")
        scorer = SharedScorer(model)
        fields = frozenset(shared_fields(case))
        kept = scorer.prepared(fields)
        requests = [_request(kept.shared.checks.limits, kept.own.checks.limits, seed) for seed in range(REQUESTS)]
        whole = [kept.joined(*request) for request in requests]
        apart = [
            float(np.abs(scorer.score(fields, *request) - model.score(rows)).max())
            for request, rows in zip(requests, whole, strict=True)
        ]
        calls = {
            "unsplit": _going_round([lambda rows=rows: model.score(rows) for rows in whole]),
            "split": _going_round([lambda one=one: scorer.score(fields, *one) for one in requests]),
            **_raw_calls(model, scorer, requests, fields),
        }
        turns = [take_turns(calls, samples) for _ in range(repetitions)]
        p50 = {name: median(float(np.median(turn[name])) / 1e6 for turn in turns) for name in calls}
        return {
            "p50_ms": p50,
            "faster": _ratio(turns, "unsplit", "split"),
            "faster_from_raw_rows": _ratio(turns, "raw rows, unsplit", "raw rows, split"),
            "largest_difference": max(apart),
            "rows_joined_because": kept.why_joined,
        }


def _ratio(turns: Sequence[Mapping[str, Any]], above: str, below: str) -> dict[str, Any]:
    ratios = [float(np.median(turn[above]) / np.median(turn[below])) for turn in turns]
    return {"median": median(ratios), "turns": ratios}


def shared_fields(case: Case) -> list[str]:
    """Every second field, and the history."""
    return [f"c{place}" for place in range(0, case.fields, 2)] + (["history"] if case.history else [])


def written(case: Case, path: Path) -> runtime.Model:
    """The artifact of an untrained model, loaded for one thread."""
    fields = [
        Field(name=f"c{n}", kind="categorical", encoding="identity", num_ids=case.ids) for n in range(case.fields)
    ]
    rows: dict[str, Any] = {field.name: [0, 1] for field in fields}
    if case.history:
        kind = {"kind": "sequence", "max_length": case.history}
        fields.append(Field.parse({"name": "history", "encoding": "identity", "num_ids": case.ids, **kind}))
        rows["history"] = [[0], [1]]
    encoding = Encoding.fit(Schema(fields=tuple(fields)), pl.DataFrame({**rows, "label": [0, 1]}))
    draw = np.random.default_rng(0)
    limits = [encoding.sizes[name] for name in encoding.schema.columns]
    ids = torch.from_numpy(draw.integers(0, limits, (1024, len(limits))).astype(np.int32))
    some = Examples(ids, torch.zeros(1024, 0), torch.from_numpy(draw.integers(0, 2, 1024).astype(np.float32)))
    model = build_model(as_config("model", dict(case.model)), Layout.of(encoding), seed=0)
    model, _ = compress(model, case.steps, Context(some, some, encoding.counts))
    export(model.eval(), encoding, path)
    return runtime.load(path)


def _request(shared: np.ndarray, own: np.ndarray, seed: int) -> tuple[Inputs, Inputs]:
    """One row of the shared fields, and the candidates' rows of the others."""
    draw = np.random.default_rng(seed)
    sides = ((shared, 1), (own, CANDIDATES))
    ids = [draw.integers(1, limits, (rows, len(limits))).astype(np.int32) for limits, rows in sides]
    once, each = (Inputs(array, np.empty((len(array), 0), np.float32)) for array in ids)
    return once, each


def _raw_calls(
    model: runtime.Model, scorer: SharedScorer, requests: Sequence[tuple[Inputs, Inputs]], fields: frozenset[str]
) -> dict[str, Callable[[int], Callable[[], object]]]:
    """The same from raw values: all columns of every candidate, and the shared ones once."""
    kept = scorer.prepared(fields)
    once, whole = [], []
    for shared, own in requests:
        (row,), columns = _raw(kept.shared.encoder.encoding, shared), _raw(kept.own.encoder.encoding, own)
        named = {name: [each[name] for each in columns] for name in columns[0]}
        once.append((row, named))
        whole.append({**{name: [value] * CANDIDATES for name, value in row.items()}, **named})
    return {
        "raw rows, unsplit": _going_round([lambda rows=rows: model.predict(rows) for rows in whole]),
        "raw rows, split": _going_round([lambda one=one: scorer.predict(*one) for one in once]),
    }


def _raw(encoding: Encoding | None, inputs: Inputs) -> list[dict[str, Any]]:
    """The raw rows that `encoding`, of identities, makes `inputs` of."""
    assert encoding is not None
    schema = encoding.schema
    rows: list[dict[str, Any]] = []
    for ids in inputs.ids.tolist():
        row: dict[str, Any] = {field.name: ids[place] - 1 for place, field in enumerate(schema.categorical)}
        start = len(schema.categorical)
        for field in schema.sequences:
            row[field.name] = [max(each - 2, 0) for each in ids[start : start + field.max_length]]
            start += field.max_length
        rows.append(row)
    return rows


def _going_round(calls: Sequence[Callable[[], object]]) -> Callable[[int], Callable[[], object]]:
    return lambda sample: calls[sample % len(calls)]
