"""How operators treat parted values that choose places of an axis, or put them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import array_of
from slimrank.graphs.shared_rules import Found, Rule, axis_of, by_part, is_constant
from slimrank.graphs.shared_values import Builder, Part, Parted, Positions, Rows, ShapeOf, State, Whole, parted


def gather(builder: Builder, node: ir.Node) -> Found:
    """Rows of a table by parted ids, or places of a parted value by constant ones."""
    source, indices = node.inputs
    assert source is not None
    assert indices is not None
    ids = builder.state(indices)
    if is_constant(builder, source) and isinstance(ids, Parted):
        if node.attributes.get_int("axis", 0) != 0:
            return None
        made = [builder.node("Gather", [source, part.value], node.attributes)[0] for part in ids.parts]
        return [
            Parted(ids.axis, ids.size, *(Part(v, p.positions) for v, p in zip(made, ids.parts, strict=True)))
        ]  # fmt: skip
    where, places = axis_of(builder, node), array_of(indices)
    if where is None or places is None:
        return None
    axis = node.attributes.get_int("axis", 0) % where.rank
    if axis == where.rows:
        return None
    if axis != where.state.axis:
        moved = where.state.axis + (places.ndim - 1 if axis < where.state.axis else 0)
        return by_part(builder, node, where.state, moved)
    wanted = places.astype(np.int64) % where.state.size
    if places.ndim > 1:
        return None
    if places.ndim == 1:
        return [_chosen(builder, where.state, wanted)] if len(wanted) else None
    for part, rows in zip(where.state.parts, (Rows.ONE, Rows.EACH), strict=True):
        at = np.flatnonzero(part.positions == wanted)
        if len(at):
            place = builder.constant(np.asarray(at[0], np.int64))
            return [Whole(builder.node("Gather", [part.value, place], axis=axis)[0], rows)]
    return None


def _chosen(builder: Builder, state: Parted, wanted: Positions) -> Whole | Parted:
    """The places `wanted` [n] of the parted axis, at least one, in that order."""
    parts: list[Part | None] = []
    for part in state.parts:
        place = {int(position): at for at, position in enumerate(part.positions)}
        at = np.array([to for to, position in enumerate(wanted) if int(position) in place], np.int64)
        local = np.array([place[int(position)] for position in wanted[at]], np.int64)
        if not len(at):
            parts.append(None)
        elif np.array_equal(local, np.arange(len(part.positions))):
            parts.append(Part(part.value, at))
        else:
            parts.append(Part(_cut(builder, part.value, state.axis, local), at))
    return parted(state.axis, len(wanted), *parts)


def _cut(builder: Builder, value: ir.Value, axis: int, places: Positions) -> ir.Value:
    """Those places of an axis: a Slice where they lie side by side, which copies stretches."""
    if (np.diff(places) == 1).all():
        bounds = [builder.integers([each]) for each in (places[0], places[-1] + 1, axis)]
        return builder.node("Slice", [value, *bounds])[0]
    return builder.node("Gather", [value, builder.integers(places)], axis=axis)[0]


def slice_(builder: Builder, node: ir.Node) -> Found:
    """A cut along the parted axis, or along others than that of rows."""
    where = axis_of(builder, node)
    given = [array_of(each) for each in node.inputs[1:]]
    if where is None or any(each is None for each in given):
        return None
    starts, ends, *more = (each.ravel() for each in given if each is not None)
    axes = more[0] % where.rank if more else np.arange(len(starts))
    if where.rows in axes:
        return None
    if where.state.axis not in axes:
        return by_part(builder, node, where.state)
    if len(axes) > 1:
        return None
    step = int(more[1][0]) if len(more) > 1 else 1
    limit = np.iinfo(np.int64).max
    end = None if step < 0 and ends[0] < -limit else int(ends[0])
    kept = np.arange(where.state.size)[slice(int(starts[0]), end, step)]
    return [_chosen(builder, where.state, kept)] if len(kept) else None


def split(builder: Builder, node: ir.Node) -> Found:
    """Stretches of the parted axis, or of others than that of rows."""
    where = axis_of(builder, node)
    if where is None:
        return None
    axis = node.attributes.get_int("axis", 0) % where.rank
    if axis == where.rows:
        return None
    if axis != where.state.axis:
        return by_part(builder, node, where.state)
    lengths = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if lengths is None or not lengths.all():
        return None
    bounds = np.cumsum([0, *lengths.ravel().tolist()])
    return [_chosen(builder, where.state, np.arange(start, stop)) for start, stop in pairwise(bounds)]


def concat(builder: Builder, node: ir.Node) -> Found:
    """Shared and own values side by side are parted; parted values stay so."""
    values = [value for value in node.inputs if value is not None]
    rank, rows = builder.shapes.rank(values[0]), builder.shapes.rows(values[0])
    if rank is None or rows is None or any(builder.shapes.rows(value) != rows for value in values):
        return None
    axis = node.attributes.get_int("axis", 0) % rank
    states = [builder.state(value) for value in values]
    first = next((state for state in states if isinstance(state, Parted)), None)
    if axis == rows or any(isinstance(state, ShapeOf) for state in states):
        return None
    if first is not None and first.axis != axis:
        alike = [state for state in states if isinstance(state, Parted) and state.lies_as(first)]
        if len(alike) < len(states):
            return None
        made = [
            builder.node("Concat", [each.parts[which].value for each in alike], node.attributes)[0] for which in (0, 1)
        ]
        parts = (Part(value, part.positions) for value, part in zip(made, first.parts, strict=True))
        return [Parted(first.axis, first.size, *parts)]
    return _side_by_side(builder, values, states, axis)


def _side_by_side(builder: Builder, values: Sequence[ir.Value], states: Sequence[State], axis: int) -> Found:
    pieces: tuple[list[Part], list[Part]] = ([], [])
    start = 0
    for value, state in zip(values, states, strict=True):
        shape = builder.shapes.of(value)
        if shape is None:
            return None
        if isinstance(state, Parted):
            if state.axis != axis:
                return None
            for kept, part in zip(pieces, state.parts, strict=True):
                kept.append(Part(part.value, part.positions + start))
        elif isinstance(state, Whole) and state.rows != Rows.NONE:
            pieces[state.rows == Rows.EACH].append(Part(state.value, np.arange(start, start + shape[axis])))
        else:
            return None
        start += shape[axis]
    return [parted(axis, start, *(_together(builder, each, axis) for each in pieces))]


def _together(builder: Builder, pieces: Sequence[Part], axis: int) -> Part | None:
    if len(pieces) < 2:
        return pieces[0] if pieces else None
    value = builder.node("Concat", [piece.value for piece in pieces], axis=axis)[0]
    return Part(value, np.concatenate([piece.positions for piece in pieces]))


PLACE_RULES: dict[str, Rule] = {"Concat": concat, "Gather": gather, "Slice": slice_, "Split": split}
