"""Several artifacts of one dataset, measured side by side on the same rows: what `result.json` holds of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from slimrank import runtime
from slimrank.artifact import open_artifact, stored_tensors
from slimrank.data.encoding import Inputs
from slimrank.data.rows import Dataset, group_codes
from slimrank.data.schema import JUDGED, Answer
from slimrank.evaluation.cost import Floor, bytes_of, floor, latency, throughput
from slimrank.evaluation.finding import Asked, find_items
from slimrank.evaluation.machine import cores
from slimrank.metrics import quality
from slimrank.metrics.top_k import average_precision, ndcg
from slimrank.runtime import load_retriever
from slimrank.runtime.reference import reference_of

LATENCY_ROWS = 1 << 16
LATENCY_QUERIES = 1 << 12
LARGEST_FLOOR = 1 << 30  # bytes of a table from which its floor is not measured beside every run


@dataclass(frozen=True)
class Measured:
    """`record` is the artifact's part of `result.json`.

    `scores` [N] are what models are compared by, row by row: logits, or of a query that finds items its NDCG@10.
    `reference` is what its manifest says of scores and unknown ids, so that a service can see them drift.
    """

    record: dict[str, Any]
    scores: NDArray[Any]
    reference: dict[str, Any]


def measure(
    artifacts: Mapping[str, Path], dataset: Dataset, split: str = "test", *, threads: int = 1
) -> dict[str, Measured]:
    """Quality, bytes and latency of every artifact on the rows of one split, latency in turns in one run.

    Every artifact gets raw rows and encodes them by its own vocabulary, as it will where it is deployed.

    Raises:
        InputError: an artifact is not sound, or the rows do not fit it.
    """
    if dataset.schema.answer == "item":
        return _measure_finders(artifacts, dataset, split, threads)
    frame = dataset.splits[split]
    models = {name: runtime.load(path, threads=threads) for name, path in artifacts.items()}
    encoded = {name: model.encoding.encode_telling(frame) for name, model in models.items()}
    inputs = {name: told[0] for name, told in encoded.items()}
    logits = {name: model.score(inputs[name]) for name, model in models.items()}
    head = {name: rows.take(slice(0, LATENCY_ROWS)) for name, rows in inputs.items()}
    floors = {f"floor of {name}": floor_of(model, head[name]) for name, model in models.items()}
    bare = {name: found for name, found in floors.items() if found is not None}
    times = latency({**models, **bare}, {**head, **{name: found.inputs for name, found in bare.items()}})
    rates = throughput(models, head, workers=cores())
    return {
        name: Measured(
            {
                "quality": quality_of(dataset.schema.answer, *labels_of(dataset, split), logits[name]),
                "bytes": bytes_of(path),
                "latency_ms": times[name],
                "rows_per_second": {"value": round(rates[name]), "workers": cores(), "rows_a_call": 256},
                "floor_ms": times.get(f"floor of {name}", {}),
                "tensors": tensors_of(path),
            },
            logits[name],
            reference_of(*encoded[name], logits[name]),
        )
        for name, path in artifacts.items()
    }


def quality_of(
    answer: Answer, label: NDArray[Any], group: NDArray[Any] | None, score: NDArray[Any]
) -> dict[str, float]:
    """The metrics of an answer: those of clicks, or NDCG@10 and MAP over the queries that have a relevant document."""
    if answer != "relevance" or group is None:
        return quality(label, score, group)
    lists = {"ndcg@10": ndcg(label, score, group, 10), "map": average_precision(label, score, group)}
    return {name: found.mean for name, found in lists.items()}


def floor_of(model: runtime.Model, inputs: Inputs) -> Floor | None:
    """The lookups of a model and nothing else; None where it has none, or a table too large for a graph of its own."""
    stored = table_bytes(model.artifact.path)
    if not model.encoding.sizes or stored >= LARGEST_FLOOR:
        return None
    return floor(inputs, model.encoding, stored)


def table_bytes(path: Path) -> int:
    """Bytes of all that belongs to an artifact's tables: rows, codes, codebooks, maps."""
    return sum(tensor["bytes"] for tensor in tensors_of(path) if ".table." in tensor["name"])


def labels_of(dataset: Dataset, split: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Label [N] and, where rows have one, group [N] of the rows of a split."""
    groups = group_codes(dataset)
    return dataset.splits[split][dataset.schema.label].to_numpy(), None if groups is None else groups[split]


def split_quality(path: Path, dataset: Dataset, split: str) -> float:
    """The metric that an artifact is judged by (`JUDGED`), on the rows of one split."""
    answer = dataset.schema.answer
    if answer == "item":
        found = find_items(load_retriever(path), dataset.splits[split], dataset.schema)
        return found.metrics[JUDGED[answer]].mean
    model, frame = runtime.load(path), dataset.splits[split]
    score = model.score(model.encoding.encode(frame))
    return quality_of(answer, *labels_of(dataset, split), score)[JUDGED[answer]]


def _measure_finders(artifacts: Mapping[str, Path], dataset: Dataset, split: str, threads: int) -> dict[str, Measured]:
    """The same of artifacts that answer with items; latency is of a query's vector and its first ten items."""
    frame = dataset.splits[split]
    models = {name: load_retriever(path, threads=threads) for name, path in artifacts.items()}
    found = {name: find_items(model, frame, dataset.schema) for name, model in models.items()}
    head = frame.head(LATENCY_QUERIES)
    inputs = {name: model.encoding.encode(head) for name, model in models.items()}
    times = latency({name: Asked(model) for name, model in models.items()}, inputs, sizes=(1, 32))
    return {
        name: Measured(
            {
                "quality": {metric: each.mean for metric, each in found[name].metrics.items()},
                "unknown_items": found[name].unknown,
                "bytes": bytes_of(path),
                "latency_ms": times[name],
                "floor_ms": {},
                "tensors": tensors_of(path),
            },
            found[name].metrics[JUDGED["item"]].value,
            reference_of(*models[name].encoding.encode_telling(frame)),
        )
        for name, path in artifacts.items()
    }


def tensors_of(path: Path) -> list[dict[str, Any]]:
    """Name and bytes of every tensor that an artifact stores, the largest first."""
    tensors = stored_tensors(open_artifact(path).manifest)
    kept = [{"name": tensor["name"], "bytes": tensor["bytes"]} for tensor in tensors]
    return sorted(kept, key=lambda tensor: -tensor["bytes"])
