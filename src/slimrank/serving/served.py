"""An artifact as the service sees it: the tensors that it takes and gives, the call, and whether it takes raw rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.artifact import Artifact, open_artifact
from slimrank.data.encoding import Inputs
from slimrank.data.tensors import TensorSpec
from slimrank.runtime import Graph, Model, Predictions, load, load_graph
from slimrank.runtime.opened import asked_by_tensors

DIGEST_LETTERS = 12  # of an artifact's digest, as its version
IDS, NUMBERS = np.dtype(np.int32), np.dtype(np.float32)
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Served:
    """One loaded artifact.

    Attributes:
        inputs: by name, in the order of the graph.
        outputs: the same.
        run: arrays of all inputs to those of all outputs; raises `InputError` for what is not allowed.
        predict: raw rows to probabilities; None where the artifact is asked by tensors.
    """

    artifact: Artifact
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    run: Callable[[Arrays], Arrays]
    predict: Callable[[list[Any]], Predictions] | None

    @property
    def rows(self) -> str:
        """What the axis of rows is called: the first that an output has and that varies."""
        firsts = [spec.shape[0] for spec in self.outputs.values() if spec.shape]
        return next((each for each in firsts if isinstance(each, str)), "")

    @property
    def version(self) -> str:
        """The beginning of the digest of the exact content it was loaded from."""
        return self.artifact.digest[:DIGEST_LETTERS]


def open_served(path: str | Path, threads: int) -> Served:
    """The verified artifact in `path`, whatever it is asked by.

    Raises:
        InputError: as `load` and `load_graph`.
    """
    if asked_by_tensors(open_artifact(path)):
        return of_graph(load_graph(path, threads=threads))
    return of_model(load(path, threads=threads))


def of_graph(graph: Graph) -> Served:
    """A module of the user's own, as it is asked by `load_graph`."""
    return Served(graph.artifact, graph.inputs, graph.outputs, graph.run, None)


def of_model(model: Model) -> Served:
    """A model of rows: ids [rows, K] and numbers [rows, M] to a logit for each row."""
    columns = {"ids": (IDS, len(model.checks.columns)), "numbers": (NUMBERS, len(model.checks.numbers))}
    inputs = {name: TensorSpec(name, columns[name][0], ("rows", columns[name][1])) for name in model.feeds}

    def run(arrays: Arrays) -> Arrays:
        rows = len(next(iter(arrays.values())))
        absent = {name: np.zeros((rows, 0), dtype) for name, (dtype, _) in columns.items()}
        return {"logit": model.score(Inputs(**{**absent, **arrays}))}

    return Served(model.artifact, inputs, {"logit": TensorSpec("logit", NUMBERS, ("rows",))}, run, model.predict)
