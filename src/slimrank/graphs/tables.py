"""Which constants of a graph are tables, and how what is made of them takes their place.

A table is a matrix of floats of which Gather reads rows, and nothing else reads anything. Its rows may belong to
fields: where ids [.., K] get an offset a column before they are looked up. What is put in its place gathers bytes first
and computes on the rows of the batch, in standard operators of every opset from 13 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from slimrank.compression.selection import Selection, check_names, selected
from slimrank.config import InputError
from slimrank.exporting.constants import array_of, node_before, producer
from slimrank.graphs.chunks import Floats, Rows
from slimrank.graphs.rewriting import replace
from slimrank.graphs.steps import Context, fed_or_answered, matrices, named, readers

NEVER = 0.5  # how often a row that the sample rows never met counts as met
MOST = 1e18  # in size: sums of squares of larger values leave float32
PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True, eq=False)
class Table:
    """A table of a graph: its rows, the nodes that look them up, and where the rows of each field begin."""

    name: str
    value: ir.Value
    rows: Rows
    gathers: tuple[ir.Node, ...]
    starts: tuple[int, ...]
    zero_rows: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the floats."""
        assert self.value.const_value is not None
        return int(self.value.const_value.nbytes)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First row and end of every field."""
        return list(zip(self.starts, [*self.starts[1:], self.rows.num_rows], strict=True))

    def ids_of(self, node: ir.Node) -> str:
        """The name of the ids of rows that a lookup takes."""
        assert node.inputs[1] is not None
        return str(node.inputs[1].name)


def find_tables(model: ir.Model, selection: Selection, context: Context) -> list[Table]:
    """The selected tables of `model`; every other matrix that is no layer's weight is noted, with the reason.

    Raises:
        InputError: a name or pattern of the selection matches no table, or it asks for tied ones.
    """
    if selection.tied:
        raise InputError("tied: a table that another node reads whole stays as it is in a graph: a copy adds bytes")
    found, names = [], []
    for value in matrices(model):
        uses = readers(value)
        if value.const_value is None or len(value.const_value.shape) != 2 or _is_weight(uses):
            continue
        names.append(str(value.name))
        why = _fault(value, uses) if str(value.name) in context.given else "is what an earlier step made"
        if not why and not selected(selection, "", str(value.name)):
            why = "is not selected"
        if why:
            context.skip(str(value.name), why)
            continue
        rows = Rows(value.const_value)
        fault, zeros = _content(rows)
        if fault:
            context.skip(str(value.name), fault)
            continue
        gathers = tuple(node for node, _ in uses)
        found.append(Table(str(value.name), value, rows, gathers, _starts(gathers, rows.num_rows), zeros))
    check_names(selection, names)
    if not names:
        context.skip("tables", "the graph has no matrix whose rows are looked up")
    return found


def replace_lookup(table: Table, made: ir.Value, node: ir.Node) -> None:
    """What read the output of the lookup `node` reads `made`, in the table's own type and under the same name."""
    assert table.value.const_value is not None
    kind = table.value.const_value.dtype
    replace(node, made if kind == ir.DataType.FLOAT else node_before(node, "Cast", [made], to=int(kind))[0])


def pays(table: Table, nbytes: int, context: Context) -> bool:
    """Whether `nbytes` bytes are fewer than the table has; says so either way."""
    if nbytes >= table.nbytes:
        context.skip(table.name, f"would take {nbytes:,} bytes, and takes {table.nbytes:,} as it is")
        return False
    context.change(table.name, f"{table.nbytes:,} bytes to {nbytes:,}", table.nbytes)
    return True


@dataclass(frozen=True)
class Met:
    """Rows that the sample rows met, rising, and how often; every other row counts `NEVER` times."""

    places: NDArray[np.int64]
    times: Floats

    def of(self, first: int, last: int) -> Met:
        """Those from row `first` to `last` - 1, counted from `first`."""
        begin, end = np.searchsorted(self.places, [first, last])
        return Met(self.places[begin:end] - first, self.times[begin:end])

    def at(self, places: NDArray[np.int64]) -> Floats:
        """How often each of the rows `places` counts."""
        if not len(self.places):
            return np.full(len(places), NEVER, np.float32)
        near = np.searchsorted(self.places, places).clip(max=len(self.places) - 1)
        return np.where(self.places[near] == places, self.times[near], np.float32(NEVER))


