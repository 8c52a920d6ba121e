"""Which operators give the shared row what they would give to each of many rows like it.

A value that hangs on shared columns alone is computed for one row, and repeated where candidates meet it. That is right
for operators that work on rows one by one, and wrong for a sum, a sort or a count along the rows. Only operators that
are known here run on the one row; before others the rows are repeated. Left out: operators of other domains.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import onnx_ir as ir

from slimrank.exporting.constants import scalar_of
from slimrank.graphs.shared_rules import ELEMENTWISE
from slimrank.graphs.shared_values import Builder, Rows, Whole

Check = Callable[[Builder, ir.Node, int], bool]
LENGTHS = {"ConstantOfShape": 0, "Expand": 1, "Pad": 1, "Reshape": 1, "Slice": 1, "Tile": 1}  # first such input
REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"


def row_by_row(builder: Builder, node: ir.Node) -> bool:
    """Whether `node`, no input of which is a candidate's, may run on the shared row alone.

    Numbers that say how many rows there are may only become sizes: those of one row are not those of many.
    """
    shapes = builder.shapes
    hanging = [
        (place, value) for place, value in enumerate(node.inputs) if value is not None and _is_one(builder, value)
    ]
    outputs = [value for value in node.outputs if value.uses() or value.is_graph_output()]
    if node.domain or any(shapes.of(value) is None for value in (*outputs, *(value for _, value in hanging))):
        return False
    counts = {place for place, value in hanging if not _has_rows(builder, value)}
    if node.op_type in ("Shape", "Size") or (len(counts) == len(hanging) and not any(map(shapes.varies, outputs))):
        return True
    if any(shapes.rows(value) is None for value in outputs):
        return False
    if any((place >= LENGTHS.get(node.op_type, len(node.inputs))) != (place in counts) for place, _ in hanging):
        return False
    check = CHECKS.get(node.op_type)
    rows = next((shapes.rows(value) for place, value in hanging if place not in counts), 0)
    return check is not None and rows is not None and check(builder, node, rows)


def _is_one(builder: Builder, value: ir.Value) -> bool:
    state = builder.state(value)
    return isinstance(state, Whole) and state.rows == Rows.ONE


def _has_rows(builder: Builder, value: ir.Value) -> bool:
    return builder.shapes.rows(value) is not None


def _moves(builder: Builder, node: ir.Node, rows: int) -> bool:
    """Elements are copied, and the shapes show that rows stay: which of many like rows one comes from is no matter."""
    return True


def _aligned(builder: Builder, node: ir.Node, rows: int) -> bool:
    """The rows of every input meet those of the output, counted from the last axis."""
    shapes = builder.shapes

    def from_last(value: ir.Value) -> int | None:
        rank, axis = shapes.rank(value), shapes.rows(value)
        return None if rank is None or axis is None else axis - rank

    given = [value for value in node.inputs if value is not None and _is_one(builder, value)]
    return all(from_last(value) == from_last(node.outputs[0]) for value in given)


def _first_only(builder: Builder, node: ir.Node, rows: int) -> bool:
    """What else is given hangs on no row."""
    return not any(value is not None and _is_one(builder, value) for value in node.inputs[1:])


def _looked_up(builder: Builder, node: ir.Node, rows: int) -> bool:
    """Places of rows by constants, or of a constant by rows; not of rows by rows."""
    return sum(value is not None and _is_one(builder, value) for value in node.inputs) == 1


def _from_constant(builder: Builder, node: ir.Node, rows: int) -> bool:
    """Places of a constant, whatever says which."""
    first = node.inputs[0]
    return first is not None and not _is_one(builder, first)


def _reshaped(builder: Builder, node: ir.Node, rows: int) -> bool:
    """Rows are the outermost axis before and afterwards, but for axes of one place."""
    before, after = (builder.shapes.of(value) for value in (node.inputs[0], node.outputs[0]))
    to = builder.shapes.rows(node.outputs[0])
    return before is not None and after is not None and to is not None and prod(before[:rows]) == prod(after[:to]) == 1


def _along(builder: Builder, node: ir.Node, rows: int) -> bool:
    """It works along another axis; before opset 13 a softmax works along all axes from its own one on."""
    rank = builder.shapes.rank(node.inputs[0])
    axis = node.attributes.get_int("axis", -1)
    if node.op_type == "CumSum":
        given = scalar_of(node.inputs[1])
        return given is not None and rank is not None and int(given) % rank != rows
    return rank is not None and rank > 1 and rows == 0 and axis % rank != 0 and _first_only(builder, node, rows)


def _normalised(builder: Builder, node: ir.Node, rows: int) -> bool:
    """All axes from one behind that of rows on."""
    rank = builder.shapes.rank(node.inputs[0])
    behind = rank is not None and node.attributes.get_int("axis", -1) % rank > rows
    return behind and _first_only(builder, node, rows)


def _by_running_mean(builder: Builder, node: ir.Node, rows: int) -> bool:
    return not node.attributes.get_int("training_mode", 0) and _first_only(builder, node, rows)


def _windows(builder: Builder, node: ir.Node, rows: int) -> bool:
    """Rows are images, or places of one that windows of one place meet one by one."""
    shape = builder.shapes.of(node.inputs[1])
    single = shape is not None and rows >= 2 and shape[rows] == 1
    return (rows == 0 or single) and _first_only(builder, node, rows)


CHECKS: dict[str, Check] = {
    **dict.fromkeys(ELEMENTWISE.split(), _aligned),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _first_only),
    **dict.fromkeys(
        ["Concat", "ConstantOfShape", "Expand", "Pad", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"],
        _moves,
    ),
    **dict.fromkeys((f"Reduce{name}" for name in REDUCTIONS.split()), _first_only),
    **dict.fromkeys(["CumSum", "LogSoftmax", "Softmax"], _along),
    **dict.fromkeys(["Flatten", "Reshape"], _reshaped),
    **dict.fromkeys(["GatherElements", "GatherND"], _from_constant),
    "BatchNormalization": _by_running_mean,
    "Conv": _windows,
    "Gather": _looked_up,
    "Gemm": _moves,  # shapes that keep the rows show that no sum runs along them
    "LayerNormalization": _normalised,
    "MatMul": _moves,
    "MatMulInteger": _moves,
}
