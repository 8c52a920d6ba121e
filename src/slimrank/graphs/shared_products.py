"""Products over a parted axis: the shared places are multiplied once, for one row, and added to the others'.

A layer of integers stays one: its shared sums are whole numbers, and go into its bias. It gives the same bits where the
runtime computes it in integers. A product of floats is not split where something behind it rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import array_of, producer, scalar_of
from slimrank.graphs.shared_rules import Axis, Found, Rule, axis_of, by_part, is_constant
from slimrank.graphs.shared_values import Builder, Part, Parted, Rows, Whole


@dataclass(frozen=True)
class _Integers:
    """A layer on codes: what is parted of them, their step and zero point, and the matrix and bias in integers."""

    codes: Parted
    inputs: ir.Node
    weight: ir.Node
    bias: ir.Node | None


def gemm(builder: Builder, node: ir.Node) -> Found:
    """A B + C with A [N, K] parted along K."""
    values, weight, *rest = node.inputs
    assert values is not None
    assert weight is not None
    bias = rest[0] if rest else None
    state, plain = builder.state(values), _is_plain(node)
    if not isinstance(state, Parted) or not is_constant(builder, weight) or not plain or state.axis != 1:
        return None
    axis = 1 if node.attributes.get_int("transB", 0) else 0
    layer = _integers(builder, node, 1 - axis)
    if layer is None and not builder.splits_sum(node.outputs[0]):
        return None
    own = builder.pick(weight, axis, state.own.positions)
    if layer is not None:
        bias = _with_shared_sums(builder, layer, state, axis)
        return [Whole(builder.node("Gemm", [state.own.value, own, bias], node.attributes)[0], Rows.EACH)]
    shared = builder.pick(weight, axis, state.shared.positions)
    added = None if bias is None else builder.state(bias)
    if isinstance(added, Whole) and added.rows != Rows.EACH:
        first = builder.node("Gemm", [state.shared.value, shared, added.value], node.attributes)
        return [Whole(builder.node("Gemm", [state.own.value, own, *first], node.attributes)[0], Rows.EACH)]
    first = builder.node("Gemm", [state.shared.value, shared], node.attributes)
    if bias is not None:
        first = builder.node("Add", [*first, builder.each(bias)])
    return [Whole(builder.node("Gemm", [state.own.value, own, *first], node.attributes)[0], Rows.EACH)]


def _is_plain(node: ir.Node) -> bool:
    numbers = [node.attributes[name].value for name in ("alpha", "beta") if name in node.attributes]
    return not node.attributes.get_int("transA", 0) and all(number == 1 for number in numbers)


def matmul(builder: Builder, node: ir.Node) -> Found:
    """A B with a constant B: over a parted last axis the sum of two products, else the product of each part."""
    where = axis_of(builder, node)
    rank = builder.shapes.rank(node.inputs[1])
    weight = node.inputs[1]
    if where is None or rank is None or weight is None:
        return None
    state = where.state
    if state.axis < where.rank - 1:
        return _field_by_field(builder, node, where) if rank <= where.rank else None
    if builder.shapes.rows(node.outputs[0]) != 0 or not builder.splits_sum(node.outputs[0]):
        return None
    axis = max(rank - 2, 0)
    zeros = node.inputs[2:]  # of MatMulInteger
    made = [
        builder.node(node.op_type, [p.value, builder.pick(weight, axis, p.positions), *zeros], node.attributes)[0]
        for p in state.parts
    ]
    return [Whole(builder.node("Add", made)[0], Rows.EACH)]


def _field_by_field(builder: Builder, node: ir.Node, where: Axis) -> Found:
    """Each part times the matrices of its own places, where every place has one, else times the one of all."""
    _, weight, *zeros = node.inputs
    shape = builder.shapes.of(weight)
    assert shape is not None
    assert weight is not None
    axis = where.state.axis - (where.rank - len(shape))
    if where.state.axis == where.rank - 2 or axis < 0 or shape[axis] == 1:
        return by_part(builder, node, where.state)
    parts = []
    for part in where.state.parts:
        inputs = [part.value, builder.pick(weight, axis, part.positions), *zeros]
        parts.append(Part(builder.node(node.op_type, inputs, node.attributes)[0], part.positions))
    return [Parted(where.state.axis, where.state.size, *parts)]


def matmul_integer(builder: Builder, node: ir.Node) -> Found:
    """As `matmul`, where codes have one zero point for all."""
    zero = builder.shapes.of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else ()
    return matmul(builder, node) if zero is not None and np.prod(zero, dtype=int) == 1 else None


def conv(builder: Builder, node: ir.Node) -> Found:
    """A 1 x 1 convolution over an image whose pixels are rows, its channels parted: a layer of integers."""
    values, weight, *_ = node.inputs
    assert values is not None
    assert weight is not None
    state, shape = builder.state(values), builder.shapes.of(weight)
    layer = _integers(builder, node, 0)
    if not isinstance(state, Parted) or layer is None or shape is None or state.axis != 1:
        return None
    padded = any(node.attributes[name].value for name in ("pads",) if name in node.attributes)
    if len(shape) != 4 or shape[2:] != (1, 1) or node.attributes.get_int("group", 1) != 1 or padded:
        return None
    own = builder.pick(weight, 1, state.own.positions)
    bias = _with_shared_sums(builder, layer, state, 1)
    return [Whole(builder.node("Conv", [state.own.value, own, bias], node.attributes)[0], Rows.EACH)]


def _integers(builder: Builder, node: ir.Node, along: int) -> _Integers | None:
    """The layer on codes behind a Gemm or Conv; None where one of its operands is not dequantised as such a layer's.

    The matrix has a step for each place of its axis `along`, that of the outputs, and zero for a zero point.
    """
    inputs, weight = (producer(each, "DequantizeLinear") for each in node.inputs[:2])
    bias = producer(node.inputs[2], "DequantizeLinear") if len(node.inputs) > 2 else None
    if inputs is None or weight is None or (len(node.inputs) > 2 and bias is None):
        return None
    codes = builder.state(_first(inputs))
    sizes = [builder.shapes.of(each) for each in builder.read[inputs][1:]]
    if not isinstance(codes, Parted) or any(size is None or np.prod(size, dtype=int) != 1 for size in sizes):
        return None
    matrix, steps = builder.shapes.of(_first(weight)), builder.shapes.of(weight.inputs[1])
    if matrix is None or steps != (matrix[along],) or weight.attributes.get_int("axis", 1) % len(matrix) != along:
        return None
    shifted = len(weight.inputs) > 2 and scalar_of(weight.inputs[2]) != 0
    if shifted or len(builder.read[inputs]) < 3 or not _counts_alike(builder, inputs, weight, bias):
        return None
    return _Integers(codes, inputs, weight, bias)


def _counts_alike(builder: Builder, inputs: ir.Node, weight: ir.Node, bias: ir.Node | None) -> bool:
    """Whether one of the bias is the step of the codes times that of the matrix, as one of a sum is."""
    if bias is None:
        return True
    steps = [array_of(scale) for scale in (builder.read[inputs][1], weight.inputs[1], bias.inputs[1])]
    codes, matrix, each = (None if step is None else step.astype(np.float64) for step in steps)
    return codes is not None and matrix is not None and each is not None and np.allclose(codes * matrix, each, 1e-5, 0)


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _with_shared_sums(builder: Builder, layer: _Integers, state: Parted, axis: int) -> ir.Value:
    """The bias [M] and what the codes of the shared row add to it, in integers, dequantised as the bias is."""
    codes, (_, step, zero) = layer.codes.shared, builder.read[layer.inputs]
    matrix = builder.pick(_first(layer.weight), axis, codes.positions)
    wide = builder.shapes.of(_first(layer.weight))
    assert wide is not None
    if len(wide) == 4:
        matrix = builder.node("Reshape", [matrix, builder.integers([wide[0], len(codes.positions)])])[0]
    if axis == 1:
        matrix = builder.node("Transpose", [matrix], perm=(1, 0))[0]
    row = builder.node("Reshape", [codes.value, builder.integers([1, len(codes.positions)])])[0]
    point = builder.node("Reshape", [zero, builder.integers([])])[0]
    sums = builder.node("MatMulInteger", [row, matrix, point])[0]
    flat = builder.node("Reshape", [sums, builder.integers([-1])])[0]
    if layer.bias is not None:
        flat = builder.node("Add", [flat, _first(layer.bias)])[0]
        return builder.node("DequantizeLinear", [flat, *layer.bias.inputs[1:]], layer.bias.attributes)[0]
    scale = builder.node("Mul", [layer.weight.inputs[1], step])[0]
    return builder.node("DequantizeLinear", [flat, scale], axis=0)[0]


PRODUCTS: dict[str, Rule] = {"Conv": conv, "Gemm": gemm, "MatMul": matmul, "MatMulInteger": matmul_integer}
