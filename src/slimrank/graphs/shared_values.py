"""What the values of a graph are once a request's shared columns come apart from those of its candidates.

A value hangs on no input, on shared ones alone (one row for a request), on a candidate's as well (a row each), or it is
parted: along one axis some places come from shared columns and are there once, the others have a row each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from slimrank.exporting.constants import constant

Positions = NDArray[np.int64]
MANY = 7  # rows at which shapes are looked at beside those of one row


class Rows(IntEnum):
    """How many rows a value has: it hangs on no row, on the shared one alone, or on those of the candidates."""

    NONE = 0
    ONE = 1
    EACH = 2


@dataclass(frozen=True, eq=False)
class Whole:
    """A value that is all of one kind."""

    value: ir.Value
    rows: Rows


@dataclass(frozen=True, eq=False)
class Part:
    """Some places of an axis: the value that holds them, and which they are, in its order."""

    value: ir.Value
    positions: Positions


@dataclass(frozen=True, eq=False)
class Parted:
    """A value whose `axis` of `size` places has some in `shared`, one row, and the others in `own`."""

    axis: int
    size: int
    shared: Part
    own: Part

    @property
    def parts(self) -> tuple[Part, Part]:
        """The shared part, and the candidates' own."""
        return self.shared, self.own

    def lies_as(self, other: Parted) -> bool:
        """Whether both are parted alike, their axes counted from the first."""
        alike = (np.array_equal(a.positions, b.positions) for a, b in zip(self.parts, other.parts, strict=True))
        return self.axis == other.axis and self.size == other.size and all(alike)


@dataclass(frozen=True, eq=False)
class ShapeOf:
    """The shape of a parted value, which nothing computes until it is asked for."""

    of: ir.Value
    node: ir.Node


State = Whole | Parted | ShapeOf


def parted(axis: int, size: int, shared: Part | None, own: Part | None) -> Whole | Parted:
    """A parted value, or the one part that there is."""
    if shared is None or own is None:
        part = shared or own
        assert part is not None
        return Whole(part.value, Rows.EACH if shared is None else Rows.ONE)
    return Parted(axis, size, shared, own)


