"""What a run ships beside its fp32 teacher: quality and bytes by seed, and latency in turns, several times over.

Reads the artifacts of a finished run directory (and finishes it first where it is not); all figures are of artifacts,
scored by the runtime. Not a benchmark by itself: `frappe.py` and `movielens.py` say of which recipe.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from slimrank import runtime
from slimrank.data import load_dataset
from slimrank.data.encoding import Inputs
from slimrank.data.rows import Dataset, group_codes
from slimrank.evaluation.cost import Timed, bytes_of, floor, latency
from slimrank.evaluation.measure import LATENCY_ROWS, table_bytes
from slimrank.metrics import quality
from slimrank.pipeline.run import run
from slimrank.recipe import Recipe
from slimrank.runtime import Model

NAMES = ("teacher", "slim")
SIZES = ("1", "32", "256")
Latency = dict[str, dict[str, dict[str, float]]]


def shipped(recipe: Recipe, folder: Path, repetitions: int = 5) -> dict[str, Any]:
    """Means over seeds of quality and bytes, medians over seeds and repetitions of latency and its ratios.

    `p50_ratio` is teacher / slim; `over_floor` is slim / the lookups of slim and nothing else.
    """
    run(recipe, folder)
    dataset = load_dataset(recipe.data)
    seeds = [_seed(folder / f"seed-{seed}" / "artifacts", dataset, seed, repetitions) for seed in recipe.seeds]
    turns = [turn for seed in seeds for turn in seed["latency_ms"]]
    bytes_on_disk = {name: fmean(seed["bytes"][name]["disk"] for seed in seeds) for name in NAMES}
    return {
        "what": f"slim artifact beside its fp32 teacher, {recipe.name}, test rows, one thread, {len(seeds)} seeds",
        "auc": _means(seeds, "auc"),
        "logloss": _means(seeds, "logloss"),
        "bytes_on_disk": bytes_on_disk,
        "times_smaller": bytes_on_disk["teacher"] / bytes_on_disk["slim"],
        **summary(turns),
        "repetitions": repetitions,
        "load_average": os.getloadavg()[0],
        "recipe": recipe.model_dump(mode="json"),
        "data_fingerprint": dataset.fingerprint,
        "runs": seeds,
    }


def _seed(artifacts: Path, dataset: Dataset, seed: int, repetitions: int) -> dict[str, Any]:
    """Teacher and slim of one seed."""
    models = {name: runtime.load(artifacts / name) for name in NAMES}
    inputs = {name: model.encoding.encode(dataset.test) for name, model in models.items()}
    return {
        "seed": seed,
        "quality": {name: _quality(models[name], inputs[name], dataset) for name in NAMES},
        "bytes": {name: bytes_of(artifacts / name) for name in NAMES},
        "latency_ms": latencies_of(models, inputs, artifacts / "slim", repetitions),
    }


def _quality(model: Model, inputs: Inputs, dataset: Dataset) -> dict[str, float]:
    groups = group_codes(dataset)
    label = dataset.test[dataset.schema.label].to_numpy()
    return quality(label, model.score(inputs), None if groups is None else groups["test"])


def latencies_of(models: Mapping[str, Model], inputs: Mapping[str, Inputs], slim: Path, count: int) -> list[Latency]:
    """Milliseconds of teacher, slim and the floor of slim in turns, `count` times."""
    rows = {name: each.take(slice(0, LATENCY_ROWS)) for name, each in inputs.items()}
    lookups = floor(rows["slim"], models["slim"].encoding, table_bytes(slim))
    timed: dict[str, Timed] = {**models, "floor": lookups}
    return [latency(timed, {**rows, "floor": lookups.inputs}) for _ in range(count)]


def _means(seeds: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """The mean over seeds of a metric of both, and each seed's."""
    by_seed = {name: [seed["quality"][name][metric] for seed in seeds] for name in NAMES}
    return {name: {"mean": fmean(values), "by_seed": values} for name, values in by_seed.items()}


def summary(turns: Sequence[Latency]) -> dict[str, Any]:
    """Medians over turns: p50 of teacher, slim and floor by rows a call, teacher / slim, and slim / floor."""
    p50 = {
        name: {size: median(turn[name][size]["p50"] for turn in turns) for size in SIZES} for name in (*NAMES, "floor")
    }
    return {
        "p50_ms": p50,
        "p50_ratio": ratios(turns, "teacher", "slim"),
        "over_floor": ratios(turns, "slim", "floor"),
    }


def ratios(turns: Sequence[Latency], above: str, below: str) -> dict[str, float]:
    """The median over turns of p50 / p50, by rows a call."""
    return {size: median(turn[above][size]["p50"] / turn[below][size]["p50"] for turn in turns) for size in SIZES}