def observed(
    graph: ir.Graph, tables: Sequence[Table], context: Context, rows: int
) -> tuple[list[Table], dict[str, Met]]:
    """The tables, and which rows of each the sample rows met, by name; of none where there are no sample rows.

    Where a column asks for rows of another field, the offsets that were taken for fields are none.
    """
    if context.rows is None or not tables:
        return list(tables), {}
    own = {t.ids_of(node) for t in tables for node in t.gathers if node.graph is graph}  # subgraphs are not observed
    try:
        seen = context.rows.observe(sorted(own), rows)
    except InputError as error:
        context.skip("counts of rows", str(error))
        return list(tables), {}
    told, met = [], {}
    for table in tables:
        ids = [seen[name].values % table.rows.num_rows for name in map(table.ids_of, table.gathers) if name in seen]
        apart = all(_keeps_to_fields(table, each) for each in ids)
        told.append(table if apart else changed(table, starts=(0,)))
        if ids:
            places, times = np.unique(np.concatenate([each.reshape(-1) for each in ids]), return_counts=True)
            met[table.name] = Met(places.astype(np.int64), times.astype(np.float32))
    return told, met


def _keeps_to_fields(table: Table, ids: NDArray[Any]) -> bool:
    """Whether every column of `ids` [n, K] asks for rows of its own field."""
    if len(table.starts) == 1:
        return True
    first, last = (np.array(each) for each in zip(*table.bounds, strict=True))
    return ids.shape[-1] == len(first) and bool(((ids >= first) & (ids < last)).all())


def _is_weight(uses: Sequence[tuple[ir.Node, int]]) -> bool:
    """Whether a matrix is only multiplied, if need be transposed before."""

    def multiplies(node: ir.Node) -> bool:
        if node.domain == "" and node.op_type == "Transpose":
            return _is_weight(readers(node.outputs[0]))
        return node.domain == "" and node.op_type in PRODUCTS

    return bool(uses) and all(multiplies(node) for node, _ in uses)


def _fault(value: ir.Value, uses: Sequence[tuple[ir.Node, int]]) -> str:
    """Why a matrix is no table, or nothing."""
    if not uses:
        return "is read by no node"
    others = [named(node) for node, place in uses if not _looks_up(node, place)]
    if len(others) == len(uses):
        return f"is read by {', '.join(others)}, and not by rows"
    if others:
        return f"is tied to {', '.join(others)}, which reads all of it"
    return fed_or_answered(value)


def _looks_up(node: ir.Node, place: int) -> bool:
    """Whether a node reads rows of a matrix by ids that are computed or fed."""
    ids = node.inputs[1] if len(node.inputs) == 2 else None
    whole = (
        node.op_type == "Gather" and node.domain == "" and place == 0 and ids is not None and ids.const_value is None
    )
    return whole and node.attributes.get_int("axis", 0) in (0, -2)


def _content(rows: Rows) -> tuple[str, bool]:
    """What no kind has an answer for in a table, or nothing, and whether there are rows of zeros."""
    if not rows.num_rows or not rows.dim:
        return "has no rows", False
    zeros = False
    for _, chunk in rows.chunks():
        largest = np.abs(chunk).max(axis=1)
        if not np.isfinite(largest).all():
            return "holds NaN or infinity", False
        if largest.max() > MOST:
            return f"holds values beyond {MOST:.0e}", False
        zeros = zeros or bool((largest == 0).any())
    return "", zeros


def _starts(gathers: Sequence[ir.Node], num_rows: int) -> tuple[int, ...]:
    """The first row of every field, from the offsets that all lookups add to their ids; (0,) where there are none.

    Offsets that leave a field one row are no fields: places are counted so, from the first one on.
    """
    found = {_offsets(node.inputs[1]) for node in gathers}
    starts = found.pop() if len(found) == 1 else None
    rising = starts is not None and starts[0] == 0 and all(b - a > 1 for a, b in pairwise([*starts, num_rows + 1]))
    return starts if starts is not None and rising else (0,)


def _offsets(ids: ir.Value | None) -> tuple[int, ...] | None:
    """[K] integers that are added to ids [.., K], or None."""
    while (cast := producer(ids, "Cast", "Identity")) is not None:
        ids = cast.inputs[0]
    added = producer(ids, "Add")
    for value in added.inputs if added is not None else ():
        array = array_of(value)
        if array is not None and array.ndim and array.size == array.shape[-1] > 1:
            return tuple(int(each) for each in array.reshape(-1))
    return None
