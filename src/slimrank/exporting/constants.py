"""Reading and making constants of an ONNX graph in its in-memory form (onnx_ir)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[np.generic]


def array_of(value: ir.Value | None) -> Array | None:
    """The content of an initialiser, or None where the value is computed or fed."""
    if value is None or value.const_value is None:
        return None
    array: Array = value.const_value.numpy()
    return array


def scalar_of(value: ir.Value | None) -> float | None:
    """The one number that a constant holds (in every element), or None."""
    array = array_of(value)
    if array is None or not array.size or (array != array.flat[0]).any():
        return None
    return float(array.flat[0])


def constant(graph: ir.Graph, array: Array, stem: str) -> ir.Value:
    """A new initialiser of `graph`, with a name that starts with `stem`."""
    name, count = stem, 1
    while name in graph.initializers:
        count += 1
        name = f"{stem}_{count}"
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def node_before(
    anchor: ir.Node, operator: str, inputs: list[ir.Value], outputs: int = 1, **attributes: int | str | tuple[int, ...]
) -> list[ir.Value]:
    """The outputs of a new node of the standard domain, placed before `anchor`."""
    node = ir.node(operator, inputs, attributes or None, num_outputs=outputs)
    assert anchor.graph is not None
    anchor.graph.insert_before(anchor, node)
    return list(node.outputs)


def producer(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """The node that computes `value` where it is one of `operators` of the standard domain."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.domain == "" and node.op_type in operators else None
