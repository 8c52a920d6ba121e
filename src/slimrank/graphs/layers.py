"""Which nodes of a graph are dense layers: products of what is computed with a matrix that is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import array_of, producer
from slimrank.graphs.chunks import Floats
from slimrank.graphs.steps import Context, fed_or_answered, matrices, named, readers
from slimrank.graphs.tables import PRODUCTS

NO_LAYER = "is the weight of no MatMul and no Gemm"


@dataclass(frozen=True, eq=False)
class Layer:
    """y = x W + b: the node of the product, and the one that gives y, which is a node after it where that adds b.

    `weight` is the constant as it is stored, `turned` whether it is stored [out, in]; `factor` multiplies W.
    """

    name: str
    node: ir.Node
    last: ir.Node
    weight: ir.Value
    turned: bool
    bias: Floats | None
    factor: float

    @property
    def inputs(self) -> ir.Value:
        """x, as it is now: another value once the layer that computes it has been exchanged."""
        assert self.node.inputs[0] is not None
        return self.node.inputs[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the weight."""
        assert self.weight.const_value is not None
        return int(self.weight.const_value.nbytes)

    def matrix(self) -> Floats:
        """W [in, out]."""
        assert self.weight.const_value is not None
        stored = np.asarray(self.weight.const_value.numpy(), np.float32)
        return np.ascontiguousarray(stored.T if self.turned else stored) * np.float32(self.factor)


def find_layers(model: ir.Model, context: Context) -> list[Layer]:
    """The dense layers of `model`; every other matrix that is no table is noted, with the reason."""
    found = []
    for value in matrices(model):
        uses = readers(value)
        if any(node.op_type == "Gather" and node.domain == "" and place == 0 for node, place in uses):
            if any(_multiplies(node) for node, _ in uses):
                context.skip(str(value.name), "is a table as well, whose rows are looked up")
            continue
        faults = [fault for node, place in uses if (fault := _fault(model.graph, value, node, place))]
        if fed_or_answered(value) or not uses:
            faults = [fed_or_answered(value) or "is read by no node"]
        if faults:
            context.skip(str(value.name), faults[0])
            continue
        found += [layer for node, place in uses for layer in _layers(value, node, place)]
    return found


def _multiplies(node: ir.Node) -> bool:
    return node.domain == "" and (node.op_type in PRODUCTS or _is_turn(node))


def _is_turn(node: ir.Node) -> bool:
    """Whether a node swaps the two axes of a matrix."""
    axes = node.attributes.get_ints("perm", (1, 0)) if node.op_type == "Transpose" and node.domain == "" else ()
    return tuple(axes) == (1, 0)


def _fault(graph: ir.Graph, value: ir.Value, node: ir.Node, place: int) -> str:
    """Why a node that reads a matrix is no dense layer, or nothing."""
    assert value.const_value is not None
    if len(value.const_value.shape) != 2:
        return NO_LAYER
    if _is_turn(node):
        if node.outputs[0].is_graph_output():
            return NO_LAYER
        return next((fault for each, at in readers(node.outputs[0]) if (fault := _fault(graph, value, each, at))), "")
    if not (node.domain == "" and node.op_type in PRODUCTS):
        return f"{NO_LAYER}: {named(node)} reads it"
    if value.const_value.dtype != ir.DataType.FLOAT:
        return f"holds {value.const_value.dtype.name}, layers of FLOAT become integers"
    if place != 1:
        return f"is the {'first' if place == 0 else 'third'} input of {named(node)}"
    if node.inputs[0] is None or node.inputs[0].const_value is not None:
        return f"is multiplied by a constant in {named(node)}"
    if node.graph is not graph:
        return f"is multiplied inside of a subgraph, in {named(node)}"
    if node.op_type == "Gemm" and node.attributes.get_int("transA", 0):
        return f"multiplies a transposed input in {named(node)}"
    if node.op_type == "Gemm" and len(node.inputs) == 3 and node.inputs[2] is not None:
        bias = array_of(node.inputs[2])
        if bias is None or bias.size not in (1, _width(node, value)):
            return f"adds what is no bias in {named(node)}"
    return ""


def _width(node: ir.Node, value: ir.Value) -> int:
    """How many outputs a Gemm has that reads `value` as it is stored."""
    assert value.const_value is not None
    sizes = value.const_value.shape.numpy()
    return int(sizes[0] if node.attributes.get_int("transB", 0) != (node.inputs[1] is not value) else sizes[1])


def _layers(value: ir.Value, node: ir.Node, place: int, turned: bool = False) -> Iterator[Layer]:
    """The layers that a node makes of a matrix, which may be swapped before."""
    if _is_turn(node):
        for each, at in readers(node.outputs[0]):
            yield from _layers(value, each, at, not turned)
        return
    last, bias, factor = node, None, 1.0
    if node.op_type == "Gemm":
        factor = node.attributes.get_float("alpha", 1.0)
        turned = turned != bool(node.attributes.get_int("transB", 0))
        if len(node.inputs) == 3 and node.inputs[2] is not None:
            bias = _bias(array_of(node.inputs[2])) * np.float32(node.attributes.get_float("beta", 1.0))
    else:
        last, bias = _added(node, value, turned)
    if bias is not None:
        assert value.const_value is not None
        bias = np.broadcast_to(bias, value.const_value.shape.numpy()[0 if turned else 1]).astype(np.float32)
    yield Layer(str(value.name), node, last, value, turned, bias, factor)


def _bias(array: object) -> Floats:
    return np.asarray(array, np.float32).reshape(-1)


def _added(node: ir.Node, value: ir.Value, turned: bool) -> tuple[ir.Node, Floats | None]:
    """The node that adds a bias to a MatMul and nothing else, and the bias; the MatMul itself and None without one."""
    assert value.const_value is not None
    users, width = list(node.outputs[0].uses()), value.const_value.shape.numpy()[0 if turned else 1]
    add = users[0].node if len(users) == 1 and not node.outputs[0].is_graph_output() else None
    if add is None or producer(add.outputs[0], "Add") is None:
        return node, None
    found = next((array for each in add.inputs if (array := array_of(each)) is not None), None)
    if found is None or found.size != width or found.shape[-1] != width or found.ndim > 2:
        return node, None
    return add, _bias(found)
