"""What a run says of itself: the record of one seed, and `result.json` over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from slimrank.data.rows import Dataset
from slimrank.evaluation.machine import machine
from slimrank.evaluation.measure import Measured
from slimrank.evaluation.paired import Comparison
from slimrank.recipe import Recipe


def seed_record(
    seed: int, measured: Mapping[str, Measured], paired: Comparison, steps: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What was measured of one seed's artifacts, and how teacher and slim differ on the same rows."""
    models = {name: one.record for name, one in measured.items()}
    models["slim"] = {**models["slim"], "steps": list(steps)}
    return {"seed": seed, "models": models, "comparison": {**asdict(paired), "seed": seed}}


def combined(recipe: Recipe, dataset: Dataset, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of `result.json`: for each model the means over seeds, beside on what and from what.

    Bytes, tensors and steps are the first seed's (they hardly differ); qualities and latencies are means.
    """
    names = ("teacher", "student", "slim")
    models = {name: [record["models"][name] for record in records if name in record["models"]] for name in names}
    return {
        "name": recipe.name,
        "data": dataset.name,
        **{name: _mean_model(found) for name, found in models.items() if found},
        "comparison": [record["comparison"] for record in records],
        "seeds": [record["seed"] for record in records],
        "rows": {split: len(frame) for split, frame in dataset.splits.items()},
        "data_fingerprint": dataset.fingerprint,
        "data_facts": dataset.facts,
        "training_threads": torch.get_num_threads(),
        "threads": 1,
        **machine(),
    }


def _mean_model(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One model over its seeds."""
    first = dict(found[0])
    qualities = [one["quality"] for one in found]
    first["quality"] = _means(qualities)
    first["by_seed"] = qualities
    first["latency_ms"] = {
        rows: {**_means([one["latency_ms"][rows] for one in found]), "samples": first["latency_ms"][rows]["samples"]}
        for rows in first["latency_ms"]
    }
    return first


def _means(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every key that all records have."""
    keys = [key for key in records[0] if all(key in record for record in records)]
    return {key: sum(record[key] for record in records) / len(records) for key in keys}


def provenance(recipe: Recipe, dataset: Dataset, seed: int, model: str) -> dict[str, Any]:
    """What an artifact's manifest says of where it comes from."""
    return {
        "name": f"{recipe.name}-{model}",
        "recipe": recipe.model_dump(mode="json"),
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "seed": seed,
        "versions": machine()["versions"],
    }
