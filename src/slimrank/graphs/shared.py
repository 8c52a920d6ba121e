"""A ranking graph split where the shared columns of a request meet those of its candidates.

A request has shared features once (user, context, query) and N candidates. The unsplit graph looks the shared ones up
and multiplies them N times; the split one does it once. Its answers are the same but for
the order in which sums of floats are added. Sums of integers are exact in any order. A sum of floats is not split where
the graph rounds or compares behind it, since a last bit would become a whole step there. Where no rule says how an
operator treats parted values they are joined, and the rest of the graph goes on as it was. Left out: one sequence of
tokens, which holds query and document together.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from slimrank.config import InputError
from slimrank.graphs.reading import graph_of, read_proto
from slimrank.graphs.shared_axes import AXIS_RULES
from slimrank.graphs.shared_places import PLACE_RULES
from slimrank.graphs.shared_products import PRODUCTS
from slimrank.graphs.shared_rounding import before_rounding
from slimrank.graphs.shared_rows import row_by_row
from slimrank.graphs.shared_rules import ELEMENT_RULES
from slimrank.graphs.shared_values import Builder, Part, Rows, Shapes, Whole, parted

SHARED = "shared_"
INPUTS = ("ids", "numbers")
RULES = {**ELEMENT_RULES, **PLACE_RULES, **AXIS_RULES, **PRODUCTS}


@dataclass(frozen=True, eq=False)
class SplitGraph:
    """A split graph.

    Attributes:
        proto: the model; tensors that lay beside the unsplit one lie where they lay.
        once: how many nodes work on the one shared row.
        joined: operators before which parts were joined, in the order of the graph.
    """

    proto: onnx.ModelProto
    once: int
    joined: tuple[str, ...]


def split_shared(path: Path, ids: Collection[int], numbers: Collection[int] = ()) -> SplitGraph:
    """The graph at `path` with the columns `ids` of its ids [N, K] and `numbers` of its numbers [N, M] given once.

    It takes `shared_ids` int32 [1, Ks], `shared_numbers` float32 [1, Ms], `ids` [N, K - Ks] and `numbers` [N, M - Ms],
    each in the order of its columns and absent where it has none, and gives `logit` [N]; where every column is shared,
    that of the unsplit graph for one row, [1]. Weights beside the file stay there and are not read.

    Raises:
        InputError: no sound ONNX file; ids or numbers are of no fixed width, as those of a text are; there is no such
            column; or the graph has parts that run by a condition.
    """
    proto = read_proto(path)
    wanted = dict(zip(INPUTS, (set(ids), set(numbers)), strict=True))
    widths = _widths(proto, wanted, path)
    if any(kind.type == onnx.AttributeProto.GRAPH for node in proto.graph.node for kind in node.attribute):
        raise InputError(f"{path}: has parts that run by a condition, and cannot be split")
    model = graph_of(proto, path)
    logit = model.graph.outputs[0]
    nodes = list(model.graph)
    builder = Builder(model.graph, Shapes(proto), before_rounding(nodes))
    _part_inputs(builder, {name: wanted[name] for name in widths}, widths, nodes[0])
    joined = [label for node in nodes if (label := _rewrite(builder, node))]
    builder.before(nodes[-1])
    model.graph.outputs[0] = _answer(builder, logit)
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)
    common.NameFixPass()(model)
    return SplitGraph(ir.to_proto(model), _once(model), tuple(joined))


def _widths(proto: onnx.ModelProto, wanted: dict[str, set[int]], path: Path) -> dict[str, int]:
    """By input the number of its columns."""
    found, faults = {}, []
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in INPUTS or len(dims) != 2:
            faults.append(f"{path}: input {value.name!r} is no table of {' or '.join(INPUTS)}")
        elif not dims[1].HasField("dim_value"):
            faults.append(f"{path}: {value.name!r} is of any width, as a text is: its columns cannot be split")
        else:
            found[value.name] = dims[1].dim_value
    if not faults:
        wrong = {
            name: sorted(c for c in columns if not 0 <= c < found.get(name, 0)) for name, columns in wanted.items()
        }
        faults = [
            f"{path}: no column {bad[0]} of {name}, it has {found.get(name, 0)}" for name, bad in wrong.items() if bad
        ]
    if faults:
        raise InputError("\n".join(faults))
    return found


def _part_inputs(builder: Builder, shared: dict[str, set[int]], widths: dict[str, int], first: ir.Node) -> None:
    """New inputs for both parts of `ids` and `numbers`, and the number of candidates."""
    graph = builder.graph
    whole = {str(value.name): value for value in graph.inputs}
    graph.inputs.clear()
    builder.before(first)
    own_rows = None
    for name, width in widths.items():
        columns = {True: sorted(shared[name]), False: sorted(set(range(width)) - shared[name])}
        parts: dict[bool, Part | None] = {True: None, False: None}
        for once, places in columns.items():
            if places or (not once and not width):
                sizes = ir.Shape([1 if once else "N", len(places)])
                value = ir.Value(name=SHARED + name if once else name, shape=sizes, type=whole[name].type)
                graph.inputs.append(value)
                parts[once] = Part(value, np.array(places, np.int64))
        builder.found[whole[name]] = parted(1, width, parts[True], parts[False])
        own = parts[False]
        own_rows = own.value if own_rows is None and own is not None else own_rows
    if own_rows is not None:
        builder.count = builder.node("Shape", [own_rows], start=0, end=1)[0]


def _rewrite(builder: Builder, node: ir.Node) -> str:
    """Have `node` work on what its inputs have become; its operator where parts had to be joined before it."""
    builder.before(node)
    states = [builder.state(value) for value in node.inputs if value is not None]
    kinds = {state.rows if isinstance(state, Whole) else None for state in states}
    known = Rows.ONE not in kinds or builder.count is None or row_by_row(builder, node)
    if None not in kinds and not {Rows.ONE, Rows.EACH} <= kinds and known:
        rows = max((kind for kind in kinds if kind is not None), default=Rows.NONE)
        for place, value in enumerate(node.inputs):
            state = None if value is None else builder.state(value)
            node.replace_input_with(place, state.value if isinstance(state, Whole) else None)
        if rows != Rows.NONE:
            builder.found.update((output, Whole(output, rows)) for output in node.outputs)
        return ""
    rule = RULES.get(node.op_type) if kinds - {Rows.NONE, Rows.ONE} and not node.domain else None
    found = rule(builder, node) if rule is not None else None
    if found is not None:
        builder.found.update(zip(node.outputs, found, strict=True))
        return ""
    for place, value in enumerate(node.inputs):
        if value is not None:
            node.replace_input_with(place, builder.each(value))
    builder.found.update((output, Whole(output, Rows.EACH)) for output in node.outputs)
    return str(node.op_type)


def _answer(builder: Builder, logit: ir.Value) -> ir.Value:
    """The logit with a row for each candidate; with one where there are no candidates' columns."""
    state = builder.state(logit)
    value = state.value if isinstance(state, Whole) and builder.count is None else builder.each(logit)
    if value is not logit:
        logit.name, value.name = None, "logit"
        value.type = logit.type
    value.shape = ir.Shape([1 if builder.count is None else "N"])
    return value


def _once(model: ir.Model) -> int:
    """Nodes that hang on shared inputs and on no candidate's."""
    shared = {value for value in model.graph.inputs if str(value.name).startswith(SHARED)}
    own = set(model.graph.inputs) - shared
    count = 0
    for node in model.graph:
        if own.intersection(node.inputs):
            own.update(node.outputs)
        elif shared.intersection(node.inputs):
            shared.update(node.outputs)
            count += 1
    return count
