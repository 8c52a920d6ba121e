"""Products with one-hot encodings as lookups of the rows that these pick: the same answers, and a table for the steps.

scikit-learn's converters write an encoder of ai.onnx.ml for each column, put its zeros and ones side by side and
multiply them. An id becomes a row by arithmetic where the categories of its column follow each other. Where they have
gaps, rows of zeros stand in these, or, where that is fewer bytes, a map of integers says the row of each id. Where
encoders answer zeros to unknown ids, there are rows of zeros for them; where they refuse them, the lookup does: the id
becomes one that no table has. Left out: categories that are texts, or far apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as replaced
from itertools import pairwise

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from slimrank.exporting.constants import array_of, constant, node_before, producer
from slimrank.graphs.attributes import ML, array
from slimrank.graphs.chunks import Floats
from slimrank.graphs.rewriting import replace

LEAST = 1024  # weights from which a table is fewer bytes by more than its nodes take
SPARSEST = 4  # ids from the first to the last category, over the categories: beyond, a map would be mostly gaps
REFUSED = 1 << 40  # a row that no table has
WIDE = (ir.DataType.FLOAT, ir.DataType.DOUBLE)  # what a Cast to changes no float32
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """Columns of what is multiplied: one-hot encodings of a column of ids [N, 1] with `ids`, else `value` as it is.

    `width` is how many, 0 where it is not known; `flat` whether they are [N, width], which an encoder's are not.
    """

    value: ir.Value
    width: int
    ids: Ints | None = None
    refuses: bool = False
    flat: bool = True


def lookups_of_one_hot(graph: ir.Graph) -> list[str]:
    """Exchange products of `graph` with one-hot encodings; what became of each."""
    found = []
    for node in [node for node in graph if node.domain == "" and node.op_type == "MatMul"]:
        weight = _weight(node)
        parts = _parts_of(node, len(weight)) if weight is not None else None
        if weight is None or parts is None:
            continue
        encoded = [part for part in parts if part.ids is not None]
        rows = sum(part.width for part in encoded)
        if not encoded or rows * weight.shape[1] < LEAST or len({part.refuses for part in encoded}) > 1:
            continue
        name = "" if node.inputs[1] is None else str(node.inputs[1].name)
        replace(node, _looked_up(graph, node, parts, weight, name))
        found.append(f"{name}: {len(encoded)} one-hot encodings and their product, lookups in {rows:,} rows")
    return found


def _weight(node: ir.Node) -> Floats | None:
    """The matrix that a product alone reads, or None."""
    value = node.inputs[1]
    alone = value is not None and value.const_value is not None and len(list(value.uses())) == 1
    if value is None or not alone or value.is_graph_input() or value.is_graph_output():
        return None
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 2:
        return None
    return np.asarray(tensor.numpy(), np.float32)


def _parts_of(node: ir.Node, width: int) -> list[Part] | None:
    """What stands side by side in the first input of a product, `width` columns in all; None where not known."""
    parts = [] if node.inputs[0] is None else _parts(node.inputs[0])
    unknown = [place for place, part in enumerate(parts) if not part.width]
    left = width - sum(part.width for part in parts)
    if len(unknown) == 1 and left > 0:
        parts[unknown[0]] = Part(parts[unknown[0]].value, left)
        left = 0
    return parts if left == 0 and all(part.width > 0 and part.flat for part in parts) else None


def _parts(value: ir.Value) -> list[Part]:
    node = value.producer()
    if node is not None and node.domain == ML and node.op_type == "OneHotEncoder":
        return [_encoded(node) or Part(value, 0)]
    if node is not None and node.domain == "" and node.inputs and node.inputs[0] is not None:
        inner: list[Part] = []
        if node.op_type == "Concat" and node.attributes.get_int("axis", 0) in (1, 2, -1):
            inner = [part for each in node.inputs if each is not None for part in _parts(each)]
        elif node.op_type == "Identity" or (node.op_type == "Cast" and node.attributes.get_int("to", 0) in WIDE):
            inner = _parts(node.inputs[0])
        elif node.op_type in ("Flatten", "Reshape"):
            inner = [replaced(part, flat=True) for part in _parts(node.inputs[0])]
            inner = inner if _makes_rows(node, sum(part.width for part in inner)) else []
        if any(part.ids is not None for part in inner):
            return inner
    last = value.shape[-1] if value.shape is not None and len(value.shape) == 2 else 0
    return [Part(value, last if isinstance(last, int) else 0)]


def _makes_rows(node: ir.Node, width: int) -> bool:
    """Whether a Flatten or Reshape gives a row for every row, of `width` numbers."""
    if node.op_type == "Flatten":
        return bool(node.attributes.get_int("axis", 1) == 1)
    shape = array_of(node.inputs[1])
    return shape is not None and shape.tolist() == [-1, width]


def _encoded(node: ir.Node) -> Part | None:
    """The columns of an encoder of one column of ids, or None where that is not what it is."""
    ids, source = array(node, "cats_int64s", np.int64), node.inputs[0]
    if not ids.size or source is None or not _is_column(source) or len(np.unique(ids)) < ids.size:
        return None
    if int(ids.max()) - int(ids.min()) >= SPARSEST * ids.size:
        return None
    return Part(source, ids.size, ids, refuses=not node.attributes.get_int("zeros", 1), flat=False)


def _is_column(value: ir.Value) -> bool:
    """Whether a value has one column a row."""
    shape = _ids(value).shape
    return _column(value) is not None or (shape is not None and len(shape) == 2 and shape[1] == 1)


def _column(value: ir.Value) -> tuple[ir.Value, int] | None:
    """Which column of which value this is, if one is picked."""
    node = _ids(value).producer()
    if node is None or node.inputs[0] is None:
        return None
    picks = (node.domain == "" and node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 1) or (
        node.domain == ML and node.op_type == "ArrayFeatureExtractor"
    )
    place = array_of(node.inputs[1]) if picks else None
    return (node.inputs[0], int(place.flat[0])) if place is not None and place.shape == (1,) else None


def _ids(value: ir.Value) -> ir.Value:
    """What is cast to whole numbers to be `value`."""
    while (cast := producer(value, "Cast")) is not None and cast.attributes.get_int("to", 0) == ir.DataType.INT64:
        assert cast.inputs[0] is not None
        value = cast.inputs[0]
    return value


def _looked_up(graph: ir.Graph, node: ir.Node, parts: list[Part], weight: Floats, name: str) -> ir.Value:
    """The product of all parts, one-hot encodings by lookups."""
    firsts = np.cumsum([0, *(part.width for part in parts)])
    encoded = [(part, weight[first:last]) for part, (first, last) in zip(parts, pairwise(firsts), strict=True)]
    dense = [(part, rows) for part, rows in encoded if part.ids is None]
    encoded = [(part, rows) for part, rows in encoded if part.ids is not None]
    ids = _side_by_side(graph, node, [part.value for part, _ in encoded], name)
    places, table = _places(graph, node, ids, [(part, rows) for part, rows in encoded], name)
    looked = node_before(node, "Gather", [constant(graph, table, f"{name}.rows"), places], axis=0)[0]
    axis = constant(graph, np.array([1], np.int64), f"{name}.axis")
    found = node_before(node, "ReduceSum", [looked, axis], keepdims=0)[0]
    if dense:
        values = [node_before(node, "Cast", [part.value], to=int(ir.DataType.FLOAT))[0] for part, _ in dense]
        joined = node_before(node, "Concat", values, axis=1)[0] if len(values) > 1 else values[0]
        rest = constant(graph, np.concatenate([rows for _, rows in dense]), f"{name}.numbers")
        found = node_before(node, "Add", [found, node_before(node, "MatMul", [joined, rest])[0]])[0]
    return found


def _side_by_side(graph: ir.Graph, node: ir.Node, columns: list[ir.Value], name: str) -> ir.Value:
    """The columns as one value int64 [N, K]: in one go where all are columns of one value."""
    picked = [_column(each) for each in columns]
    sources = {source for each in picked if each is not None for source in [each[0]]}
    if len(sources) == 1 and all(picked):
        places = [each[1] for each in picked if each is not None]
        source = sources.pop()
        width = source.shape[1] if source.shape is not None and len(source.shape) == 2 else None
        if places != list(range(width if isinstance(width, int) else 0)):
            chosen = constant(graph, np.array(places, np.int64), f"{name}.columns")
            source = node_before(node, "Gather", [source, chosen], axis=1)[0]
        return node_before(node, "Cast", [source], to=int(ir.DataType.INT64))[0]
    ids = [node_before(node, "Cast", [each], to=int(ir.DataType.INT64))[0] for each in columns]
    return ids[0] if len(ids) == 1 else node_before(node, "Concat", ids, axis=1)[0]


def _places(
    graph: ir.Graph, node: ir.Node, ids: ir.Value, encoded: list[tuple[Part, Floats]], name: str
) -> tuple[ir.Value, Floats]:
    """The rows [N, K] of `ids` in a table, and the table: a field a column, rows of zeros around each."""
    cats = [part.ids for part, _ in encoded if part.ids is not None]
    lows, spans = np.array([each.min() for each in cats]), np.array([np.ptp(each) + 1 for each in cats])
    refuses, outputs = encoded[0][0].refuses, encoded[0][1].shape[1]
    gaps = int(spans.sum()) - sum(map(len, cats))
    mapped = gaps > 0 and (refuses or 4 * outputs * gaps > 2 * int(spans.sum()))

    def held(array: Ints, what: str) -> ir.Value:
        return constant(graph, np.asarray(array, np.int64), f"{name}.{what}")

    from_one = node_before(node, "Sub", [ids, held(lows - 1, "lows")])[0]  # 0 and span + 1 are unknown ids
    known = node_before(node, "Max", [from_one, held(np.zeros(1, np.int64), "least")])[0]
    known = node_before(node, "Min", [known, held(spans + 1, "most")])[0]
    starts = np.cumsum([0, *(spans + 2)])[:-1]
    if mapped:
        where = node_before(node, "Add", [known, held(starts, "map_starts")])[0]
        rows, table = _mapped(cats, [rows for _, rows in encoded], lows, spans)
        small = rows.astype(np.int16 if rows.max() < 1 << 15 else np.int32)
        known = node_before(node, "Gather", [constant(graph, small, f"{name}.map"), where], axis=0)[0]
        known = node_before(node, "Cast", [known], to=int(ir.DataType.INT64))[0]
        starts = np.cumsum([0, *(len(each) + 1 for each in cats)])[:-1]
    else:
        table = np.zeros((int((spans + 2).sum()), outputs), np.float32)
        for (_, own), each, low, start in zip(encoded, cats, lows, starts, strict=True):
            table[start + 1 + each - low] = own
    if refuses:
        least, most = (held(np.full(1, 1), "first"), held(spans, "last")) if not mapped else (None, None)
        fits = _refused(node, known, from_one, least, most)
        known = node_before(node, "Where", [fits, known, held(np.array(REFUSED), "none")])[0]
    return node_before(node, "Add", [known, held(starts, "starts")])[0], table


def _refused(
    node: ir.Node, known: ir.Value, from_one: ir.Value, least: ir.Value | None, most: ir.Value | None
) -> ir.Value:
    """Whether ids are known ones: within their column, or, where a map says so by 0, in it."""
    if least is None or most is None:
        return node_before(node, "Cast", [known], to=int(ir.DataType.BOOL))[0]
    above = node_before(node, "GreaterOrEqual", [from_one, least])[0]
    return node_before(node, "And", [above, node_before(node, "LessOrEqual", [from_one, most])[0]])[0]


def _mapped(cats: list[Ints], rows: list[Floats], lows: Ints, spans: Ints) -> tuple[Ints, Floats]:
    """For every id from below the first one of a column to above its last the row, from 1 on, 0 for unknown ids."""
    maps = [np.zeros(span + 2, np.int64) for span in spans]
    for own, each, low in zip(maps, cats, lows, strict=True):
        own[1 + each - low] = np.arange(1, len(each) + 1)
    zeros = np.zeros((1, rows[0].shape[1]), np.float32)
    return np.concatenate(maps), np.concatenate([part for each in rows for part in (zeros, each)])
