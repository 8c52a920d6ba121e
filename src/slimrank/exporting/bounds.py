"""Which ids an input of a graph may hold: how many rows the table has that they are looked up in, column by column.

Runtimes differ in what they make of an id that is in no table, so that ids are checked before any of them. Followed is
the way from a Gather's indices up to an input through what only moves or casts numbers; ids that are computed with on
the way (sums, remainders) are the model's own affair, and have no bound here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import onnx_ir as ir

from slimrank.exporting.constants import array_of

KEEPING = frozenset({"Cast", "Identity"})  # the columns are those of the input
MOVING = KEEPING | {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Expand"}


class IdBound(NamedTuple):
    """Values of the columns `first` to `last` - 1 of an input, all of it where `last` is None, are below `rows`."""

    first: int
    last: int | None
    rows: int


def id_bounds(graph: ir.Graph) -> dict[str, list[IdBound]]:
    """The bounds of every input of a graph whose values are looked up."""
    dynamic = _dependent(graph)
    found: dict[str, set[IdBound]] = {}
    for node in graph:
        if node.domain != "" or node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
            continue
        table, ids = node.inputs[0], node.inputs[1]
        rows = table.shape[0] if table is not None and table.shape is not None and len(table.shape) else None
        if table in dynamic or ids not in dynamic or not isinstance(rows, int):
            continue
        for name, first, last in _sources(ids, 0, None):
            found.setdefault(name, set()).add(IdBound(first, last, rows))
    return {name: _tightest(bounds) for name, bounds in found.items()}


def _tightest(bounds: set[IdBound]) -> list[IdBound]:
    """One bound for the same columns: the lowest."""
    lowest: dict[tuple[int, int | None], int] = {}
    for first, last, rows in bounds:
        lowest[first, last] = min(rows, lowest.get((first, last), rows))
    return sorted((IdBound(first, last, rows) for (first, last), rows in lowest.items()), key=lambda each: each[0])


def _sources(value: ir.Value | None, first: int, last: int | None) -> Iterator[tuple[str, int, int | None]]:
    """The input that the columns `first` to `last` of `value` come from, and which of its columns they are."""
    if value is None:
        return
    node = value.producer()
    if node is None:
        if value.name is not None and value.is_graph_input():
            yield value.name, first, last
    elif node.domain == "" and node.op_type in (MOVING if last is None else KEEPING):
        yield from _sources(node.inputs[0], first, last)
    elif last is None and (part := _columns(node, value)) is not None:
        yield from _sources(node.inputs[0], *part)


def _columns(node: ir.Node, output: ir.Value) -> tuple[int, int] | None:
    """Which columns (the second dimension) of its input a Slice, Gather or Split picks; None where it does not."""
    if node.domain != "":
        return None
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 1:
        places = array_of(node.inputs[1])
        return None if places is None or places.size != 1 else _one(int(places.flat[0]), node.inputs[0])
    if node.op_type == "Slice" and len(node.inputs) >= 4:
        start, end, axis = (array_of(each) for each in node.inputs[1:4])
        step = array_of(node.inputs[4]) if len(node.inputs) > 4 else None
        if start is None or end is None or axis is None or axis.tolist() != [1] or (step is not None and step != 1):
            return None
        return (int(start[0]), int(end[0])) if 0 <= int(start[0]) < int(end[0]) < 1 << 31 else None
    if node.op_type == "Split" and node.attributes.get_int("axis", 0) == 1:
        sizes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
        if sizes is None:
            return None
        place = list(node.outputs).index(output)
        begin = int(sizes[:place].sum())
        return begin, begin + int(sizes[place])
    return None


def _one(place: int, value: ir.Value | None) -> tuple[int, int] | None:
    """A column that may be counted from the last one."""
    if place < 0:
        width = value.shape[1] if value is not None and value.shape is not None else None
        if not isinstance(width, int):
            return None
        place += width
    return place, place + 1


def _dependent(graph: ir.Graph) -> set[ir.Value]:
    """Values that hang on an input."""
    reached = {value for value in graph.inputs if array_of(value) is None}
    for node in graph:
        if reached.intersection(each for each in node.inputs if each is not None):
            reached.update(node.outputs)
    return reached
