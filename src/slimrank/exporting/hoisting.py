"""What depends on the id of a row alone, computed for every row when the graph is loaded: the marks of `tables.by_row`.

A marked part of a graph goes from ids to the bytes of their rows. Where the bytes of all rows are few enough the part
is built once more, over all row numbers instead of the batch's ids. It then hangs on constants, ONNX Runtime folds it
at load, and a lookup is one Gather. Elsewhere the mark is dropped and the part stays as it is. Left out: tables whose
packed rows are gathered first and only shifted and masked after; `unpack_at_load` needs no marks for them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import array_of, constant, node_before
from slimrank.tables.by_row import BAND_OF, BY_ROW, DOMAIN


def hoist(graph: ir.Graph, limit: int) -> int:
    """Parts marked by `by_row` move to load time while their bytes for all rows are at most `limit`; how many did.

    All marks are gone afterwards, and every `band_of` is made of standard operators.
    """
    count = 0
    for mark in [node for node in graph if node.domain == DOMAIN and node.op_type == BY_ROW]:
        values, ids = mark.inputs
        assert values is not None
        assert ids is not None
        rows, width = mark.attributes.get_int("rows", 0), _width(mark.outputs[0])
        if rows * width <= limit:
            limit -= rows * width
            table = _over_all_rows(mark, values, ids, rows, width)
            values = node_before(mark, "Gather", [table, ids], axis=0)[0]
            values.shape, values.type = mark.outputs[0].shape, mark.outputs[0].type
            count += 1
        mark.outputs[0].replace_all_uses_with(values, replace_graph_outputs=True)
        graph.remove(mark, safe=True)
    for node in [node for node in graph if node.domain == DOMAIN and node.op_type == BAND_OF]:
        _compare(graph, node)
    return count


def _width(values: ir.Value) -> int:
    size = values.shape[-1] if values.shape is not None else None
    assert isinstance(size, int)
    return size


def _over_all_rows(mark: ir.Node, values: ir.Value, ids: ir.Value, rows: int, width: int) -> ir.Value:
    """A copy of what computes `values` from `ids`, for all row numbers: [rows, width]."""
    graph = mark.graph
    assert isinstance(graph, ir.Graph)
    assert ids.dtype is not None
    numbers = [constant(graph, np.array(n, ids.dtype.numpy()), "row") for n in (0, rows, 1)]
    every = node_before(mark, "Range", numbers)[0]
    moved = {ids: _shaped(mark, every, [rows] + [1] * (len(ids.shape or ()) - 1))}
    for node in _between(ids, values):
        if node.domain == DOMAIN:
            copy = _shaped(mark, _bands(mark, node, rows), [rows] + [1] * (len(ids.shape or ()) - 1))
        else:
            inputs = [moved.get(value, value) for value in node.inputs if value is not None]
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            copy = node_before(mark, node.op_type, inputs, **attributes)[0]
        moved[node.outputs[0]] = copy
    return _shaped(mark, moved[values], [rows, width])


def _between(ids: ir.Value, values: ir.Value) -> list[ir.Node]:
    """The nodes that `values` needs and that depend on `ids`, in the order of the graph."""
    found: set[ir.Node] = set()
    queue = [values]
    while queue:
        node = queue.pop().producer()
        if node is not None and node not in found and ids not in node.outputs:
            found.add(node)
            queue += [value for value in node.inputs if value is not None]
    depends = {ids}
    order = []
    for node in values.producer().graph:
        if node in found and depends.intersection(node.inputs):
            depends.update(node.outputs)
            order.append(node)
    return order


def _shaped(anchor: ir.Node, value: ir.Value, shape: list[int]) -> ir.Value:
    graph = anchor.graph
    assert isinstance(graph, ir.Graph)
    return node_before(anchor, "Reshape", [value, constant(graph, np.array(shape, np.int64), "rows")])[0]


def _bands(anchor: ir.Node, node: ir.Node, rows: int) -> ir.Value:
    """The band of every row number [rows]: how many bands have begun, a sum that runs over the rows."""
    graph = anchor.graph
    assert isinstance(graph, ir.Graph)
    firsts = array_of(node.inputs[1])
    assert firsts is not None
    zeros = node_before(anchor, "ConstantOfShape", [constant(graph, np.array([rows]), "rows")], value=_ZERO)
    ones = constant(graph, np.ones(firsts.shape, np.int32), "begin")
    begin = node_before(anchor, "ScatterElements", [*zeros, node.inputs[1], ones])
    return node_before(anchor, "CumSum", [*begin, constant(graph, np.array(0), "axis")])[0]


def _compare(graph: ir.Graph, node: ir.Node) -> None:
    """`band_of` for the ids of a batch: how many bands begin at the id or before."""
    ids, firsts = node.inputs
    assert ids is not None
    assert firsts is not None
    last = constant(graph, np.array([-1]), "last")
    column = node_before(node, "Unsqueeze", [ids, last])[0]
    begun = node_before(node, "GreaterOrEqual", [column, firsts])
    numbers = node_before(node, "Cast", begun, to=int(ir.DataType.INT32))
    band = node_before(node, "ReduceSum", [*numbers, last], keepdims=0)[0]
    band.shape, band.type = node.outputs[0].shape, node.outputs[0].type
    node.outputs[0].replace_all_uses_with(band, replace_graph_outputs=True)
    graph.remove(node, safe=True)


_ZERO = ir.tensor(np.zeros(1, np.int32))
