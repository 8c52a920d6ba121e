"""Lookups of neighbouring fields made one: the marks of `tables.joined` become standard operators.

The joined table is put together from the rows of its fields: for fields of n and m ids, row i * m + j holds row i of
the first and row j of the second side by side. All that works on constants, so ONNX Runtime does it once, at load; the
file grows by a few hundred bytes. Joined row numbers are one small matrix product of the ids, in floats, which are
exact below 2**24 and for which a runtime has a fast product. Left out: what reads marked rows other than to gather.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import array_of, constant, node_before
from slimrank.tables.by_row import DOMAIN
from slimrank.tables.joined import ROWS_OF, Run, lookups_of, places


def join_lookups(graph: ir.Graph) -> int:
    """Every Gather of a constant table by marked rows looks joined fields up together; how many did. No mark stays."""
    count = 0
    for mark in [node for node in graph if node.domain == DOMAIN and node.op_type == ROWS_OF]:
        ids, offsets = mark.inputs
        assert ids is not None
        assert offsets is not None
        gathers = [user for user, place in mark.outputs[0].uses() if place == 1 and _is_lookup(user)]
        if gathers:
            lookup = _Lookup(graph, mark, ids)
            for gather in gathers:
                lookup.replace(gather)
        if mark.outputs[0].uses():
            plain = node_before(mark, "Add", [ids, offsets])[0]
            plain.shape, plain.type = mark.outputs[0].shape, mark.outputs[0].type
            mark.outputs[0].replace_all_uses_with(plain)
        graph.remove(mark, safe=True)
        count += len(gathers)
    return count


class _Lookup:
    """The row numbers behind one mark, run by run: runs of fields that are joined, and of those between."""

    def __init__(self, graph: ir.Graph, mark: ir.Node, ids: ir.Value):
        self.graph = graph
        self.sizes = tuple(mark.attributes.get_ints("sizes", ()))
        told = tuple(mark.attributes.get_ints("joined", ()))
        self.joined = tuple(zip(told[::2], told[1::2], strict=True))
        self.starts = np.cumsum([0, *self.sizes])
        bounds = sorted({0, len(self.sizes), *told})
        self.runs = list(pairwise(bounds))
        self.rows = self._row_numbers(mark, ids)

    def _row_numbers(self, mark: ir.Node, ids: ir.Value) -> list[ir.Value]:
        """For each run the rows [N, lookups] of its table: one lookup where it is joined, else one a field."""
        lookups = lookups_of(self.joined, len(self.sizes))
        starts = np.array([0 if run in self.joined else self.starts[run[0]] for run in lookups], np.float32)
        matrix = constant(self.graph, places(self.sizes, lookups).numpy(), "joined_places")
        start = constant(self.graph, starts, "joined_starts")
        floats = node_before(mark, "Cast", [ids], to=int(ir.DataType.FLOAT))
        numbers = node_before(mark, "Gemm", [*floats, matrix, start])
        rows = node_before(mark, "Cast", numbers, to=int(ir.DataType.INT32))
        if len(self.runs) == 1:
            return rows
        widths = [1 if run in self.joined else run[1] - run[0] for run in self.runs]
        parts = constant(self.graph, np.array(widths, np.int64), "joined_widths")
        return node_before(mark, "Split", [*rows, parts], outputs=len(widths), axis=1)

    def replace(self, gather: ir.Node) -> None:
        """The same vectors [N, K, width] as `gather` gives, from as many tables as there are runs."""
        table, old = gather.inputs[0], gather.outputs[0]
        assert table is not None
        assert old.shape is not None
        width = old.shape[-1]
        assert isinstance(width, int)
        found = []
        for run, rows in zip(self.runs, self.rows, strict=True):
            if run not in self.joined:
                found += node_before(gather, "Gather", [table, rows], axis=0)
                continue
            product = self._product(gather, table, run, width)
            vectors = node_before(gather, "Gather", [product, rows], axis=0)[0]
            found.append(self._shaped(gather, vectors, [-1, run[1] - run[0], width]))
        vectors = found[0] if len(found) == 1 else node_before(gather, "Concat", found, axis=1)[0]
        vectors.shape, vectors.type = old.shape, old.type
        old.replace_all_uses_with(vectors, replace_graph_outputs=True)
        self.graph.remove(gather, safe=True)

    def _product(self, anchor: ir.Node, table: ir.Value, run: Run, width: int) -> ir.Value:
        """The joined table of a run of fields: [product of their sizes, fields * width]."""
        sizes = self.sizes[run[0] : run[1]]
        whole = constant(self.graph, np.array([*sizes, width], np.int64), "joined_shape")
        parts = []
        for axis, size in enumerate(sizes):
            start = int(self.starts[run[0] + axis])
            bounds = [constant(self.graph, np.array([place]), "joined_bound") for place in (start, start + size, 0)]
            rows = node_before(anchor, "Slice", [table, *bounds])[0]
            shape = [size if place == axis else 1 for place in range(len(sizes))]
            parts += node_before(anchor, "Expand", [self._shaped(anchor, rows, [*shape, width]), whole])
        side_by_side = node_before(anchor, "Concat", parts, axis=-1)[0]
        return self._shaped(anchor, side_by_side, [prod(sizes), len(sizes) * width])

    def _shaped(self, anchor: ir.Node, value: ir.Value, shape: list[int]) -> ir.Value:
        return node_before(anchor, "Reshape", [value, constant(self.graph, np.array(shape, np.int64), "joined")])[0]


def _is_lookup(node: ir.Node) -> bool:
    """Whether `node` gathers rows of a matrix that hangs on constants alone."""
    if node.domain or node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
        return False
    queue, seen = [node.inputs[0]], set()
    while queue:
        value = queue.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        before = value.producer()
        if before is None and array_of(value) is None:
            return False
        queue += [] if before is None else before.inputs
    return node.outputs[0].shape is not None and len(node.outputs[0].shape) == 3
