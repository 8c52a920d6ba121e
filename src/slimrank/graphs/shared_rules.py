"""How operators treat values that are parted into shared places and a candidate's own: those that work on elements.

A rule gives what the outputs of a node are, having made the nodes for both parts; or None where it knows no way, and
the parts are joined before the node. Left out: operators that choose or move places (`shared_places`, `shared_axes`)
and products (`shared_products`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from slimrank.graphs.shared_values import Builder, Part, Parted, Rows, ShapeOf, State, Whole

Found = Sequence[State] | None
Rule = Callable[[Builder, ir.Node], Found]

ELEMENTWISE = (
    "Abs Add And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Clip Div Elu Equal Erf Exp Floor Gelu "
    "Greater GreaterOrEqual HardSigmoid HardSwish Identity LeakyRelu Less LessOrEqual Log Max Min Mish Mod Mul Neg Not "
    "Or PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Softplus Softsign Sqrt Sub Sum Tanh Where Xor"
)


@dataclass(frozen=True)
class Axis:
    """The parted axis of a node's first input, which is the only one that is parted."""

    state: Parted
    rank: int
    rows: int

    @property
    def fixed(self) -> set[int]:
        """The axes that a rule for other axes must leave alone."""
        return {self.rows, self.state.axis}


def axis_of(builder: Builder, node: ir.Node) -> Axis | None:
    """The parted axis of the first input; None where another one is parted or has rows, or too little is known."""
    first, *others = node.inputs
    if first is None or any(not is_constant(builder, each) for each in others):
        return None
    state, rank, rows = builder.state(first), builder.shapes.rank(first), builder.shapes.rows(first)
    return Axis(state, rank, rows) if isinstance(state, Parted) and rank is not None and rows is not None else None


def is_constant(builder: Builder, value: ir.Value | None) -> bool:
    """Whether a value hangs on no row, or is left out."""
    state = None if value is None else builder.state(value)
    return state is None or (isinstance(state, Whole) and state.rows == Rows.NONE)


def by_part(builder: Builder, node: ir.Node, state: Parted, axis: int | None = None) -> Found:
    """The node on each part, which leaves its places alone; `axis` is where they are afterwards."""
    others = node.inputs[1:]
    outputs = len(node.outputs)
    made = [builder.node(node.op_type, [p.value, *others], node.attributes, outputs) for p in state.parts]
    where = state.axis if axis is None else axis
    return [
        Parted(where, state.size, *(Part(value, p.positions) for value, p in zip(values, state.parts, strict=True)))
        for values in zip(*made, strict=True)
    ]


def broadcast(builder: Builder, node: ir.Node) -> Found:
    """Element by element: each part with the places of constants that meet it; rows meet the one row as they are."""
    states = [None if value is None else builder.state(value) for value in node.inputs]
    rank, rows = builder.shapes.rank(node.outputs[0]), builder.shapes.rows(node.outputs[0])
    of_parts = [
        (state, builder.shapes.rank(value)) for value, state in zip(node.inputs, states, strict=True)
        if isinstance(state, Parted)
    ]  # fmt: skip
    if rank is None or rows is None or any(isinstance(state, ShapeOf) for state in states):
        return None
    if not of_parts:
        return _broadcast_rows(builder, node, rank)
    like = of_parts[0][0]
    if any(each != rank or not state.lies_as(like) for state, each in of_parts) or like.axis == rows:
        return None
    parts = []
    for which, part in enumerate(like.parts):
        inputs = [_meeting(builder, value, rank, like, which) for value in node.inputs]
        if any(each is None and value is not None for each, value in zip(inputs, node.inputs, strict=True)):
            return None
        parts.append(Part(builder.node(node.op_type, inputs, node.attributes)[0], part.positions))
    return [Parted(like.axis, like.size, *parts)]


def _broadcast_rows(builder: Builder, node: ir.Node, rank: int) -> Found:
    for value in node.inputs:
        if not is_constant(builder, value) and (builder.shapes.rank(value), builder.shapes.rows(value)) != (rank, 0):
            return None
    inputs = [None if each is None else builder.state(each).value for each in node.inputs]  # type: ignore[union-attr]
    return [Whole(builder.node(node.op_type, inputs, node.attributes)[0], Rows.EACH)]


def _meeting(builder: Builder, value: ir.Value | None, rank: int, like: Parted, which: int) -> ir.Value | None:
    """What of an input meets the shared (0) or the own (1) part; None where it is not known, or has rows of its own."""
    if value is None:
        return None
    state, shape = builder.state(value), builder.shapes.of(value)
    if isinstance(state, Parted):
        return state.parts[which].value
    if shape is None or not isinstance(state, Whole) or state.rows == Rows.EACH:
        return None
    if state.rows == Rows.ONE and (builder.shapes.rows(value) != 0 or len(shape) != rank):
        return None
    axis = like.axis - (rank - len(shape))
    if axis < 0 or shape[axis] == 1:
        return state.value
    return builder.pick(state.value, axis, like.parts[which].positions)


def quantize(builder: Builder, node: ir.Node) -> Found:
    """QuantizeLinear and DequantizeLinear; steps along the parted axis are cut as it is."""
    where = axis_of(builder, node)
    if where is None or where.state.axis == where.rows or node.attributes.get_int("block_size", 0):
        return None
    state = where.state
    steps = [builder.shapes.of(each) for each in node.inputs[1:]]
    if any(shape is None or len(shape) > 1 for shape in steps):
        return None
    along = node.attributes.get_int("axis", 1) % where.rank == state.axis
    parts = []
    for part in state.parts:
        given = [
            builder.pick(each, 0, part.positions) if along and shape and shape[0] > 1 else each
            for each, shape in zip(node.inputs[1:], steps, strict=True)
            if each is not None
        ]
        parts.append(Part(builder.node(node.op_type, [part.value, *given], node.attributes)[0], part.positions))
    return [Parted(state.axis, state.size, *parts)]


ELEMENT_RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE.split(), broadcast),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), quantize),
}
