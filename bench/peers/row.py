"""A row of the table of models that other libraries made: both artifacts, measured in the library's environment.

Figures are of exported artifacts, run by the runtime: what the library's own forward says is only asked for parity.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.evaluation.cost import disk_bytes, summary, take_turns
from slimrank.evaluation.paired import compare
from slimrank.runtime import Graph, load_graph

CALLS = MappingProxyType({1: 2000, 256: 2000})  # by rows a call
TABLES = ("quantize-tables", "codebook-tables", "mix-bits", "hash-tables")
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Judged:
    """Test rows: inputs of the graphs by name, labels [N], groups [N], and the metrics that are asked of them.

    `scores` [N] of a graph are its first output, or what that function makes of the graph.
    """

    inputs: Arrays
    label: NDArray[Any]
    group: NDArray[Any]
    metrics: Sequence[str]
    scored: Callable[[Graph], NDArray[Any]] | None = None

    def scores(self, graph: Graph) -> NDArray[Any]:
        """What the graph says of the rows."""
        if self.scored is not None:
            return self.scored(graph)
        return next(iter(graph.run(self.inputs).values())).ravel()


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
        artifacts: `before` and `after`.
        answers: the modules' own first answers to `rows`, for parity.
        rows: inputs of the graphs, 256 rows or more.
        test: what both artifacts are judged by, and compared on in pairs.
        embedding_bytes: of all embeddings of the model as it was.
        records: of the steps.
        calls: that are timed, by rows a call.
    """
    graphs = {name: load_graph(path) for name, path in artifacts.items()}
    disk = {name: disk_bytes(path) for name, path in artifacts.items()}
    found = {name: next(iter(graph.run(rows).values())) for name, graph in graphs.items()}
    scores = {name: test.scores(graph) for name, graph in graphs.items()}
    judged = {
        metric: compare(test.label, scores["before"], scores["after"], metric, group=test.group)
        for metric in test.metrics
    }
    tables = sum(record["touched_bytes"] for record in records if record["name"] in TABLES)
    return {
        "embedding_bytes_touched": tables / embedding_bytes,
        "bytes_on_disk": disk,
        "times_smaller": disk["before"] / disk["after"],
        "quality": {
            metric: {"before": one.a, "after": one.b, "change": one.difference, "low": one.low, "high": one.high}
            for metric, one in judged.items()
        },
        "parity": {name: float(np.abs(found[name].ravel() - answers[name].ravel()).max()) for name in graphs},
        "latency_ms": {str(size): _latency(graphs, rows, size, count) for size, count in calls.items()},
        "steps": [{key: record[key] for key in ("name", "settings", "touched", "skipped")} for record in records],
    }


def _latency(graphs: Mapping[str, Graph], rows: Arrays, size: int, calls: int) -> dict[str, Any]:
    """Calls of both in turns, checks of their inputs among them, one thread, every one with other rows."""
    count = len(next(iter(rows.values())))

    def calling(graph: Graph) -> Callable[[int], Callable[[], object]]:
        def prepare(sample: int) -> Callable[[], object]:
            places = np.arange(sample * size, (sample + 1) * size) % count
            feeds = {name: array[places] for name, array in rows.items()}
            return lambda: graph.run(feeds)

        return prepare

    taken = take_turns({name: calling(graph) for name, graph in graphs.items()}, calls)
    found = {name: summary(each / 1e6) for name, each in taken.items()}
    return {**found, "p50_ratio": found["before"]["p50"] / found["after"]["p50"]}


def tell(row: Mapping[str, Any]) -> None:
    """Print a row as the last line, which is what `in_environment` reads."""
    print(json.dumps(row))
