"""The table of short rows: every vector is rows[id] P + m, with a projection P [rank, dim] and a mean m a field.

Few numbers a row and a small matrix that all rows of a field share. The rows are a table of their own, so they can be
quantised. With a rank beyond the dimension the table is trained wide and packed narrow: the rows are multiplied out,
and what is gained is the training (MLET, Deng et al. 2023, arXiv 2309.15881). With `bands` a field's ids, sorted by
frequency, have ranks that fall (mixed dimensions, Ginart et al. 2019, arXiv 1909.11810). Left out: projections that
become part of the layer that reads the table (`compression/reduce_dimensions.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt, SerializeAsAny
from torch import Tensor, nn

from slimrank.config import Config, InputError, register, resolver, runner
from slimrank.tables.banded import BandedTable
from slimrank.tables.dense import Dense, DenseTable
from slimrank.tables.principal import Spectrum, project, spectrum
from slimrank.tables.stacked import stacked
from slimrank.tables.table import Table, check_rows, one_field

Inner = Annotated[SerializeAsAny[Config], resolver("table")]


class LowRank(Config):
    """Rows of `rank` numbers, kept as an `inner` table, times a projection per field or per table.

    `centred` adds a mean row; without it a row of zeros, such as padding, stays zeros. `bands` are pairs of (rows,
    rank) for the first ids of every field, the next ones and so on; ids after the last band have `rank`.
    """

    name: Literal["low-rank"] = "low-rank"
    rank: int = Field(default=8, ge=1)
    projection: Literal["field", "table"] = "field"
    centred: bool = False
    bands: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    inner: Inner = Dense()


class LowRankTable(Table):
    """Trainable and packed form alike: the packed one has a packed `inner`.

    Shapes: `inner` [num_rows, rank], `projection` [fields or 1, rank, dim], `mean` [fields or 1, 1, dim] or None.
    """

    inner: Table

    def __init__(self, inner: Table, projection: Tensor, mean: Tensor | None = None):
        super().__init__(inner.num_rows, projection.shape[2], inner.starts)
        self.inner = inner
        self.projection = nn.Parameter(projection)
        self.mean = None if mean is None else nn.Parameter(mean)

    @property
    def rank(self) -> int:
        """Numbers in a row of the inner table."""
        return int(self.projection.shape[1])

    @property
    def merges(self) -> bool:
        """Whether the packed form is plain rows: where those are no longer than the inner ones."""
        return self.rank >= self.dim and isinstance(self.inner, DenseTable)

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        rows: Tensor = self.inner(ids, fields)
        if len(self.projection) == 1:
            vectors = rows @ self.projection[0]
            return vectors if self.mean is None else vectors + self.mean[0, 0]
        if fields is None:
            index = self.fields_of(ids)
            vectors = (rows.unsqueeze(-2) @ self.projection[index]).squeeze(-2)
            return vectors if self.mean is None else vectors + self.mean[index].squeeze(-2)
        return self._by_column(rows, fields)

    def _by_column(self, rows: Tensor, fields: Sequence[int]) -> Tensor:
        """`rows` [..., K, rank] of K columns, each times the projection of its field: [..., K, dim]."""
        projection: Tensor = self.projection
        mean: Tensor | None = self.mean
        if tuple(fields) != tuple(range(len(projection))):
            index = torch.tensor(fields, device=projection.device)
            projection, mean = projection[index], None if mean is None else mean[index]
        columns = rows.movedim(-2, 0)
        flat = columns if columns.dim() == 3 else columns.reshape(len(fields), -1, self.rank)
        vectors = torch.bmm(flat, projection)
        if mean is not None:
            vectors = vectors + mean
        if columns.dim() != 3:
            vectors = vectors.reshape(*columns.shape[:-1], self.dim)
        return vectors.movedim(0, -2)

    @torch.no_grad()
    def rows(self, start: int, stop: int) -> Tensor:
        inner = self.inner.rows(start, stop)
        vectors = inner.new_empty(len(inner), self.dim)
        bounds = self.bounds() if len(self.projection) > 1 else [(0, self.num_rows)]
        for field, (first, last) in enumerate(bounds):
            own = slice(max(first, start) - start, max(min(last, stop) - start, 0))
            vectors[own] = inner[own] @ self.projection[field]
            if self.mean is not None:
                vectors[own] += self.mean[field]
        return vectors

    @torch.no_grad()
    def take(self, vectors: Tensor) -> None:
        """Set the inner rows such that the table gives `vectors` [num_rows, dim], as near as the projections allow."""
        assert isinstance(self.inner, DenseTable)
        bounds = self.bounds() if len(self.projection) > 1 else [(0, self.num_rows)]
        for field, (first, last) in enumerate(bounds):
            offset = vectors[first:last] if self.mean is None else vectors[first:last] - self.mean[field]
            self.inner.weight[first:last] = offset @ torch.linalg.pinv(self.projection[field])

    def pack(self) -> Table:
        if self.merges:
            return self.merged()
        inner = self.inner.pack()
        if inner is self.inner:
            return self
        mean = None if self.mean is None else self.mean.detach().clone()
        return LowRankTable(inner, self.projection.detach().clone(), mean)

    def merged(self) -> DenseTable:
        """Plain rows of `dim` numbers, the products of rows and projections."""
        sparse = isinstance(self.inner, DenseTable) and self.inner.sparse
        return DenseTable(self.rows(0, self.num_rows), self.starts, sparse=sparse)

    @property
    def nbytes(self) -> int:
        if self.merges:
            return self.num_rows * self.dim * 4
        return self.inner.nbytes + 4 * (self.projection.numel() + (0 if self.mean is None else self.mean.numel()))


def wide(weight: Tensor, starts: Tensor, rank: int, *, sparse: bool = False) -> LowRankTable:
    """A table to be trained that gives `weight` [num_rows, dim], with inner rows of `rank` numbers, dim or more.

    Its projection, one for all fields, is random with orthonormal columns times sqrt(dim / rank), so that the numbers
    of the inner rows are as large as those of the vectors.
    """
    draws = torch.randn(rank, weight.shape[1], device=weight.device)
    projection = torch.linalg.qr(draws).Q * (weight.shape[1] / rank) ** 0.5
    rows = DenseTable(weight.new_zeros(len(weight), rank), starts, sparse=sparse)
    table = LowRankTable(rows, projection.unsqueeze(0))
    table.take(weight)
    return table


def from_spectra(weight: Tensor, starts: Tensor, spectra: Sequence[Spectrum], rank: int, inner: Config) -> LowRankTable:
    """The low-rank table over `weight` [num_rows, dim]: the first `rank` components of each field, or of all rows.

    There is a mean row where one of the spectra is centred.
    """
    rows = weight.new_empty(len(weight), rank)
    bounds = bounds_of(starts, len(weight)) if len(spectra) > 1 else [(0, len(weight))]
    for (first, last), found in zip(bounds, spectra, strict=True):
        project(weight[first:last], found.mean, found.basis[:rank], out=rows[first:last])
    projection = torch.stack([found.basis[:rank] for found in spectra]).to(weight.device, torch.float32)
    mean = torch.stack([found.mean for found in spectra]).to(weight.device, torch.float32).unsqueeze(1)
    table: Table = runner("table", inner)(inner, rows, starts)
    return LowRankTable(table, projection, mean if bool(mean.any()) else None)


def bounds_of(starts: Tensor, num_rows: int) -> list[tuple[int, int]]:
    """First row, and the row after the last, of every field."""
    return list(pairwise([*starts.tolist(), num_rows]))


def cut_rows(num_rows: int, bands: Sequence[tuple[int, int]], rank: int) -> list[tuple[int, int, int]]:
    """(first row, row after the last, rank) of the bands of a field with `num_rows` rows, those without rows left out.

    >>> cut_rows(100, bands=[(20, 8), (30, 4)], rank=2)
    [(0, 20, 8), (20, 50, 4), (50, 100, 2)]
    """
    found, first = [], 0
    for rows, own in (*bands, (num_rows, rank)):
        last = min(first + rows, num_rows)
        if first < last:
            found.append((first, last, own))
        first = last
    return found


def banded(weight: Tensor, bands: Sequence[tuple[int, int, int, Spectrum]], inner: Config) -> Table:
    """One field's table over `weight` [rows, dim], of bands (first row, row after the last, rank, spectrum).

    A band of full rank keeps its rows as they are. A field without rows is dense.
    """
    if not bands:
        return DenseTable(weight)
    parts: list[Table] = []
    for first, last, rank, found in bands:
        rows, start = weight[first:last], torch.zeros(1, dtype=torch.int64, device=weight.device)
        whole = rank >= weight.shape[1]
        parts.append(
            runner("table", inner)(inner, rows.clone(), start)
            if whole
            else from_spectra(rows, start, [found], rank, inner)
        )
    return parts[0] if len(parts) == 1 else BandedTable(parts)


@register("table", LowRank)
def low_rank(config: LowRank, weight: Tensor, starts: Tensor | None = None, counts: Tensor | None = None) -> Table:
    """A low-rank table over `weight` [num_rows, dim], which is not copied; rows count by `counts` where given.

    Of the rank given no other rows and projections have a smaller (weighted) squared error. Dense rows of full rank are
    the dense table.

    Raises:
        InputError: there are no rows, a value is NaN or infinite, bands are of a projection per table or end wider than
            they begin, or the inner kind does not take rows of that rank.
    """
    check_rows(weight)
    weight = weight.detach().to(torch.float32)
    starts = one_field(weight) if starts is None else starts
    if config.bands:
        return _of_bands(config, weight, starts, counts)
    if config.rank == weight.shape[1] and isinstance(config.inner, Dense):
        return DenseTable(weight, starts)
    bounds = bounds_of(starts, len(weight)) if config.projection == "field" else [(0, len(weight))]
    spectra = [_spectrum(config, weight, counts, first, last) for first, last in bounds]
    if config.rank <= weight.shape[1]:
        return from_spectra(weight, starts, spectra, config.rank, config.inner)
    if not isinstance(config.inner, Dense):
        raise InputError(f"rank {config.rank} is beyond the {weight.shape[1]} dimensions: train it with dense rows")
    return wide(weight, starts, config.rank)


def _of_bands(config: LowRank, weight: Tensor, starts: Tensor, counts: Tensor | None) -> Table:
    ranks = [rank for _, rank in config.bands] + [config.rank]
    if config.projection == "table" or ranks != sorted(ranks, reverse=True):
        raise InputError(f"bands need projection 'field' and ranks that fall, got {config.projection!r} and {ranks}")
    tables = []
    for start, stop in bounds_of(starts, len(weight)):
        bands = [
            (first, last, rank, _spectrum(config, weight, counts, start + first, start + last))
            for first, last, rank in cut_rows(stop - start, config.bands, config.rank)
        ]
        tables.append(banded(weight[start:stop], bands, config.inner))
    return stacked(tables)


def _spectrum(config: LowRank, weight: Tensor, counts: Tensor | None, first: int, last: int) -> Spectrum:
    if first == last:  # a field without rows has any directions
        none = weight.new_zeros(weight.shape[1], dtype=torch.float64, device="cpu")
        return Spectrum(none, torch.diag(none + 1.0), none)
    weights = None if counts is None else counts[first:last]
    return spectrum(weight[first:last], weights, centred=config.centred)
