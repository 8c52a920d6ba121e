"""An artifact that is asked by the tensors of its graph: a module of the user's own. Safe to use from several threads.

graph = load_graph("artifact")
graph.run({"user": np.array([3, 7]), "items": ...})["output"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.artifact import Artifact
from slimrank.config import InputError, nearest
from slimrank.data.tensors import TensorSpec
from slimrank.runtime.opened import asked_by_tensors, when_still
from slimrank.runtime.session import check_operators, open_session


@dataclass(frozen=True, eq=False)
class Graph:
    """One verified artifact, ready to run. Made by `load_graph`.

    Attributes:
        inputs: what goes in, by name.
        outputs: what comes out, by name.
        bounds: by input the columns (first, last or None for all) and the number of ids that these may hold.
    """

    artifact: Artifact
    session: Any
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    bounds: Mapping[str, list[tuple[int, int | None, int]]]

    def run(self, feeds: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
        """The outputs for inputs by name; integers and floats of fewer bits are taken where nothing is lost.

        Raises:
            InputError: an input is missing, unknown or of another type or shape, a number is NaN or infinite, or an id
                is not in its table, and nothing was run then; or the graph does not go with these sizes.
        """
        for name in feeds:
            if name not in self.inputs:
                raise InputError(f"unknown input {name!r}. {nearest(name, list(self.inputs))}")
        missing = [name for name in self.inputs if name not in feeds]
        if missing:
            raise InputError(f"inputs are missing: {', '.join(missing)}")
        arrays = {name: spec.array(feeds[name]) for name, spec in self.inputs.items()}
        sizes: dict[str, int] = {}
        for name, array in arrays.items():
            self.inputs[name].check_sizes(array, sizes)
            _check_finite(name, array)
            for bound in self.bounds.get(name, []):
                _check_ids(name, array, *bound)
        try:
            found = self.session.run(list(self.outputs), arrays)
        except Exception as error:  # its errors share no other base class
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
            raise InputError(f"the graph does not go with {shapes}: {type(error).__name__}") from error
        return dict(zip(self.outputs, found, strict=True))


def _check_finite(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = int((~np.isfinite(array)).sum())
        raise InputError(f"input {name!r}: {wrong} of {array.size} values are NaN or infinite; allowed: finite")


def _check_ids(name: str, array: NDArray[Any], first: int, last: int | None, rows: int) -> None:
    ids = array if last is None else array[:, first:last]
    wrong = (ids < 0) | (ids >= rows)
    if wrong.any():
        place = np.unravel_index(int(wrong.argmax()), wrong.shape)
        where = f" (columns {first} to {last - 1})" if last is not None else ""
        raise InputError(
            f"input {name!r}{where}: id {ids[place]} in row {place[0]} is out of range, allowed 0..{rows - 1}; "
            f"{int(wrong.sum())} of {wrong.size} ids are"
        )


def load_graph(path: str | Path, *, threads: int = 1) -> Graph:
    """Verify the artifact in `path` and open it with that many threads per call.

    Raises:
        InputError: it is damaged, uses an operator that is not allowed, does not load, or is asked by rows.
    """
    return when_still(path, threads, open_graph)


def open_graph(artifact: Artifact, threads: int) -> Graph:
    """A verified artifact; whoever opens it looks whether it is still in its place (`when_still`).

    Raises:
        InputError: as `load_graph`, but for damage.
    """
    check_operators(artifact)
    if not asked_by_tensors(artifact):
        raise InputError(f"{artifact.path}: is asked by rows, not by tensors: `load` opens it")
    session = open_session(artifact, threads)
    inputs, outputs = (
        {spec.name: spec for spec in map(TensorSpec.of_end, ends)}
        for ends in (session.get_inputs(), session.get_outputs())
    )
    bounds = {
        name: [(int(first), None if last is None else int(last), int(rows)) for first, last, rows in found]
        for name, found in artifact.manifest.get("bounds", {}).items()
    }
    return Graph(artifact, session, inputs, outputs, bounds)
