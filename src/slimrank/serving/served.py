"""An artifact as the service sees it: the tensors that it takes and gives, the call, and whether it takes raw rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.artifact import Artifact
from slimrank.data.encoding import Inputs
from slimrank.data.tensors import TensorSpec
from slimrank.runtime import Graph, Model, Retriever
from slimrank.runtime.loading import open_any
from slimrank.runtime.opened import Opened, when_still

DIGEST_LETTERS = 12  # of an artifact's digest, as its version
IDS, NUMBERS = np.dtype(np.int32), np.dtype(np.float32)
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Served:
    """One loaded artifact.

    Attributes:
        inputs: by name, in the order of the graph.
        outputs: the same.
        check: raises `InputError` for arrays of all inputs that are not allowed.
        run: arrays of all inputs, which were checked, to those of all outputs.
        loaded: what it was opened as: by rows, by queries, or by tensors.
        joins: whether rows are known not to see each other, so that requests may share a call.
    """

    artifact: Artifact
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    check: Callable[[Arrays], None]
    run: Callable[[Arrays], Arrays]
    loaded: Model | Retriever | Graph
    joins: bool

    @property
    def rows(self) -> str:
        """What the axis of rows is called: the first that an output has and that varies."""
        firsts = [spec.shape[0] for spec in self.outputs.values() if spec.shape]
        return next((each for each in firsts if isinstance(each, str)), "")

    @property
    def version(self) -> str:
        """The beginning of the digest of the exact content it was loaded from."""
        return self.artifact.digest[:DIGEST_LETTERS]

    def count(self, arrays: Arrays) -> int:
        """Rows of a request."""
        by_rows = (arrays[name] for name, spec in self.inputs.items() if spec.shape[:1] == (self.rows,))
        return next((len(array) for array in by_rows), 1)


def open_served(path: str | Path, threads: int, check: Callable[[Artifact], None] = lambda artifact: None) -> Served:
    """The verified artifact in `path`, whatever it is asked by; `check` may refuse it before its graph is opened.

    Raises:
        InputError: as `load_any`, and as `check`.
    """

    def opener(artifact: Artifact, threads: int) -> Model | Retriever | Graph:
        check(artifact)
        return open_any(artifact, threads)

    found = when_still(path, threads, opener)
    if isinstance(found, Graph):
        return of_graph(found)
    return of_retriever(found) if isinstance(found, Retriever) else of_model(found)


def of_graph(graph: Graph) -> Served:
    """A module of the user's own, as it is asked by `load_graph`; nothing says that its rows do not see each other."""
    return Served(graph.artifact, graph.inputs, graph.outputs, lambda arrays: None, graph.run, graph, joins=False)


def of_model(model: Model) -> Served:
    """A model of rows: ids [rows, K] and numbers [rows, M] to a logit for each row."""
    inputs = _inputs_of(model)

    def run(arrays: Arrays) -> Arrays:
        return {"logit": model.logits(_joined(model, arrays))}

    outputs = {"logit": TensorSpec("logit", NUMBERS, ("rows",))}
    return Served(model.artifact, inputs, outputs, _checks(model), run, model, joins=True)


def of_retriever(finder: Retriever) -> Served:
    """A model of queries: ids and numbers to a vector for each query, or to the scores of all items."""
    inputs = _inputs_of(finder)
    vectors = "vector" in finder.outputs

    def run(arrays: Arrays) -> Arrays:
        queries = _joined(finder, arrays)
        return {"vector": finder.vectors(queries)} if vectors else {"scores": finder.scores(queries)}

    name = "vector" if vectors else "scores"
    outputs = {name: TensorSpec(name, NUMBERS, ("rows", "dimension" if vectors else "items"))}
    return Served(finder.artifact, inputs, outputs, _checks(finder), run, finder, joins=True)


def _checks(opened: Opened) -> Callable[[Arrays], None]:
    return lambda arrays: opened.checks(_joined(opened, arrays))


def _inputs_of(opened: Opened) -> dict[str, TensorSpec]:
    widths = {"ids": (IDS, len(opened.checks.columns)), "numbers": (NUMBERS, len(opened.checks.numbers))}
    specs = {name: TensorSpec(name, dtype, ("rows", width)) for name, (dtype, width) in widths.items()}
    return {name: spec for name, spec in specs.items() if name in opened.feeds}


def _joined(opened: Opened, arrays: Arrays) -> Inputs:
    """The arrays of a request as inputs, those that the graph does not take with no columns."""
    rows = len(next(iter(arrays.values())))
    absent = {
        "ids": np.zeros((rows, 0), IDS),
        "numbers": np.zeros((rows, 0), NUMBERS),
    }
    return Inputs(**{**absent, **arrays})
