"""The scales of one table, and its codes a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimrank.graphs.chunks import Floats
from slimrank.graphs.ranges import dequantized, found_scale, pack_bytes, quantize, range_scale
from slimrank.graphs.tables import NEVER, Met, Table
from slimrank.tables.grid import LEAST_RATIO, MOST_RATIO, Grid

SAMPLE = 1 << 18  # values of a field looked at when its scale is searched, or its error


@dataclass(frozen=True)
class TableGrid:
    """`scale` [fields], or [1] where one is for all; with scales for rows, the unit [1] of their ratios."""

    table: Table
    grid: Grid
    scale: Floats

    @classmethod
    def found(cls, table: Table, grid: Grid, counts: Met | None) -> TableGrid:
        """The scales that `grid` asks for, a row's squared error counting as `counts` says, where given."""
        bounds = table.bounds if grid.scale == "field" else [(0, table.rows.num_rows)]
        if grid.by_rows:
            values, _ = sampled(table, *bounds[0], None)
            each = found_scale(values, grid.codes, grid.range)
            return cls(table, grid, np.exp(np.log(each).mean(keepdims=True)))
        return cls(table, grid, np.concatenate([_scale(table, grid, *bound, counts) for bound in bounds]))

    def steps(self, start: int, chunk: Floats) -> Floats:
        """The scale of each row of `chunk`, which begins at row `start`: [n, 1], or [1, 1]."""
        if self.grid.by_rows:
            return self._ratios(chunk).astype(np.float32) * self.scale
        if len(self.scale) == 1:
            return self.scale.reshape(1, 1)
        fields = np.searchsorted(self.table.starts, np.arange(start, start + len(chunk)), side="right") - 1
        return self.scale[fields].reshape(-1, 1)

    def packed(self) -> Iterator[NDArray[np.uint8]]:
        """The codes of all rows in bytes [n, ceil(dim * bits / 8)]."""
        for start, chunk in self.table.rows.chunks():
            codes = quantize(chunk, self.steps(start, chunk), self.grid.codes)
            yield pack_bytes(codes.astype(np.uint8), self.grid.bits)

    def ratios(self) -> Iterator[NDArray[np.float16]]:
        """The scales of all rows in units of `scale`: [n, 1]."""
        for _, chunk in self.table.rows.chunks():
            yield self._ratios(chunk)

    def _ratios(self, chunk: Floats) -> NDArray[np.float16]:
        ratio = found_scale(chunk, self.grid.codes, self.grid.range) / self.scale
        found: NDArray[np.float16] = np.clip(ratio, LEAST_RATIO, MOST_RATIO).astype(np.float16).reshape(-1, 1)
        return found


def errors_of(grid: TableGrid, counts: Met | None) -> float:
    """The sum of squared errors over all rows, as a sample of them tells it, each counting as `counts` says."""
    total = 0.0
    for field, (first, last) in enumerate(grid.table.bounds):
        values, weights = sampled(grid.table, first, last, counts)
        scale = grid.scale[field if len(grid.scale) > 1 else 0] if not grid.grid.by_rows else grid.steps(0, values)
        errors = np.square(dequantized(values, scale, grid.grid.codes) - values).sum(axis=1)
        total += float((errors * weights).sum(dtype=np.float64))
    return total


def sampled(table: Table, first: int, last: int, counts: Met | None, least: int = 2) -> tuple[Floats, Floats]:
    """Rows from `first` to `last` - 1, about `SAMPLE` values or `least` rows, and how much each counts: [n].

    Where rows have counts, those that were met most are up to half of the sample, and stand for themselves.
    """
    wanted = max(least, SAMPLE // table.rows.dim)
    stride = max(1, (last - first) // wanted)
    if counts is None or stride == 1:
        places = np.arange(first, last, stride)
        weights = np.full(len(places), stride, np.float32) if counts is None else counts.at(places)
        return table.rows.take(places), weights
    met = counts.of(first, last)
    heavy = met.places[np.sort(np.argsort(-met.times, kind="stable")[: wanted // 2])]
    rest = np.setdiff1d(np.arange(0, last - first, max(1, (last - first) // (wanted - len(heavy)))), heavy)
    own, others = met.at(heavy), met.at(rest)
    total = met.times.sum(dtype=np.float64) + NEVER * (last - first - len(met.places))
    share = (total - own.sum(dtype=np.float64)) / max(1.0, float(others.sum()))
    places, weights = np.concatenate([heavy, rest]), np.concatenate([own, others * np.float32(share)])
    order = np.argsort(places)
    return table.rows.take(first + places[order]), weights[order]


def _scale(table: Table, grid: Grid, first: int, last: int, counts: Met | None) -> Floats:
    """The scale [1] of the rows from `first` to `last` - 1; "max" has to see all of them."""
    if grid.range == "max":
        ends = [(chunk.min(), chunk.max()) for _, chunk in table.rows.chunks(first, last)]
        return range_scale(np.array(ends, np.float32).reshape(1, -1), grid.codes)
    values, weights = sampled(table, first, last, counts)
    each = None if counts is None else np.repeat(weights, values.shape[1]).reshape(1, -1)
    return found_scale(values.reshape(1, -1), grid.codes, grid.range, each)
