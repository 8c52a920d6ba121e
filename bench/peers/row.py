"""A row of the table of models that other libraries made: both artifacts, measured in the library's environment.

Figures are of exported artifacts, run by the runtime: what the library's own forward says is only asked for parity.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

import slimrank
from slimrank.evaluation.cost import disk_bytes, quantile_interval, summary, take_turns
from slimrank.evaluation.paired import compare
from slimrank.runtime import load_graph

ENOUGH = 368  # calls that bound a 99th percentile from both sides, at 95%
CALLS = MappingProxyType({1: 2000, 256: 2000})  # by rows a call
TABLES = ("quantize-tables", "codebook-tables", "mix-bits", "hash-tables")
Arrays = Mapping[str, NDArray[Any]]


class Runs(Protocol):
    """What answers to inputs by name with outputs by name."""

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]: ...


class OnnxFile:
    """An ONNX file that is no artifact, as `slimrank compress` writes it: run by ONNX Runtime, on one thread."""

    def __init__(self, path: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.outputs = [each.name for each in self.session.get_outputs()]

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """The outputs by name."""
        return dict(zip(self.outputs, self.session.run(self.outputs, dict(feeds)), strict=True))


def first(answers: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The first output."""
    return next(iter(answers.values()))


def logits(probability: NDArray[Any]) -> NDArray[np.float64]:
    """log(p / (1 - p)) of what float32 can tell from 0 and 1."""
    clipped = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    found: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return found


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Test rows, and what is asked of them.

    Attributes:
        inputs: of the graphs by name.
        label: [N].
        group: [N].
        metrics: by name.
        answer: which of a graph's outputs counts, the first by default.
        scored: a graph's scores [N] of the rows, where they are not that output.
        probabilities: whether scores are such, and logloss is to be counted from their logits.
    """

    inputs: Arrays
    label: NDArray[Any]
    group: NDArray[Any]
    metrics: Sequence[str]
    answer: Callable[[dict[str, NDArray[Any]]], NDArray[Any]] = first
    scored: Callable[[Runs], NDArray[Any]] | None = None
    probabilities: bool = False

    def scores(self, graph: Runs) -> NDArray[Any]:
        """What the graph says of the rows."""
        found = self.answer(graph.run(self.inputs)).ravel() if self.scored is None else self.scored(graph)
        return logits(found) if self.probabilities else found


def figures(
    artifacts: Mapping[str, Path],
    answers: Mapping[str, NDArray[Any]],
    rows: Arrays,
    test: Judged,
    embedding_bytes: int,
    records: list[dict[str, Any]],
    calls: Mapping[int, int] = CALLS,
) -> dict[str, Any]:
    """What the table says of one model.

    Args:
        artifacts: `before` and `after`: artifacts that are asked by tensors, or ONNX files.
        answers: the models' own answers to `rows`, for parity, of those that there is a model of.
        rows: inputs of the graphs, 256 rows or more.
        test: what both artifacts are judged by, and compared on in pairs.
        embedding_bytes: of all embeddings of the model as it was; 0 of one that has none.
        records: of the steps.
        calls: that are timed, by rows a call.
    """
    graphs = {name: _opened(path) for name, path in artifacts.items()}
    disk = {name: _bytes_on_disk(path) for name, path in artifacts.items()}
    found = {name: test.answer(graph.run(rows)) for name, graph in graphs.items()}
    scores = {name: test.scores(graph) for name, graph in graphs.items()}
    judged = {
        metric: compare(test.label, scores["before"], scores["after"], metric, group=test.group)
        for metric in test.metrics
    }
    tables = sum(record["touched_bytes"] for record in records if record["name"] in TABLES)
    return {
        # Of one-hot encodings lookups have a row more, of zeros.
        "embedding_bytes_touched": min(1.0, tables / embedding_bytes) if embedding_bytes else None,
        "bytes_on_disk": disk,
        "times_smaller": disk["before"] / disk["after"],
        "quality": {
            metric: {"before": one.a, "after": one.b, "change": one.difference, "low": one.low, "high": one.high}
            for metric, one in judged.items()
        },
        "parity": {name: float(np.abs(found[name].ravel() - answers[name].ravel()).max()) for name in answers},
        "latency_ms": {str(size): _latency(graphs, rows, size, count) for size, count in calls.items()},
        "steps": [{key: record[key] for key in ("name", "settings", "touched", "skipped")} for record in records],
    }


def _opened(path: Path) -> Runs:
    return load_graph(path) if path.is_dir() else OnnxFile(path)


def _bytes_on_disk(path: Path) -> int:
    """Bytes of an artifact's graph and weights, or of an ONNX file and its data beside it."""
    if path.is_dir():
        return disk_bytes(path)
    return sum(each.stat().st_size for each in (path, path.with_name(f"{path.name}.data")) if each.exists())


def _latency(graphs: Mapping[str, Runs], rows: Arrays, size: int, calls: int) -> dict[str, Any]:
    """Calls of both in turns, checks of an artifact's inputs among them, one thread, every one with other rows."""
    count = len(next(iter(rows.values())))

    def calling(graph: Runs) -> Callable[[int], Callable[[], object]]:
        def prepare(sample: int) -> Callable[[], object]:
            places = np.arange(sample * size, (sample + 1) * size) % count
            feeds = {name: array[places] for name, array in rows.items()}
            return lambda: graph.run(feeds)

        return prepare

    taken = take_turns({name: calling(graph) for name, graph in graphs.items()}, calls)
    told = summary if calls >= ENOUGH else _median
    found = {name: told(each / 1e6) for name, each in taken.items()}
    return {**found, "p50_ratio": found["before"]["p50"] / found["after"]["p50"]}


def _median(taken: NDArray[np.float64]) -> dict[str, Any]:
    """What few calls can say: the median and its interval."""
    low, high = quantile_interval(taken, 0.5)
    return {"p50": float(np.median(taken)), "p50_interval": [low, high], "samples": len(taken)}


def graph_maker(path: Path, folder: Path, calibration: Arrays) -> Callable[[Any], tuple[Path, list[dict[str, Any]]]]:
    """What compresses the ONNX file at `path` by some steps: the new file in `folder`, and the records of the steps."""

    def make(steps: Any) -> tuple[Path, list[dict[str, Any]]]:
        out = folder / f"small-{len(list(folder.glob('small-*.onnx')))}.onnx"
        return out, slimrank.compress_graph(path, out, steps, dict(calibration))["steps"]

    return make


def tell(row: Mapping[str, Any]) -> None:
    """Print a row as the last line, which is what `in_environment` reads."""
    print(json.dumps(row))
