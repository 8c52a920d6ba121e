"""Step: ids of large tables share rows, weighted, clustered or plain, for 30 times and beyond."""

from __future__ import annotations

from bisect import bisect_left
from math import ceil, log
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from slimrank.compression.selection import Budgeted
from slimrank.compression.steps import Context
from slimrank.compression.tables import Part, find_parts, left_for, replace_parts
from slimrank.config import Config, InputError, register, runner
from slimrank.tables.buckets import collisions, expected_collisions
from slimrank.tables.clustered import Parts, bytes_beside_shared
from slimrank.tables.dense import Dense
from slimrank.tables.hashed import HashedTable, Hashing, hash_rows
from slimrank.tables.table import Table

STEP = 1.01  # from one ratio that is tried for a budget to the next


class HashTables(Hashing, Budgeted):
    """Hash every selected field to `ratio` times fewer rows, or to what a budget leaves for each in equal measure.

    Of method `clustered`, a field has as many rows in the two tables of a chunk together, rounded to powers of 2.
    """

    name: Literal["hash-tables"] = "hash-tables"
    ratio: float = Field(default=16.0, ge=1)
    least_rows: int = Field(default=64, ge=1)


@register("step", HashTables)
def hash_tables(model: nn.Module, config: HashTables, context: Context) -> nn.Module:
    """Every selected field of at least `least_rows` rows over fewer rows.

    Raises:
        InputError: the budget is below the least possible.
    """
    parts = []
    for part in find_parts(model, config, context, per_field=True):
        try:
            _check(part, config)
        except InputError as error:
            context.skip(part.name, str(error))
        else:
            parts.append(part)
    ratio = config.ratio
    if config.budget is not None:
        left = left_for(model, parts, config.budget, context)
        if parts:
            ratio = _ratio_within(parts, config, int(config.budget), left)
            context.note(ratio=ratio)
    made: dict[Part, Table] = {part: hashed_part(part, config, ratio, context.seed) for part in parts}
    for part, table in replace_parts(model, made, context).items():
        if isinstance(table, HashedTable):
            _note_collisions(part, table, context)
    return model


def _check(part: Part, config: HashTables) -> None:
    """Raises `InputError` where a field is not to be hashed."""
    if part.table.num_rows < config.least_rows:
        raise InputError(f"has {part.table.num_rows} rows, fewer than least_rows {config.least_rows}")
    if part.table.dim % config.chunks:
        raise InputError(f"dimension {part.table.dim} does not divide into {config.chunks} chunks")


def buckets_of(part: Part, config: Hashing, ratio: float) -> int:
    """Shared rows of a field; of `clustered` those of each of the two tables."""
    count = max(1, int(part.table.num_rows / ratio))
    return max(1, count // 2) if config.method == "clustered" else count


def hashed_part(part: Part, config: Hashing, ratio: float, seed: int) -> Table:
    """The hashed table of one field."""
    weight, starts = part.table.weight.detach(), part.table.starts
    reserved = part.reserved[0]
    size = min(buckets_of(part, config, ratio), part.table.num_rows - reserved)
    table = hash_rows(config, weight, starts, [reserved], [size], part.counts, seed)
    return table.with_sparse(part.table.sparse)


def _ratio_within(parts: list[Part], config: HashTables, budget: int, left: int) -> float:
    """The least ratio, to 1%, with which all parts together take at most `left` bytes."""
    steps = range(1 + ceil(log(2 * max(part.table.num_rows for part in parts), STEP)))

    def over(step: int) -> int:
        return sum(hashed_bytes(part, config, STEP**step) for part in parts) - left

    found = bisect_left(steps, 0, key=lambda step: -over(step))
    if found == len(steps):
        raise InputError(f"a budget of {budget:,} bytes is below the least possible: {budget + over(steps[-1]):,}")
    return STEP**found


def hashed_bytes(part: Part, config: Hashing, ratio: float) -> int:
    """Packed bytes of the table that `hashed_part` makes."""
    rows, dim, kept = part.table.num_rows, part.table.dim, part.reserved[0]
    size = min(buckets_of(part, config, ratio), rows - kept)
    if config.method == "clustered":
        parts = Parts(config.chunks, [kept], [max(size, 1).bit_length() - 1], [rows])
        return shared_bytes(config.inner, parts.num_shared, dim // config.chunks) + bytes_beside_shared(parts, [rows])
    own = 0
    if config.method == "weighted":
        numbers = 2 if config.bias else 1
        own = rows * numbers * config.weight_bits // 8 + 4 * numbers
    return shared_bytes(config.inner, kept + size, dim) + 12 + own


def shared_bytes(inner: Config, rows: int, dim: int) -> int:
    """Packed bytes of `rows` shared rows of `dim` numbers: another kind than floats is made, of ones, and asked."""
    if isinstance(inner, Dense):
        return 4 * rows * dim
    table: Table = runner("table", inner)(inner, torch.ones(rows, dim), None)
    return table.nbytes


def _note_collisions(part: Part, table: HashedTable, context: Context) -> None:
    """Note the share of ids and of lookups whose row is that of another id as well, and what chance alone gives."""
    ids = torch.arange(part.table.num_rows, device=part.table.weight.device)
    shared = table.buckets(ids, torch.zeros_like(ids))
    own, traffic = collisions(shared, part.counts, table.buckets.num_shared)
    name = part.fields[0] if part.fields else part.name
    expected = expected_collisions(part.table.num_rows, table.buckets.counts[0])
    context.note(
        **{f"{name}: ids that share": own, f"{name}: lookups that share": traffic, f"{name}: by chance": expected}
    )
