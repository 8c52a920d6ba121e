"""The table of shared rows: ids of a field share the rows of fewer buckets, for 30x and beyond.

    plain      e(id) = U[h(id)]                          the baseline: ids of a bucket are one
    weighted   e(id) = w(id) U[h(id)] + b(id)            MEmCom (Pansare et al. 2022, arXiv 2203.10135): a byte or two
                                                         an id tell the ids of a bucket apart; b where asked
    clustered  e(id) = [.. T_j[p_j(id)] + S_j[g_j(id)] ..]   CCE (Tsang and Ahle 2023, arXiv 2210.05974)

h is id modulo buckets, inside the field. Padding and out-of-vocabulary have rows of their own. Made from trained rows:
the shared row of a bucket is the best one in squared error, weighted by how often its ids are met. The shared rows are
a table of any kind, so they can be integers. Left out: tables of `clustered` (in `clustered.py`), and the choice of the
number of buckets, which is a step's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn
from torch.nn import functional

from slimrank.config import Config, register, resolver, runner
from slimrank.tables.affine import fake_quantize, quantize
from slimrank.tables.buckets import TINY, Buckets, Sharing, bounds_of
from slimrank.tables.clustered import cluster
from slimrank.tables.codes import Codes
from slimrank.tables.dense import Dense
from slimrank.tables.table import Table, check_rows, gather_rows, one_field

ROUNDS = 16  # of the alternation that fits shared rows and weights
STORED = {8: torch.int8, 16: torch.int16}


class Hashing(Config):
    """How ids share rows.

    `buckets` is per field; of `clustered` it is the rows of each of the two tables of a chunk, and an id has
    log2(buckets) bits a chunk. `weight_bits` and `bias` are those of `weighted`.
    """

    method: Literal["weighted", "clustered", "plain"] = "weighted"
    weight_bits: Literal[8, 16] = 8
    bias: bool = False
    chunks: int = Field(default=1, ge=1)
    inner: Annotated[SerializeAsAny[Config], resolver("table")] = Dense()


class Hashed(Hashing):
    """Rows shared by ids of a field: weighted (MEmCom), clustered (CCE) or plain hashing."""

    name: Literal["hashed"] = "hashed"
    buckets: int = Field(default=256, ge=1)


class HashedTable(Table):
    """Trainable form of plain and weighted hashing over the shared rows `inner`.

    `factors` [num_rows, 1 or 2] float32 are the weight and, where asked, the bias of every id, rounded as they are read
    to `bits` with one scale per field, kept as its logarithm to base 2 [fields * (1 or 2)]; None of plain hashing.
    """

    inner: Table

    def __init__(self, inner: Table, buckets: Buckets, num_rows: int, starts: Tensor):
        super().__init__(num_rows, inner.dim, starts)
        self.inner = inner
        self.buckets = buckets
        self.factors: nn.Parameter | None = None
        self.log2_scale: nn.Parameter | None = None
        self.bits = 0

    def weigh(self, factors: Tensor, log2_scale: Tensor, bits: int) -> None:
        """Give every id its own factors."""
        self.factors, self.log2_scale, self.bits = nn.Parameter(factors), nn.Parameter(log2_scale), bits

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        vectors = shared_rows(self, ids, fields)
        if self.factors is None:
            return vectors
        factors = gather_rows(self.factors, ids, sparse=self.sparse)
        scale = self.per_column(self.scale, ids, fields)
        return weighted(vectors, fake_quantize(factors, scale, factor_codes(self.bits)))

    def steps(self, fields: Sequence[int]) -> Tensor | None:
        return self.inner.steps(fields) if self.factors is None else None

    def sparse_parameters(self) -> list[nn.Parameter]:
        return [self.factors] if self.sparse and self.factors is not None else []

    @property
    def scale(self) -> Tensor:
        """The step of every factor of every field: [fields, 1 or 2] float32."""
        assert self.log2_scale is not None
        return torch.exp2(self.log2_scale).view(len(self.starts), -1)

    def pack(self) -> Table:
        return PackedHashedTable(self)

    @property
    def nbytes(self) -> int:
        own = 0 if self.factors is None else self.factors.numel() * self.bits // 8 + 4 * self.scale.numel()
        return self.inner.nbytes + self.buckets.nbytes + own


class PackedHashedTable(Table):
    """Packed form: `codes` [num_rows, 1 or 2] of 8 or 16 bits, `scale` [fields, 1 or 2], over a packed table."""

    inner: Table
    codes: Tensor | None
    scale: Tensor | None

    def __init__(self, source: HashedTable):
        super().__init__(source.num_rows, source.dim, source.starts)
        self.inner = source.inner.pack()
        self.buckets = source.buckets
        weighed = source.factors is not None
        self.register_buffer("codes", packed_factors(source) if weighed else None)
        self.register_buffer("scale", source.scale.detach().clone() if weighed else None)

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        vectors = shared_rows(self, ids, fields)
        if self.codes is None or self.scale is None:
            return vectors
        factors = functional.embedding(ids, self.codes).to(torch.float32)
        return weighted(vectors, factors * self.per_column(self.scale, ids, fields))

    def steps(self, fields: Sequence[int]) -> Tensor | None:
        return self.inner.steps(fields) if self.codes is None else None

    def pack(self) -> Table:
        return self

    @property
    def nbytes(self) -> int:
        own = [each for each in (self.codes, self.scale) if each is not None]
        return self.inner.nbytes + self.buckets.nbytes + sum(each.numel() * each.element_size() for each in own)


def shared_rows(table: HashedTable | PackedHashedTable, ids: Tensor, fields: Sequence[int] | None) -> Tensor:
    """The vectors [..., dim] that `ids` [...] share with others."""
    index = table.fields_of(ids) if fields is None else torch.tensor(fields, device=ids.device)
    vectors: Tensor = table.inner(table.buckets(ids, index), fields)
    return vectors


def weighted(vectors: Tensor, factors: Tensor) -> Tensor:
    """factors[..., 0] * vectors, plus factors[..., 1] where there are two."""
    scaled = vectors * factors[..., :1]
    return scaled + factors[..., 1:] if factors.shape[-1] == 2 else scaled


def packed_factors(table: HashedTable) -> Tensor:
    """The factors as integers, [num_rows, 1 or 2]."""
    assert table.factors is not None
    codes = torch.empty(table.factors.shape, dtype=STORED[table.bits], device=table.factors.device)
    for field, (first, last) in enumerate(table.bounds()):
        values = table.factors.detach()[first:last]
        codes[first:last] = quantize(values, table.scale.detach()[field], factor_codes(table.bits)).to(codes.dtype)
    return codes


@register("table", Hashed)
def hashed(config: Hashed, weight: Tensor, starts: Tensor | None = None) -> Table:
    """A hashed table in its trainable form, fitted to `weight` [num_rows, dim]; row 0 of a field is its own.

    Raises:
        InputError: there are no rows, a value is NaN or infinite, or the dimension does not divide by `chunks`.
    """
    check_rows(weight)
    starts = one_field(weight) if starts is None else starts
    bounds = bounds_of(starts, len(weight))
    reserved = [min(1, last - first) for first, last in bounds]
    sizes = [min(config.buckets, last - first - own) for (first, last), own in zip(bounds, reserved, strict=True)]
    return hash_rows(config, weight.detach().to(torch.float32), starts, reserved, sizes)


@torch.no_grad()
def hash_rows(
    config: Hashing,
    weight: Tensor,
    starts: Tensor,
    reserved: Sequence[int],
    sizes: Sequence[int],
    counts: Tensor | None = None,
    seed: int = 0,
) -> Table:
    """The table whose fields have `sizes` buckets and `reserved` rows of their own, fitted to `weight`.

    `counts` [rows] is how often training met each row: what is met often counts as much more.
    """
    mass = torch.ones(len(weight), device=weight.device) if counts is None else counts.clamp(min=0.01)
    if config.method == "clustered":
        return cluster(config, weight, starts, reserved, sizes, mass, seed)
    buckets = Buckets(starts, reserved, sizes)
    rows = Sharing(weight, mass, starts, buckets)
    inner_starts = buckets.base.long() - torch.tensor(reserved, device=starts.device)
    if config.method == "plain":
        shared: Tensor = rows.means()
        factors = None
    else:
        shared, factors = rows.rank_one(ROUNDS, bias=config.bias)
    inner: Table = runner("table", config.inner)(config.inner, shared, inner_starts)
    table = HashedTable(inner, buckets, len(weight), starts)
    if factors is not None:
        table.weigh(factors, log2_scales(factors, table.bounds(), config.weight_bits), config.weight_bits)
    return table


def log2_scales(factors: Tensor, bounds: Sequence[tuple[int, int]], bits: int) -> Tensor:
    """Powers of 2, so that -1 is exact, which span the factors of a field: their exponents [fields * 1 or 2].

    The largest weight of a bucket is -1, so that of 8 bits all are used: there is one code more below 0 than above.
    """
    none = factors.new_zeros(1, factors.shape[1])  # what a field without rows has
    largest = torch.stack([torch.cat([none, factors[first:last].abs()]).amax(dim=0) for first, last in bounds])
    exponents = torch.ceil(torch.log2(largest.clamp(min=TINY) / -factor_codes(bits).low))
    return torch.where(largest > 0, exponents, torch.full_like(exponents, 1.0 - bits)).flatten()


def factor_codes(bits: int) -> Codes:
    """Signed integers of `bits`: what factors are stored as.

    >>> factor_codes(8)
    Codes(low=-128, high=127, zero_point=0)
    """
    return Codes(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0)
