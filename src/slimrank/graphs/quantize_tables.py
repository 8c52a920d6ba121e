"""Step on graphs: tables of floats become tables of 8, 4, 2 or 1 bits, with a scale for all rows, a field or a row.

A lookup gathers bytes, shifts the codes out of them, and makes floats of the batch's rows alone. The arithmetic is that
of `tables/scaled.py`; scales are post-training, so that `learned` and `rounding` have nothing to act on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir
from pydantic import Field, model_validator

from slimrank.compression.budget import Option, allocate
from slimrank.compression.selection import Budgeted
from slimrank.config import InputError, register
from slimrank.exporting.constants import constant, node_before
from slimrank.graphs.chunks import StreamedTensor, initializer
from slimrank.graphs.grids import TableGrid, errors_of
from slimrank.graphs.lookups import unpacked
from slimrank.graphs.steps import KIND, Context, bytes_of
from slimrank.graphs.tables import Met, Table, find_tables, observed, pays, replace_lookup
from slimrank.tables.codes import check_packs, packs, row_bytes
from slimrank.tables.grid import Bits, Grid


class QuantizeTables(Grid, Budgeted):
    """Quantise tables to 8, 4, 2 or 1 bits, or each table to what a budget for the whole graph leaves for it.

    `weighted`: a row's squared error counts as often as `rows` sample rows met it, when scales and bits are chosen.
    """

    name: Literal["quantize-tables"] = "quantize-tables"
    weighted: bool = True
    rows: int = Field(default=65536, ge=1)

    @model_validator(mode="after")
    def _what_graphs_hold(self) -> QuantizeTables:
        if not self.symmetric or self.rows_per_scale > 1:
            raise ValueError("tables of a graph have symmetric codes and, with scale 'row', a scale for every row")
        return self


@register(KIND, QuantizeTables)
def quantize_tables(model: ir.Model, config: QuantizeTables, context: Context) -> None:
    """Every selected table of the graph in integers.

    Raises:
        InputError: a name of the selection matches no table, or even the fewest bits of all exceed the budget.
    """
    tables = []
    for table in find_tables(model, config, context):
        try:
            check_fits(table, config.bits)
        except InputError as error:
            context.skip(table.name, str(error))
        else:
            tables.append(table)
    tables, met = observed(model.graph, tables, context, config.rows)
    counts = met if config.weighted else {}
    for table, bits in zip(tables, chosen_bits(model, tables, config, context, counts), strict=True):
        grid = config.with_bits(bits)
        if bits == 32:
            context.skip(table.name, "stays as it is, at 32 bits")
        elif pays(table, nbytes_of(table, grid), context):
            put_in_place(model.graph, table, TableGrid.found(table, grid, counts.get(table.name)))


def check_fits(table: Table, bits: int) -> None:
    """Raises `InputError` where rows of `table` take no fewer bytes with so many bits, or cannot be said in them."""
    check_packs(table.rows.dim, bits)
    if bits == 1 and table.zero_rows:
        raise InputError("has rows of zeros, padding perhaps, which one bit cannot say: take 2")


def nbytes_of(table: Table, grid: Grid) -> int:
    """Bytes of codes and scales in the bits of `grid`; of the table as it is with 32."""
    if grid.bits == 32:
        return table.nbytes
    scales = {"table": 4, "field": 4 * len(table.starts), "row": 2 * table.rows.num_rows + 4}[grid.scale]
    return table.rows.num_rows * row_bytes(table.rows.dim, grid.bits) + scales


def chosen_bits(
    model: ir.Model, tables: Sequence[Table], config: QuantizeTables, context: Context, counts: dict[str, Met]
) -> list[Bits]:
    """The bits of every table: as the config says, or those with the least squared error within its budget."""
    if config.budget is None:
        return [config.bits] * len(tables)
    fixed = bytes_of(model, context) - sum(table.nbytes for table in tables)
    widths = [[bits for bits in get_args(Bits) if bits <= config.bits and _fits(table, bits)] for table in tables]
    options = [
        [_option(table, config.with_bits(bits), counts.get(table.name)) for bits in allowed]
        for table, allowed in zip(tables, widths, strict=True)
    ]
    places = allocate(options, int(config.budget), fixed=fixed)
    found: list[Bits] = [allowed[place] for allowed, place in zip(widths, places, strict=True)]
    context.note(**{f"bits of {table.name}": bits for table, bits in zip(tables, found, strict=True)})
    return found


def _fits(table: Table, bits: int) -> bool:
    return packs(table.rows.dim, bits) and not (bits == 1 and table.zero_rows)


def _option(table: Table, grid: Grid, counts: Met | None) -> Option:
    error = 0.0 if grid.bits == 32 else errors_of(TableGrid.found(table, grid, counts), counts)
    return Option(nbytes_of(table, grid), error)


def put_in_place(graph: ir.Graph, table: Table, grid: TableGrid) -> None:
    """Exchange the table for its codes, and every lookup of floats for one of bytes.

    Codes with zero between two of them are moved up by one bit, so that the zero point is a byte: twice the code less
    2**bits - 1, times half the scale.
    """
    rows, dim, bits = table.rows.num_rows, table.rows.dim, grid.grid.bits
    shape = (rows, row_bytes(dim, bits))
    codes = initializer(graph, StreamedTensor(f"{table.name}_codes", ir.DataType.UINT8, shape, grid.packed))
    ratios = None
    if grid.grid.by_rows:
        ratios = initializer(graph, StreamedTensor(f"{table.name}_scales", ir.DataType.FLOAT16, (rows, 1), grid.ratios))
    part = np.float32(0.5 if grid.grid.midrise else 1.0)
    zero = 2**bits - 1 if grid.grid.midrise else 2 ** (bits - 1)
    several = len(grid.scale) > 1
    step = constant(graph, np.ones((), np.float32) if several else grid.scale[0] * part, f"{table.name}_step")
    zero_point = constant(graph, np.array(zero, np.uint8), f"{table.name}_zero")
    steps = constant(graph, (grid.scale * part).reshape(-1, 1), f"{table.name}_steps") if several else None
    for node in table.gathers:
        ids = node.inputs[1]
        assert ids is not None
        bytes_of_rows = node_before(node, "Gather", [codes, ids], axis=0)[0]
        found = unpacked(graph, node, bytes_of_rows, bits, dim, up=int(grid.grid.midrise))
        found = node_before(node, "DequantizeLinear", [found, step, zero_point])[0]
        if steps is not None:
            found = node_before(node, "Mul", [found, steps])[0]
        if ratios is not None:
            own = node_before(node, "Gather", [ratios, ids], axis=0)[0]
            own = node_before(node, "Cast", [own], to=int(ir.DataType.FLOAT))[0]
            found = node_before(node, "Mul", [found, own])[0]
        replace_lookup(table, found, node)
