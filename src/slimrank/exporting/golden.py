"""The golden rows of a graph that is being exported: made, and answered by ONNX Runtime as it will be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.data.encoding import Encoding, without_padding
from slimrank.data.golden import ROWS, Golden, made_rows
from slimrank.data.tensors import TensorSpec
from slimrank.exporting.bounds import IdBound

VARYING = 4  # the size of a dimension that may vary
Bounds = Mapping[str, Sequence[IdBound]]


def golden_of_rows(graph: Path, encoding: Encoding) -> dict[str, Any]:
    """The manifest's `golden` of a graph that is asked by rows, and by items where it gives vectors of them."""
    session = _session(graph)
    shapes = {each.name: each.shape for each in session.get_inputs()}
    made = made_rows(encoding.schema, encoding.sizes)
    ids = made.ids
    if "ids" in shapes and not isinstance(shapes["ids"][1], int):
        ids = without_padding(ids)
    feeds: dict[str, NDArray[Any]] = {"ids": ids, "numbers": made.numbers}
    if "items" in shapes:
        feeds["items"] = _items(encoding)
    return _asked(session, {name: feeds[name] for name in shapes})


def golden_of_tensors(graph: Path, bounds: Bounds) -> dict[str, Any]:
    """The manifest's `golden` of a graph that is asked by tensors, or why it has none.

    Numbers are normal. Integers are drawn where `bounds` say how many rows their table has; of others nothing says what
    they may be, and they are 1, which masks, lengths and counts can be. A graph that does not go with that has none.
    """
    session = _session(graph)
    draw = np.random.default_rng(0)
    known: dict[str, int] = {}
    specs = map(TensorSpec.of_end, session.get_inputs())
    feeds = {spec.name: _made(spec, bounds.get(spec.name, ()), known, draw) for spec in specs}
    return _asked(session, feeds)


def _items(encoding: Encoding) -> NDArray[np.int32]:
    """Local ids of some items, from the first of the catalogue to its last."""
    name = str(encoding.schema.catalogue)
    first = next(each.first_value for each in encoding.schema.fields if each.name == name)
    last = max(first, encoding.sizes[name] - 1)
    return np.unique(np.linspace(first, last, ROWS).astype(np.int32))


def _made(
    spec: TensorSpec, bounds: Sequence[IdBound], known: dict[str, int], draw: np.random.Generator
) -> NDArray[Any]:
    """An array for one input of a graph; `known` are the sizes of names, which inputs share."""
    shape = spec.sizes(known, VARYING)
    if spec.dtype.kind == "f":
        return draw.normal(size=shape).round(3).astype(spec.dtype)
    array = np.ones(shape, spec.dtype)
    for first, last, rows in bounds:
        part = array[...] if last is None else array[:, first:last]
        part[...] = draw.integers(0, rows, part.shape)
    return array


def _asked(session: Any, feeds: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """What the session answers, as the manifest holds it."""
    names = [each.name for each in session.get_outputs()]
    try:
        found = session.run(names, dict(feeds))
    except Exception as error:  # its errors share no other base class
        return Golden(none=f"the graph does not go with made inputs: {type(error).__name__}").model_dump(mode="json")
    return Golden.of(feeds, dict(zip(names, found, strict=True))).model_dump(mode="json")


def _session(graph: Path) -> Any:
    """A session as the runtime opens one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # a graph that does not go with made inputs is told in the manifest
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no other base class
        raise InputError(f"{graph.name}: onnxruntime {onnxruntime.__version__} cannot load it: {error}") from error
