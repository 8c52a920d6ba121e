"""Row numbers that the exporter was not to fold, and what hangs on them, in a form that ONNX Runtime folds at load.

The marks of `models.folded` become the numbers that they stand for. What dequantises constants, other than the weights
of a layer, becomes a subtraction and a product: ONNX Runtime keeps every DequantizeLinear, and would work on a whole
table in each run. Left out: the folding, which ONNX Runtime does.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import array_of, constant, node_before
from slimrank.tables.by_row import DOMAIN, EVERY_ROW


def fold_constants(graph: ir.Graph) -> int:
    """Rewrites every mark, in place; how many there were."""
    marks = [node for node in graph if node.domain == DOMAIN and node.op_type == EVERY_ROW]
    constants: set[ir.Value] = set()
    for mark in marks:
        numbers = [mark.attributes.get_int(name, 0) for name in ("start", "stop")] + [1]
        bounds = [constant(graph, np.array(number, np.int64), "row") for number in numbers]
        rows = node_before(mark, "Range", bounds)
        shape = constant(graph, np.array([-1, 1], np.int64), "rows_shape")
        column = node_before(mark, "Reshape", [*rows, shape])[0]
        column.shape, column.type = mark.outputs[0].shape, mark.outputs[0].type
        mark.outputs[0].replace_all_uses_with(column)
        graph.remove(mark, safe=True)
        constants.add(column)
    for node in list(graph):
        inputs = [value for value in node.inputs if value is not None]
        if constants.intersection(inputs) and all(_stored(value) or value in constants for value in inputs):
            constants.update(_foldable(node).outputs)
    return len(marks)


def _stored(value: ir.Value) -> bool:
    return value.producer() is None and array_of(value) is not None


def _foldable(node: ir.Node) -> ir.Node:
    """`node`, or what takes its place where it is (codes - zero) * scale with one scale and zero for all."""
    if node.op_type != "DequantizeLinear":
        return node
    codes, scale, *zero = [value for value in node.inputs if value is not None]
    to = int(ir.DataType.FLOAT)
    values = node_before(node, "Cast", [codes], to=to)
    if zero:
        values = node_before(node, "Sub", [*values, *node_before(node, "Cast", zero, to=to)])
    product = node_before(node, "Mul", [*values, scale])[0]
    product.shape, product.type = node.outputs[0].shape, node.outputs[0].type
    node.outputs[0].replace_all_uses_with(product)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    made = product.producer()
    assert made is not None
    return made
