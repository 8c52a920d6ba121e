"""Step on graphs: rows of tables become codes of a few bits into codebooks, one set of them a table or field.

A lookup gathers the codes of a row, and the entries that they name. Product quantisation (Jegou et al. 2011), as in
`tables/codebook.py`; codebooks are found by faiss's k-means on a sample of rows, codes as the file is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from slimrank.compression.selection import Selection
from slimrank.config import InputError, register
from slimrank.exporting.constants import constant, node_before
from slimrank.graphs.chunks import Floats, StreamedTensor, initializer
from slimrank.graphs.grids import sampled
from slimrank.graphs.lookups import unpacked
from slimrank.graphs.ranges import pack_bytes, quantize, range_scale
from slimrank.graphs.rewriting import shared
from slimrank.graphs.steps import KIND, Context
from slimrank.graphs.tables import Met, Table, find_tables, observed, pays, replace_lookup
from slimrank.indexing.faiss_library import PER_CENTRE, flat_index, k_means
from slimrank.tables.codes import Codes, row_bytes
from slimrank.tables.coding import Coding, check_codes, code_bytes

BYTES = Codes.unsigned(8)
ROUNDS = 20


class CodebookTables(Coding, Selection):
    """Codes and codebooks for every selected table, all coded alike; rows count as often as sample `rows` met them."""

    name: Literal["codebook-tables"] = "codebook-tables"
    rows: int = Field(default=65536, ge=1)


@dataclass(frozen=True)
class Books:
    """The codebooks of a table: `entries` [fields, parts, 2**bits, dim / parts] float32."""

    table: Table
    coding: Coding
    entries: Floats

    def packed(self) -> Iterator[NDArray[np.uint8]]:
        """The codes of all rows in bytes [n, ceil(parts * bits / 8)]."""
        for field, (first, last) in enumerate(self.table.bounds):
            indices = [flat_index(book) for book in self.entries[field]]
            for _, chunk in self.table.rows.chunks(first, last):
                cut = np.split(chunk, self.coding.parts, axis=1)
                found = [
                    index.search(np.ascontiguousarray(part), 1)[1] for index, part in zip(indices, cut, strict=True)
                ]
                yield pack_bytes(np.concatenate(found, axis=1).astype(np.uint8), self.coding.bits)


@register(KIND, CodebookTables)
def codebook_tables(model: ir.Model, config: CodebookTables, context: Context) -> None:
    """Every selected table of the graph that gets smaller as codes and codebooks.

    Raises:
        InputError: a name of the selection matches no table, or faiss is not installed.
    """
    tables = []
    for table in find_tables(model, config, context):
        try:
            check_codes(table.rows.dim, config)
        except InputError as error:
            context.skip(table.name, str(error))
        else:
            tables.append(table)
    tables, met = observed(model.graph, tables, context, config.rows)
    for table in tables:
        nbytes = code_bytes(table.rows.num_rows, len(table.starts), table.rows.dim, config)
        if pays(table, nbytes, context):
            put_in_place(model.graph, found_books(table, config, met.get(table.name), context.seed))


def found_books(table: Table, coding: Coding, counts: Met | None, seed: int) -> Books:
    """The entries of every field and part with the least squared error that k-means finds on a sample of its rows."""
    books = []
    for first, last in table.bounds:
        values, weights = sampled(table, first, last, counts, PER_CENTRE << coding.bits)
        parts = np.split(values, coding.parts, axis=1)
        books.append([_centres(part, 1 << coding.bits, weights, seed + place) for place, part in enumerate(parts)])
    return Books(table, coding, np.array(books, np.float32))


def put_in_place(graph: ir.Graph, books: Books) -> None:
    """Exchange the table for codes and entries, and every lookup of floats for one of both."""
    table, coding, (fields, parts, count, width) = books.table, books.coding, books.entries.shape
    shape = (table.rows.num_rows, row_bytes(parts, coding.bits))
    codes = initializer(graph, StreamedTensor(f"{table.name}_codes", ir.DataType.UINT8, shape, books.packed))
    flat = books.entries.reshape(-1, width)
    steps = range_scale(books.entries.reshape(fields, -1), BYTES) if coding.entry_bits == 8 else None
    if steps is None:
        entries = constant(graph, flat, f"{table.name}_entries")
    else:
        own = np.repeat(steps, parts * count).reshape(-1, 1)
        entries = constant(graph, quantize(flat, own, BYTES).astype(np.uint8), f"{table.name}_entries")
    firsts = (np.arange(fields * parts, dtype=np.int32) * count).reshape(fields, parts)
    offsets = constant(graph, firsts if fields > 1 else firsts[0], f"{table.name}_offsets")
    for node in table.gathers:
        ids = node.inputs[1]
        assert ids is not None
        own_codes = node_before(node, "Gather", [codes, ids], axis=0)[0]
        own_codes = unpacked(graph, node, own_codes, coding.bits, parts)
        places = node_before(node, "Cast", [own_codes], to=int(ir.DataType.INT32))[0]
        places = node_before(node, "Add", [places, offsets])[0]
        found = node_before(node, "Gather", [entries, places], axis=0)[0]
        found = node_before(node, "Reshape", [found, _shape(graph, node, ids, table.rows.dim)])[0]
        replace_lookup(table, found if steps is None else _floats(graph, node, found, steps, table.name), node)


def _shape(graph: ir.Graph, node: ir.Node, ids: ir.Value, dim: int) -> ir.Value:
    """The shape [.., dim] of vectors of `ids` [..], whose axes are copied where their number is known."""
    last = shared(graph, f"index_{dim}", np.array([dim], np.int64))
    if ids.shape is not None:
        rank = len(ids.shape)
        return shared(graph, f"axes_{rank}_{dim}", np.array([*[0] * rank, dim], np.int64))
    return node_before(node, "Concat", [node_before(node, "Shape", [ids])[0], last], axis=0)[0]


def _floats(graph: ir.Graph, node: ir.Node, codes: ir.Value, steps: Floats, name: str) -> ir.Value:
    """Entries of bytes as floats, by the step of their field."""
    zero = shared(graph, "zero_128", np.array(128, np.uint8))
    if len(steps) == 1:
        step = constant(graph, steps[0], f"{name}_step")
        return node_before(node, "DequantizeLinear", [codes, step, zero])[0]
    one = shared(graph, "one", np.ones((), np.float32))
    found = node_before(node, "DequantizeLinear", [codes, one, zero])[0]
    return node_before(node, "Mul", [found, constant(graph, steps.reshape(-1, 1), f"{name}_steps")])[0]


def _centres(vectors: Floats, count: int, weights: Floats, seed: int) -> Floats:
    """`count` centres of `vectors` [n, width]: the distinct ones where they are as few, and else what k-means finds."""
    distinct = np.unique(vectors, axis=0)
    if len(distinct) <= count:
        return np.pad(distinct, ((0, count - len(distinct)), (0, 0)))
    return k_means(vectors, count, weights, seed, ROUNDS)
