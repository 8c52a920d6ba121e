"""Step: tables of floats become tables of small integers, their scales fixed or learned in retraining."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from slimrank.compression.budget import Option, allocate
from slimrank.compression.selection import Budgeted
from slimrank.compression.steps import Context
from slimrank.compression.tables import Part, field_rows, find_parts, left_for, replace_parts, row_counts
from slimrank.config import InputError, register
from slimrank.tables.codes import check_packs, packs
from slimrank.tables.dense import DenseTable
from slimrank.tables.grid import Bits, Grid
from slimrank.tables.scaled import CHUNK, ScaledTable, scaled
from slimrank.tables.stacked import stacked
from slimrank.tables.table import Table


class QuantizeTables(Grid, Budgeted):
    """Quantise tables to 8, 4, 2 or 1 bits, or each field to what a budget leaves for it.

    `weighted`: a row's squared error counts as often as training met the row, when scales and bits are chosen. With a
    `budget` every field gets the bits, at most `bits`, with which the sum of these errors is least.
    """

    name: Literal["quantize-tables"] = "quantize-tables"
    weighted: bool = True


@register("step", QuantizeTables)
def quantize_tables(model: nn.Module, config: QuantizeTables, context: Context) -> nn.Module:
    """Every selected dense table of the model in its quantised, trainable form."""
    parts = []
    for part in find_parts(model, config, context):
        try:
            check_packs(part.table.dim, config.bits)
        except InputError as error:
            context.skip(part.name, str(error))
        else:
            parts.append(part)
    if config.budget is None:
        made: dict[Part, Table] = {part: quantized(part.table, config, counts_of(part, config)) for part in parts}
    else:
        made = within_budget(parts, config, int(config.budget), left_for(model, parts, config.budget, context), context)
    replace_parts(model, made, context)
    return model


def counts_of(part: Part, config: QuantizeTables) -> Tensor | None:
    """How much each row of `part` counts, [rows] float32, or None where all count alike."""
    if not config.weighted or part.counts is None:
        return None
    return part.counts.to(part.table.weight.device)


def quantized(table: DenseTable, config: Grid, counts: Tensor | None) -> ScaledTable | DenseTable:
    """The dense `table` as a scaled one, its gradients sparse or not as before."""
    made = scaled(config, table.weight.detach(), table.starts, counts)
    made.sparse = table.sparse
    return made


def within_budget(
    parts: Sequence[Part], config: QuantizeTables, budget: int, left: int, context: Context
) -> dict[Part, Table]:
    """All parts in `left` bytes, the bits of every field chosen; neighbours of equal bits are one table.

    Raises:
        InputError: even the least bits of all fields take more than `budget` leaves; the message names the least.
    """
    fields = [(part, place) for part in parts for place in range(len(part.table.starts))]
    widths = [bits_that_pack(part.table, place, config.bits) for part, place in fields]
    options = [
        [field_option(part, place, config, bits) for bits in allowed]
        for (part, place), allowed in zip(fields, widths, strict=True)
    ]
    chosen = [allowed[n] for allowed, n in zip(widths, allocate(options, budget, fixed=budget - left), strict=True)]
    made: dict[Part, Table] = {}
    for part in parts:
        bits = [b for (owner, _), b in zip(fields, chosen, strict=True) if owner is part]
        names = part.fields or [f"{part.name}[{place}]" for place in range(len(bits))]
        context.note(**{f"bits of {name}": b for name, b in zip(names, bits, strict=True)})
        made[part] = in_bits(part, config, bits)
    return made


def bits_that_pack(table: DenseTable, place: int, most: int) -> list[Bits]:
    """The widths, of at most `most` bits, in which the vectors of a field pack; 32 where it has no rows."""
    first, last = table.bounds()[place]
    allowed: list[Bits] = [b for b in get_args(Bits) if b <= most and packs(table.dim, b) and first < last]
    return allowed or [32]


def field_option(part: Part, place: int, config: QuantizeTables, bits: Bits) -> Option:
    """Bytes of one field at a width, and the squared error of its rows, each counted as often as it is met.

    Rows that training never met count as well, if less: a field of such rows would get the fewest bits for nothing.
    """
    table = field_rows(part.table, place, place + 1)
    if bits == 32:
        return Option(table.nbytes, 0.0)
    first, last = part.table.bounds()[place]
    counts, often = counts_of(part, config), row_counts(part) if config.weighted else None
    made = quantized(table, config.with_bits(bits), None if counts is None else counts[first:last])
    own = None if often is None else often[first:last]
    error, step = 0.0, max(1, CHUNK // table.dim)
    for start in range(0, table.num_rows, step):
        stop = min(start + step, table.num_rows)
        errors = (made.rows(start, stop) - table.rows(start, stop)).square().sum(dim=1)
        error += float((errors if own is None else errors * own[start:stop]).sum(dtype=torch.float64))
    return Option(made.nbytes, error)


def in_bits(part: Part, config: QuantizeTables, bits: Sequence[Bits]) -> Table:
    """The rows of `part` with these bits for each field: one table for every run of fields with the same."""
    counts, bounds, made, first = counts_of(part, config), part.table.bounds(), list[Table](), 0
    for width, run in groupby(bits):
        last = first + len(list(run))
        table = field_rows(part.table, first, last)
        own = None if counts is None else counts[bounds[first][0] : bounds[last - 1][1]]
        made.append(table if width == 32 else quantized(table, config.with_bits(width), own))
        first = last
    return stacked(made)
