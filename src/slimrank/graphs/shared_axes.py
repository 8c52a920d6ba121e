"""How operators treat parted values that move, merge or drop axes, and those that spread constants to a shape."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import array_of
from slimrank.graphs.shared_rules import Found, Rule, axis_of, by_part, is_constant
from slimrank.graphs.shared_values import Builder, Part, Parted, Rows, ShapeOf, Whole

REDUCE = {"ReduceSum": "Add", "ReduceMax": "Max", "ReduceMin": "Min"}


def reshape(builder: Builder, node: ir.Node) -> Found:
    """Places of the parted axis become blocks, or blocks places, behind the axis of rows."""
    where = axis_of(builder, node)
    before, after = builder.shapes.of(node.inputs[0]), builder.shapes.of(node.outputs[0])
    rows = builder.shapes.rows(node.outputs[0])
    if where is None or before is None or after is None or rows is None or where.state.axis < where.rows:
        return None
    axis = next((at for at in range(rows + 1, len(after)) if after[at] > 1), None)
    lengths = (prod(before[: where.rows]), prod(after[:rows]), prod(before[where.rows + 1 : where.state.axis]))
    if axis is None or lengths != (1, 1, 1):
        return None
    width, block = prod(before[where.state.axis + 1 :]), prod(after[axis + 1 :])
    parts = []
    for part in where.state.parts:
        places = (part.positions[:, None] * width + np.arange(width)).ravel()
        if len(places) % block or (places.reshape(-1, block) != places[::block, None] + np.arange(block)).any():
            return None
        if (places[::block] % block).any():
            return None
        sizes = [*after[:rows], -1, *after[rows + 1 : axis], len(places) // block, *after[axis + 1 :]]
        value = builder.node("Reshape", [part.value, builder.integers(sizes)])[0]
        parts.append(Part(value, places[::block] // block))
    return [Parted(axis, after[axis], *parts)]


def transpose(builder: Builder, node: ir.Node) -> Found:
    """Axes change places, and the parted one with them."""
    where = axis_of(builder, node)
    if where is None:
        return None
    order = list(node.attributes.get_ints("perm", tuple(reversed(range(where.rank)))))
    return by_part(builder, node, where.state, order.index(where.state.axis))


def squeeze(builder: Builder, node: ir.Node) -> Found:
    """Axes of one place go; neither the parted one nor that of rows may be among them."""
    where = axis_of(builder, node)
    axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if where is None or axes is None:
        return None
    gone = {int(axis) % where.rank for axis in axes.ravel()}
    if gone & where.fixed:
        return None
    return by_part(builder, node, where.state, where.state.axis - sum(axis < where.state.axis for axis in gone))


def unsqueeze(builder: Builder, node: ir.Node) -> Found:
    """Axes of one place come."""
    where = axis_of(builder, node)
    axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if where is None or axes is None:
        return None
    rank = where.rank + axes.size
    new = {int(axis) % rank for axis in axes.ravel()}
    left = [axis for axis in range(rank) if axis not in new]
    return by_part(builder, node, where.state, left[where.state.axis])


def reduce(builder: Builder, node: ir.Node) -> Found:
    """A sum, or an extreme, over the parted axis is that of both parts' own; over others it is each part's."""
    where = axis_of(builder, node)
    axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if where is None or axes is None or not axes.size:
        return None
    over = {int(axis) % where.rank for axis in axes.ravel()}
    keeps = node.attributes.get_int("keepdims", 1)
    if where.rows in over:
        return None
    if where.state.axis not in over:
        gone = 0 if keeps else sum(axis < where.state.axis for axis in over)
        return by_part(builder, node, where.state, where.state.axis - gone)
    first = builder.shapes.rows(node.outputs[0]) == 0
    if (
        node.op_type not in REDUCE
        or not first
        or (node.op_type == "ReduceSum" and not builder.splits_sum(node.outputs[0]))
    ):
        return None
    made = [builder.node(node.op_type, [p.value, *node.inputs[1:]], node.attributes)[0] for p in where.state.parts]
    return [Whole(builder.node(REDUCE[node.op_type], made)[0], Rows.EACH)]


def reduce_mean(builder: Builder, node: ir.Node) -> Found:
    """The mean over the parted axis is the sum by what it has been taken of; over others it is each part's."""
    where = axis_of(builder, node)
    axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    shape = builder.shapes.of(node.inputs[0])
    if where is None or axes is None or not axes.size or shape is None:
        return None
    if where.state.axis not in {int(axis) % where.rank for axis in axes.ravel()}:
        return reduce(builder, node)
    if where.rows in {int(axis) % where.rank for axis in axes.ravel()} or builder.shapes.rows(node.outputs[0]) != 0:
        return None
    if not builder.splits_sum(node.outputs[0]):
        return None
    made = [builder.node("ReduceSum", [p.value, *node.inputs[1:]], node.attributes)[0] for p in where.state.parts]
    count = builder.constant(np.asarray(prod(shape[int(axis)] for axis in axes.ravel()), np.float32))
    return [Whole(builder.node("Div", [*builder.node("Add", made), count])[0], Rows.EACH)]


def shape(builder: Builder, node: ir.Node) -> Found:
    """The shape of a parted value is made when it is asked for: what is spread to it may be parted too."""
    (value,) = node.inputs
    assert value is not None
    return [ShapeOf(value, node)] if isinstance(builder.state(value), Parted) and not node.attributes else None


def expand(builder: Builder, node: ir.Node) -> Found:
    """A constant that is spread to the shape of a parted value is spread to that of its parts."""
    value, target = node.inputs
    assert value is not None
    assert target is not None
    spread, sizes = builder.state(target), builder.shapes.of(value)
    state = builder.state(spread.of) if isinstance(spread, ShapeOf) else None
    if not isinstance(state, Parted) or not isinstance(spread, ShapeOf) or sizes is None:
        return None
    rank = builder.shapes.rank(spread.of)
    if not is_constant(builder, value) or rank is None:
        return None
    further = max(len(sizes) - rank, 0)  # axes in front that the constant has and the target has not
    axis = state.axis - (rank - len(sizes))
    rows = builder.shapes.rows(spread.of)
    if rows is None or builder.shapes.rows(node.outputs[0]) != rows + further:
        return None
    parts = []
    for part in state.parts:
        met = value if axis < 0 or sizes[axis] == 1 else builder.pick(value, axis, part.positions)
        shape_of = builder.node("Shape", [part.value])
        parts.append(Part(builder.node("Expand", [met, *shape_of])[0], part.positions))
    return [Parted(state.axis + further, state.size, *parts)]


AXIS_RULES: dict[str, Rule] = {
    **dict.fromkeys(REDUCE, reduce),
    "Expand": expand,
    "ReduceMean": reduce_mean,
    "Reshape": reshape,
    "Shape": shape,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
