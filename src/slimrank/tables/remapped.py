"""The table without its rare rows: what was dropped shares one row of its field, and a map finds what was kept.

The rows that were kept are a table of any kind. The shared row becomes the mean, weighted by frequency, of itself and
all that it now stands for, or stays as it is. Left out: which rows are rare; that is a step's work. Rows that do not
exist in the vocabulary either (ids sorted by frequency, cut off) need no table of this kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor

from slimrank.config import Config, register, resolver, runner
from slimrank.tables.dense import Dense
from slimrank.tables.row_maps import RowMap, row_map
from slimrank.tables.table import Table, check_rows, one_field

CHUNK = 1 << 20  # rows worked on at a time


class Remapped(Config):
    """Rows of another kind for the first of every field; all others share one row.

    `keep` is the fraction of rows that every field keeps, its most frequent ones if it is sorted by frequency. The
    shared row is the field's first: the mean of itself and what was dropped, or as it is ("row").
    """

    name: Literal["remapped"] = "remapped"
    keep: float = Field(default=0.5, gt=0, le=1)
    to: Literal["mean", "row"] = "mean"
    inner: Annotated[SerializeAsAny[Config], resolver("table")] = Dense()


class RemappedTable(Table):
    """`inner` holds the rows that were kept, field by field; `map` finds them. The map is no parameter."""

    inner: Table

    def __init__(self, inner: Table, rows_of: RowMap, num_rows: int, starts: Tensor):
        super().__init__(num_rows, inner.dim, starts)
        self.inner = inner
        self.map = rows_of

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        index = self.fields_of(ids) if fields is None else torch.tensor(fields, device=ids.device)
        vectors: Tensor = self.inner(self.map(ids, index), fields)
        return vectors

    def steps(self, fields: Sequence[int]) -> Tensor | None:
        return self.inner.steps(fields)

    def pack(self) -> RemappedTable:
        packed = self.inner.pack()
        return self if packed is self.inner else RemappedTable(packed, self.map, self.num_rows, self.starts)

    @property
    def nbytes(self) -> int:
        return self.inner.nbytes + self.map.nbytes


@torch.no_grad()
def remap(
    weight: Tensor,
    starts: Tensor,
    kept: Tensor,
    shared: Tensor,
    *,
    to: Literal["mean", "row"] = "mean",
    counts: Tensor | None = None,
    inner: Config | None = None,
) -> RemappedTable:
    """The table of the rows `kept` [rows] bool of `weight` [rows, dim].

    `shared` [fields] is the row that stands for what a field drops, counted from the field's first; it is kept in any
    case. `counts` [rows] weigh the mean, all rows alike where there are none.
    """
    kept = kept.clone()
    bounds, rows = list(pairwise([*starts.tolist(), len(weight)])), starts + shared
    kept[[row for row, (first, last) in zip(rows.tolist(), bounds, strict=True) if first < last]] = True
    before = torch.cumsum(torch.cat([kept.new_zeros(1), kept]), 0)  # kept rows before each row, and of all
    inner_starts, shared_rows, short = before[starts], before[rows.clamp(max=len(weight))], weight[kept]
    del before
    if to == "mean":
        for row, at, (first, last) in zip(rows, shared_rows, bounds, strict=True):
            if first == last:
                continue
            dropped = ~kept[first:last]
            dropped[row - first] = True
            own = torch.ones_like(dropped, dtype=torch.float32) if counts is None else counts[first:last]
            short[at] = weighted_mean(weight[first:last], own * dropped, short[at])
    config = inner or Dense()
    made: Table = runner("table", config)(config, short, inner_starts)
    return RemappedTable(made, row_map(kept, starts, inner_starts, shared_rows), len(weight), starts)


def weighted_mean(rows: Tensor, weights: Tensor, otherwise: Tensor) -> Tensor:
    """sum(weights * rows) / sum(weights) [dim], or `otherwise` where no row has weight; a chunk of rows at a time."""
    total, size = torch.zeros_like(otherwise, dtype=torch.float64), weights.sum(dtype=torch.float64)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        total += (weights[part].to(rows.dtype) @ rows[part]).double()
    return (total / size).to(rows.dtype) if size > 0 else otherwise


@register("table", Remapped)
def remapped(config: Remapped, weight: Tensor, starts: Tensor | None = None) -> RemappedTable:
    """The table of the first rows of every field of `weight` [rows, dim], at least one of each.

    Raises:
        InputError: there are no rows, a value is NaN or infinite, or the inner kind refuses the rows.
    """
    check_rows(weight)
    starts = one_field(weight) if starts is None else starts
    kept = torch.zeros(len(weight), dtype=torch.bool, device=weight.device)
    for first, last in pairwise([*starts.tolist(), len(weight)]):
        kept[first : first + max(1, round(config.keep * (last - first)))] = True
    return remap(
        weight.detach().to(torch.float32), starts, kept, torch.zeros_like(starts), to=config.to, inner=config.inner
    )
