"""What a run says of itself: the record of one seed, and `result.json` over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.data.rows import Dataset, EncodedDataset, group_codes
from slimrank.data.schema import JUDGED
from slimrank.evaluation.calibration import as_lists
from slimrank.evaluation.machine import machine
from slimrank.evaluation.measure import measure, split_quality
from slimrank.evaluation.paired import MARGIN, compare, judge
from slimrank.evaluation.slices import SLICED_FROM, Cut, as_records, compare_slices, cut_by_frequency
from slimrank.recipe import Recipe


def measured_record(
    seed: int,
    artifacts: Mapping[str, Path],
    dataset: Dataset,
    encoded: EncodedDataset,
    steps: Sequence[Mapping[str, Any]],
    margin: float = MARGIN,
) -> dict[str, Any]:
    """One seed's artifacts on the test rows, teacher and slim row by row, and the steps that led to the slim one.

    `reference` is for the manifest of the slim one (`Measured.reference`).
    """
    measured = measure(artifacts, dataset)
    models = {name: one.record for name, one in measured.items()}
    models["slim"] = {**models["slim"], "steps": list(steps)}
    groups = group_codes(dataset)
    own = None if groups is None else groups["test"]
    return {
        "seed": seed,
        "models": models,
        "reference": measured["slim"].reference,
        **compared(encoded, measured["teacher"].scores, measured["slim"].scores, own, margin),
        "slim_valid_quality": split_quality(artifacts["slim"], dataset, "valid"),
        "unknown_ids": encoded.unknown["test"],
    }


def compared(
    data: EncodedDataset,
    teacher: NDArray[Any],
    slim: NDArray[Any],
    group: NDArray[Any] | None = None,
    margin: float = MARGIN,
) -> dict[str, Any]:
    """Teacher and slim on the same test rows: `comparison` with its verdict, `slices`, and `calibration` of clicks.

    Scores are logits, or where items are found the metric of each query. Without a comparison where a class has too
    few rows, or the rows too few groups, for an interval. Rows of one `group` hang together, so that intervals are of
    groups where there are any.
    """
    answer, label = data.encoding.schema.answer, data.test.label
    metric = "value" if answer == "item" else JUDGED[answer]
    if answer == "item" and group is None:
        group = np.arange(len(label))
    whole = None
    with suppress(InputError):
        whole = compare(label, teacher, slim, metric, group=group)
    cuts = by_frequency(data)
    slices = compare_slices(label, teacher, slim, cuts, group, metric) if cuts else {}
    named = {} if whole is None else {**asdict(whole), "metric": JUDGED[answer]}
    both = (("teacher", teacher), ("slim", slim)) if answer == "click" else ()
    return {
        "comparison": whole and {**named, "verdict": asdict(judge(whole, margin))},
        "slices": as_records(slices),
        "calibration": {name: as_lists(label, logit) for name, logit in both},
    }


def shipped_seed(records: Sequence[Mapping[str, Any]]) -> int:
    """The seed whose slim artifact is best on validation rows."""
    return int(max(records, key=lambda record: float(record["slim_valid_quality"]))["seed"])


def by_frequency(data: EncodedDataset) -> dict[str, Cut]:
    """Test rows cut into frequent, less frequent, rare and new ids, for each field of many ids, and by the label's."""
    schema, counts = data.encoding.schema, data.encoding.counts
    if schema.catalogue is not None:
        unknown = next(each.first_value for each in schema.fields if each.name == schema.catalogue) - 1
        return {schema.label: cut_by_frequency(data.test.label - unknown, counts[schema.catalogue][unknown:])}
    return {
        each.name: cut_by_frequency(data.test.inputs.ids[:, column], counts[each.name])
        for column, each in enumerate(data.encoding.schema.categorical)
        if len(counts[each.name]) >= SLICED_FROM
    }


def combined(recipe: Recipe, dataset: Dataset, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of `result.json`: for each model the means over seeds, beside on what and from what.

    Qualities and median latencies are means over seeds, a p99 is the largest of them; bytes, tensors, steps, slices
    and floor are those of the seed that is shipped.
    """
    names = ("teacher", "student", "slim")
    shipped = next(record for record in records if record["seed"] == shipped_seed(records))
    models = {name: [record["models"][name] for record in records if name in record["models"]] for name in names}
    return {
        "name": recipe.name,
        "data": dataset.name,
        "metric": JUDGED[dataset.schema.answer],
        "recipe": recipe.model_dump(mode="json"),
        **{name: _mean_model(found, shipped["models"][name]) for name, found in models.items() if found},
        "floor": {"latency_ms": shipped["models"]["slim"]["floor_ms"]},
        "comparison": [{**record["comparison"], "seed": record["seed"]} for record in records if record["comparison"]],
        "slices": shipped["slices"],
        "calibration": shipped["calibration"],
        "seeds": [record["seed"] for record in records],
        "shipped_seed": shipped["seed"],
        "unknown_ids": shipped["unknown_ids"],
        "rows": {split: len(frame) for split, frame in dataset.splits.items()},
        "data_fingerprint": dataset.fingerprint,
        "data_facts": dataset.facts,
        "training_threads": torch.get_num_threads(),
        "threads": 1,
        **machine(),
    }


def _mean_model(found: Sequence[Mapping[str, Any]], shipped: Mapping[str, Any]) -> dict[str, Any]:
    """One model over its seeds; what is not a mean is that of the seed that is shipped."""
    first = dict(shipped)
    qualities = [one["quality"] for one in found]
    first["quality"] = _means(qualities)
    first["by_seed"] = qualities
    first["latency_ms"] = {
        rows: _mean_latency([one["latency_ms"][rows] for one in found]) for rows in first["latency_ms"]
    }
    return first


def _mean_latency(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of medians and of the bounds of their intervals; the largest p99, with its interval."""
    slowest = max(found, key=lambda one: one["p99"])
    return {
        "p50": sum(one["p50"] for one in found) / len(found),
        "p99": slowest["p99"],
        "samples": slowest["samples"],
        "quantiles": _means([one["quantiles"] for one in found]),
        "p50_interval": [
            sum(bounds) / len(found) for bounds in zip(*(one["p50_interval"] for one in found), strict=True)
        ],
        "p99_interval": slowest["p99_interval"],
    }


def _means(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every key that all records have."""
    keys = [key for key in records[0] if all(key in record for record in records)]
    return {key: sum(record[key] for record in records) / len(records) for key in keys}


def provenance(recipe: Recipe, dataset: Dataset, seed: int) -> dict[str, Any]:
    """What an artifact's manifest says of where it comes from."""
    return {
        "recipe": recipe.model_dump(mode="json"),
        "data": dataset.name,
        "data_fingerprint": dataset.fingerprint,
        "seed": seed,
        "versions": machine()["versions"],
    }
