"""Clustered compositional embeddings: an id's vector is put together of rows that it shares with ids like it.

    e(id) = [T_1[p_1(id)] + S_1[g_1(id)], ..., T_c[p_c(id)] + S_c[g_c(id)]]

Each of the c chunks of a vector is the centre of its cluster plus a row of a second, hashed table, which holds what
ids of a cluster differ in. p is stored, log2(clusters) bits an id and chunk; g is a random hash. CCE (Tsang and Ahle
2023, arXiv 2210.05974), made from trained rows as at the end of one of its rounds of clustering. Left out: clustering
again while training goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from slimrank.config import Config, InputError, runner
from slimrank.tables.bits import pack_bits, read_bits, span
from slimrank.tables.buckets import PRIME, TINY, bounds_of, chunks, universal
from slimrank.tables.clusters import centres, nearest
from slimrank.tables.integer import modulo
from slimrank.tables.table import Table

ROUNDS = 3  # of fitting centres and hashed rows in turn


class Clustering(Protocol):
    """What is asked of the settings."""

    chunks: int
    inner: Config


class ClusteredTable(Table):
    """Both forms: `inner` [shared rows, dim / chunks] holds centres and hashed rows and is trained, or is packed.

    Shared rows of a field: for each reserved row its chunks and as many rows of zeros; then the centres of chunk 1, of
    chunk 2, ...; then the hashed rows of chunk 1, 2, ... `pointers` holds the clusters, `bits` [fields] for each chunk.
    """

    pointers: Tensor
    first: Tensor
    bit: Tensor
    size: Tensor
    base: Tensor
    hashes: Tensor

    inner: Table

    def __init__(self, inner: Table, pointers: Tensor, parts: Parts, hashes: Tensor, num_rows: int, starts: Tensor):
        super().__init__(num_rows, inner.dim * parts.chunks, starts)
        self.inner = inner
        self.parts = parts
        self.register_buffer("pointers", pointers)
        self.register_buffer("hashes", hashes)
        numbers = {
            "first": starts + torch.tensor(parts.reserved, device=starts.device),
            "bit": torch.tensor(parts.first_bits, device=starts.device),
            "size": torch.tensor([1 << bits for bits in parts.bits], device=starts.device),
            "base": torch.tensor(parts.bases, device=starts.device),
        }
        for name, values in numbers.items():
            self.register_buffer(name, values.unsqueeze(1), persistent=False)

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        index = self.fields_of(ids) if fields is None else torch.tensor(fields, device=ids.device)
        both: Tensor = self.inner(self._places(ids.to(torch.int64).unsqueeze(-1), index))
        half = self.parts.chunks
        return (both[..., :half, :] + both[..., half:, :]).flatten(-2)

    def _places(self, ids: Tensor, index: Tensor) -> Tensor:
        """The shared rows of `ids` [..., 1]: [..., 2 * chunks], centres first."""
        first, bit, size, base = (each[index] for each in (self.first, self.bit, self.size, self.base))
        chunk = torch.arange(self.parts.chunks, device=ids.device)
        local = ids - first
        exact = local < 0
        own = local.clamp(min=0)
        width = torch.tensor(self.parts.bits, device=ids.device).unsqueeze(1)[index]
        cluster = read_bits(self.pointers, bit + (own * self.parts.chunks + chunk) * width, size, self.parts.span)
        hashed = modulo(modulo(own * self.hashes[:, 0] + self.hashes[:, 1], PRIME), size)
        shared = torch.cat([chunk * size + cluster, (self.parts.chunks + chunk) * size + hashed], dim=-1)
        twice = torch.arange(2 * self.parts.chunks, device=ids.device)
        return base + torch.where(exact, local * (2 * self.parts.chunks) + twice, shared)

    def pack(self) -> ClusteredTable:
        packed = self.inner.pack()
        if packed is self.inner:
            return self
        return ClusteredTable(packed, self.pointers, self.parts, self.hashes, self.num_rows, self.starts)

    @property
    def nbytes(self) -> int:
        numbers = 8 * (5 * len(self.starts) + self.hashes.numel())
        return self.inner.nbytes + self.pointers.numel() + numbers


class Parts:
    """Where everything of a clustered table stands: `bits` a pointer and `reserved` rows of each field."""

    def __init__(self, chunks: int, reserved: Sequence[int], bits: Sequence[int], rows: Sequence[int]):
        self.chunks, self.reserved, self.bits = chunks, tuple(reserved), tuple(bits)
        hashed = [count - kept for count, kept in zip(rows, reserved, strict=True)]
        lengths = [count * chunks * width for count, width in zip(hashed, bits, strict=True)]
        self.first_bits = [8 * byte for byte in accumulate((-(-bits // 8) for bits in lengths), initial=0)][:-1]
        self.span = max(span(width) for width in bits)
        shared = [2 * chunks * (kept + (1 << width)) for kept, width in zip(reserved, bits, strict=True)]
        ends = list(accumulate(shared, initial=0))
        self.num_shared = ends[-1]
        self.bases = [end + 2 * chunks * kept for end, kept in zip(ends, reserved, strict=False)]


def bytes_beside_shared(parts: Parts, rows: Sequence[int]) -> int:
    """Packed bytes of fields of so many `rows` but for the shared ones: clusters of ids, numbers of fields, hashes."""
    ids = [count - kept for count, kept in zip(rows, parts.reserved, strict=True)]
    pointers = [-(-count * parts.chunks * bits // 8) for count, bits in zip(ids, parts.bits, strict=True)]
    return sum(pointers) + parts.span + 8 * (5 * len(rows) + 2 * parts.chunks)


def cluster(
    config: Clustering,
    weight: Tensor,
    starts: Tensor,
    reserved: Sequence[int],
    sizes: Sequence[int],
    mass: Tensor,
    seed: int = 0,
) -> ClusteredTable:
    """The table over `weight` [rows, dim] with, for each field, the largest power of 2 up to `sizes` of clusters.

    Raises:
        InputError: the dimension does not divide by the number of chunks.
    """
    if weight.shape[1] % config.chunks:
        raise InputError(f"dimension {weight.shape[1]} does not divide into {config.chunks} chunks")
    bounds = bounds_of(starts, len(weight))
    bits = [max(size, 1).bit_length() - 1 for size in sizes]
    parts = Parts(config.chunks, reserved, bits, [last - first for first, last in bounds])
    hashes = universal(torch.Generator().manual_seed(seed), config.chunks).to(weight.device)
    shared = weight.new_zeros(parts.num_shared, weight.shape[1] // config.chunks)
    pointers = []
    for field, (first, last) in enumerate(bounds):
        rows = weight[first:last].view(last - first, config.chunks, shared.shape[1])
        own = slice(first + reserved[field], last)
        begin = parts.bases[field] - 2 * config.chunks * reserved[field]
        block = shared[begin : begin + 2 * config.chunks * (reserved[field] + (1 << bits[field]))]
        places = _fit(rows, mass[own], reserved[field], 1 << bits[field], hashes, block)
        pointers.append(pack_bits(places.flatten(), bits[field]) if bits[field] else torch.zeros(0, dtype=torch.uint8))
    packed = torch.cat([*pointers, torch.zeros(parts.span, dtype=torch.uint8)]).unsqueeze(1).to(weight.device)
    inner: Table = runner("table", config.inner)(config.inner, shared, None)
    return ClusteredTable(inner, packed, parts, hashes, len(weight), starts)


def _fit(rows: Tensor, mass: Tensor, reserved: int, size: int, hashes: Tensor, block: Tensor) -> Tensor:
    """Fill the shared rows `block` of one field with `rows` [n, chunks, width]; the clusters [n - reserved, chunks]."""
    count = rows.shape[1]
    for row in range(reserved):
        block[2 * count * row : 2 * count * row + count] = rows[row]
    tables = block[2 * count * reserved :].view(2, count, size, -1)
    found = torch.zeros(len(rows) - reserved, count, dtype=torch.int64)
    ids = torch.arange(len(found), device=rows.device)
    for chunk in range(count):
        values = rows[reserved:, chunk]
        if not len(values):
            continue
        hashed = (ids * hashes[chunk, 0] + hashes[chunk, 1]) % PRIME % size
        centre = centres(values, size, mass, seed=chunk).to(rows.device)
        place = nearest(values, centre.cpu()).to(rows.device)
        tables[0, chunk] = centre
        for _ in range(ROUNDS):
            tables[1, chunk] = _means(values, hashed, mass, size, tables[0, chunk], place)
            tables[0, chunk] = _means(values, place, mass, size, tables[1, chunk], hashed)
        found[:, chunk] = place.cpu()
    return found


def _means(values: Tensor, place: Tensor, mass: Tensor, size: int, other: Tensor, at: Tensor) -> Tensor:
    """The weighted means [size, width] of what `other` at `at` leaves of `values`, by `place`."""
    total, weight = values.new_zeros(size, values.shape[1]), values.new_zeros(size)
    for rows, _ in chunks(len(values), values.device):
        left = values[rows] - functional.embedding(at[rows], other)
        total.index_add_(0, place[rows], left * mass[rows].unsqueeze(1))
        weight.index_add_(0, place[rows], mass[rows])
    return total / weight.clamp(min=TINY).unsqueeze(1)