class Shapes:
    """The kind and sizes of every value of a graph at one row and at several, as far as they can be told."""

    def __init__(self, proto: onnx.ModelProto):
        (self._one, self._kinds), (self._many, _) = (_shapes(proto, rows) for rows in (1, MANY))

    def of(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """The sizes at one row."""
        return None if value is None or value.name is None else self._one.get(value.name)

    def rank(self, value: ir.Value | None) -> int | None:
        """The number of axes."""
        shape = self.of(value)
        return None if shape is None else len(shape)

    def floats(self, value: ir.Value) -> bool:
        """Whether a value is of floats, or may be."""
        kind = None if value.name is None else self._kinds.get(value.name)
        return kind is None or not np.issubdtype(onnx.helper.tensor_dtype_to_np_dtype(kind), np.integer)

    def varies(self, value: ir.Value) -> bool:
        """Whether the sizes hang on the number of rows, or may."""
        one = self.of(value)
        return one is None or value.name is None or self._many.get(value.name) != one

    def rows(self, value: ir.Value | None) -> int | None:
        """The one axis that counts rows, if there is such."""
        one = self.of(value)
        many = None if value is None or value.name is None else self._many.get(value.name)
        if one is None or many is None or len(one) != len(many):
            return None
        differ = [axis for axis, sizes in enumerate(zip(one, many, strict=True)) if sizes[0] != sizes[1]]
        return differ[0] if len(differ) == 1 and (one[differ[0]], many[differ[0]]) == (1, MANY) else None


def _shapes(proto: onnx.ModelProto, rows: int) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """The sizes of values by name, and their kinds of number, at so many rows."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    for value in fixed.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            dims[0].dim_value = rows
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    found = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    kinds = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if kind.elem_type:
            kinds[value.name] = kind.elem_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            found[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    return found, kinds


class Builder:
    """New nodes before the one that is being looked at, and the other forms of values, each made once."""

    def __init__(self, graph: ir.Graph, shapes: Shapes, rounded: Collection[ir.Value] = ()):
        self.graph = graph
        self.shapes = shapes
        self.rounded = rounded  # values behind which something rounds
        self.found: dict[ir.Value, State] = {}
        self.read: dict[ir.Node, tuple[ir.Value | None, ...]] = {}
        self.count: ir.Value | None = None  # int64 [1], the number of candidates
        self._anchor: ir.Node | None = None
        self._each: dict[ir.Value, ir.Value] = {}
        self._picked: dict[tuple[ir.Value, int, bytes], ir.Value] = {}
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], ir.Value] = {}

    def before(self, node: ir.Node) -> None:
        """New nodes come before `node` from here on."""
        self._anchor = node
        self.read.setdefault(node, tuple(node.inputs))

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, ir.Attr] | None = None,
        outputs: int = 1,
        **numbers: int | Sequence[int],
    ) -> list[ir.Value]:
        """The outputs of a new node, with the attributes of another one and further numbers."""
        given = [*(attributes or {}).values(), *ir.convenience.convert_attributes(numbers)]
        node = ir.Node("", operator, inputs, attributes=given, num_outputs=outputs)
        assert self._anchor is not None
        self.graph.insert_before(self._anchor, node)
        return list(node.outputs)

    def integers(self, numbers: Sequence[int] | Positions) -> ir.Value:
        """A constant int64 [n]."""
        return self.constant(np.asarray(numbers, np.int64))

    def constant(self, array: NDArray[np.generic]) -> ir.Value:
        """A constant, one for all that are alike."""
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._constants:
            self._constants[key] = constant(self.graph, array, "shared.constant")
        return self._constants[key]

    def state(self, value: ir.Value) -> State:
        """What a value of the original graph is; one that was not met is a constant."""
        return self.found.get(value) or Whole(value, Rows.NONE)

    def splits_sum(self, value: ir.Value) -> bool:
        """Whether the sum `value` may be added in another order: floats not where something behind them rounds."""
        return value not in self.rounded or not self.shapes.floats(value)

    def pick(self, value: ir.Value, axis: int, positions: Positions) -> ir.Value:
        """Some places of an axis of a constant or of a shared value.

        A matrix that is dequantised is cut before that, since the runtime knows an integer layer by it.
        """
        key = (value, axis, positions.tobytes())
        if key not in self._picked:
            before = value.producer()
            if before is not None and before.op_type == "DequantizeLinear" and self._same_steps(before, axis):
                codes = before.inputs[0]
                assert codes is not None
                inputs = [self.pick(codes, axis, positions), *before.inputs[1:]]
                self._picked[key] = self.node("DequantizeLinear", inputs, before.attributes)[0]
            else:
                self._picked[key] = self.node("Gather", [value, self.integers(positions)], axis=axis)[0]
        return self._picked[key]

    def _same_steps(self, node: ir.Node, axis: int) -> bool:
        """Whether a DequantizeLinear has the same steps whatever place of `axis` its codes come from."""
        scale, rank = node.inputs[1], self.shapes.rank(node.outputs[0])
        if node.attributes.get_int("block_size", 0):
            return False
        if scale is not None and scale.const_value is not None and scale.const_value.size == 1:
            return True
        return rank is not None and node.attributes.get_int("axis", 1) % rank != axis

    def each(self, value: ir.Value) -> ir.Value:
        """A value of the original graph with a row for each candidate; a constant as it is."""
        state = self.state(value)
        if isinstance(state, Whole) and state.rows != Rows.ONE:
            return state.value
        if value not in self._each:
            if isinstance(state, Parted):
                self._each[value] = self._join(value, state)
            elif isinstance(state, Whole) and self.shapes.rows(value) is not None:
                self._each[value] = self._repeat(value, state.value)
            else:
                self._each[value] = self._again(value)
        return self._each[value]

    def _again(self, value: ir.Value) -> ir.Value:
        """The node behind `value` once more, over a row for each candidate: for what has no axis of rows."""
        node = value.producer()
        assert node is not None
        inputs = [None if each is None else self.each(each) for each in self.read[node]]
        copies = self.node(node.op_type, inputs, node.attributes, outputs=len(node.outputs))
        self._each.update(zip(node.outputs, copies, strict=True))
        return self._each[value]

    def _repeat(self, original: ir.Value, value: ir.Value) -> ir.Value:
        """The one row of `value`, of whatever width, for each candidate; `original` says which axis counts rows."""
        rank, rows = self.shapes.rank(original), self.shapes.rows(original)
        assert rank is not None
        assert rows is not None
        assert self.count is not None
        before, after = rows, rank - rows - 1  # ones, which Expand leaves as they are
        sizes = [self.integers([1] * before)] * (before > 0) + [self.count] + [self.integers([1] * after)] * (after > 0)
        whole = sizes[0] if len(sizes) == 1 else self.node("Concat", sizes, axis=0)[0]
        return self.node("Expand", [value, whole])[0]

    def _join(self, original: ir.Value, state: Parted) -> ir.Value:
        """Both parts in the order of the unsplit graph: stretches of each side by side."""
        shared = self._repeat(original, state.shared.value)
        if any((np.diff(part.positions) < 0).any() for part in state.parts):
            both = self.node("Concat", [shared, state.own.value], axis=state.axis)[0]
            order = np.argsort(np.concatenate([part.positions for part in state.parts]))
            return self.node("Gather", [both, self.integers(order)], axis=state.axis)[0]
        stretches = [
            (int(run[0]), piece)
            for part, value in ((state.shared, shared), (state.own, state.own.value))
            for run, piece in self._stretches(part.positions, value, state.axis)
        ]
        ordered = [piece for _, piece in sorted(stretches, key=lambda each: each[0])]
        return self.node("Concat", ordered, axis=state.axis)[0]

    def _stretches(self, positions: Positions, value: ir.Value, axis: int) -> list[tuple[Positions, ir.Value]]:
        runs = np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1)
        if len(runs) == 1:
            return [(runs[0], value)]
        lengths = self.integers([len(run) for run in runs])
        return list(zip(runs, self.node("Split", [value, lengths], outputs=len(runs), axis=axis), strict=True))
