"""Which shared row an id has: integer hashes of the place of an id in its field, and what is shared is fitted to it.

The first rows of a field (padding, out of vocabulary) are reserved: each has a row of its own. All others fall into
the field's buckets: id modulo buckets, so that of ids sorted by frequency the first ones meet none but rarer ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from slimrank.tables.integer import modulo

CHUNK = 1 << 18  # rows worked on at a time
TINY = 1e-30
PRIME = 2**31 - 1  # Mersenne: a product of two smaller numbers fits 63 bits


class Buckets(nn.Module):
    """Row `first` of the table of each field is its first without a row of its own; `size` buckets; `base` the first.

    All are [fields] int32; reserved rows lie before the buckets: row r is shared row r - first + base.
    """

    first: Tensor
    size: Tensor
    base: Tensor

    def __init__(self, starts: Tensor, reserved: Sequence[int], sizes: Sequence[int]):
        super().__init__()
        kept = torch.tensor(reserved, dtype=torch.int64, device=starts.device)
        size = torch.tensor(sizes, dtype=torch.int64, device=starts.device)
        self.counts = tuple(sizes)
        self.num_shared = int(kept.sum() + size.sum())
        self.register_buffer("first", (starts + kept).to(torch.int32))
        self.register_buffer("size", size.clamp(min=1).to(torch.int32))
        self.register_buffer("base", (torch.cumsum(kept + size, 0) - size).to(torch.int32))

    def forward(self, ids: Tensor, fields: Tensor) -> Tensor:
        """The shared row of every one of `ids` [...], of their type; `fields` int64 [...] or [columns]."""
        first, size, base = (each[fields].to(ids.dtype) for each in (self.first, self.size, self.base))
        local = ids - first
        return torch.where(local < 0, local, modulo(local, size)) + base

    @property
    def nbytes(self) -> int:
        """Bytes of the three numbers a field."""
        return 4 * (len(self.first) + len(self.size) + len(self.base))


class Sharing:
    """Rows `weight` [rows, dim], each of the importance `mass` [rows], and the bucket that each falls into.

    What stands alone in its bucket is kept bit for bit.
    """

    def __init__(self, weight: Tensor, mass: Tensor, starts: Tensor, buckets: Buckets):
        self.weight, self.mass, self.starts, self.buckets = weight, mass, starts, buckets
        self.size = buckets.num_shared

    def places(self, ids: Tensor) -> Tensor:
        """The shared row of `ids` [n] int64."""
        found: Tensor = self.buckets(ids, torch.bucketize(ids, self.starts[1:], right=True))
        return found

    def means(self, biases: Tensor | None = None) -> Tensor:
        """The weighted mean of the rows, less their `biases` [rows], of every bucket: [size, dim]."""
        total, mass = self.weight.new_zeros(self.size, self.weight.shape[1]), self.weight.new_zeros(self.size)
        for rows, places, values in self._chunks(biases):
            total.index_add_(0, places, values * self.mass[rows].unsqueeze(1))
            mass.index_add_(0, places, self.mass[rows])
        return self._alone(total.div_(mass.clamp(min=TINY).unsqueeze(1)), biases)

    def rank_one(self, rounds: int, *, bias: bool = False) -> tuple[Tensor, Tensor]:
        """Shared rows u [size, dim] and factors [rows, 1 or 2] with the least sum of mass |e - w u - b|^2.

        w and u are fitted in turn (alternating least squares), which turns u to the first singular vector of its
        bucket. A bias b is the mean of e over its dimensions, exact since then u has mean 0. Of each bucket the
        largest |w| is that of w = -1; rows without buckets have w = -1 and b = 0.
        """
        biases = self._biases() if bias else None
        shared = self._first_members(biases)
        for _ in range(rounds):
            above, below = torch.zeros_like(shared), shared.new_zeros(self.size)
            for rows, places, values in self._chunks(biases):
                weights = _projections(values, shared[places])
                above.index_add_(0, places, values * (weights * self.mass[rows]).unsqueeze(1))
                below.index_add_(0, places, weights.square() * self.mass[rows])
            shared = torch.where(below.unsqueeze(1) > 0, above / below.clamp(min=TINY).unsqueeze(1), shared)
        shared = self._alone(shared, biases)
        weights = torch.empty_like(self.mass)
        for rows, places, values in self._chunks(biases):
            weights[rows] = _projections(values, shared[places])
        shared, weights = self._normalised(shared, weights)
        return shared, weights.unsqueeze(1) if biases is None else torch.stack([weights, biases], dim=1)

    def _chunks(self, biases: Tensor | None) -> Iterator[tuple[slice, Tensor, Tensor]]:
        for rows, ids in chunks(len(self.weight), self.weight.device):
            values = self.weight[rows]
            yield rows, self.places(ids), values if biases is None else values - biases[rows].unsqueeze(1)

    def _biases(self) -> Tensor:
        """The mean of every row, 0 for the reserved ones."""
        biases = self.weight.mean(dim=1)
        for start, first in zip(self.starts.tolist(), self.buckets.first.tolist(), strict=True):
            biases[start:first] = 0.0
        return biases

    def _first_members(self, biases: Tensor | None) -> Tensor:
        """The first row of every bucket, of ids sorted by frequency the most frequent one; the mean where it is 0."""
        shared = self.means(biases)
        fields = zip(self.starts.tolist(), self.buckets.first.tolist(), self.buckets.base.tolist(), strict=True)
        for (start, first, base), count in zip(fields, self.buckets.counts, strict=True):
            own = shared[base + start - first : base + count]
            stop = start + len(own)
            rows = self.weight[start:stop]
            rows = rows if biases is None else rows - biases[start:stop].unsqueeze(1)
            own.copy_(torch.where(rows.abs().amax(dim=1, keepdim=True) > 0, rows, own))
        return shared

    def _alone(self, shared: Tensor, biases: Tensor | None) -> Tensor:
        """`shared` with the rows as they are of buckets of one."""
        members = torch.zeros(self.size, dtype=torch.int32, device=shared.device)
        for _, places, _ in self._chunks(None):
            members.index_add_(0, places, torch.ones_like(places, dtype=torch.int32))
        for _, places, values in self._chunks(biases):
            alone = members[places] == 1
            shared[places[alone]] = values[alone]
        return shared

    def _normalised(self, shared: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        high, low = shared.new_zeros(self.size), shared.new_zeros(self.size)
        for rows, places, _ in self._chunks(None):
            high.scatter_reduce_(0, places, weights[rows], "amax")
            low.scatter_reduce_(0, places, weights[rows], "amin")
        largest = torch.where(high >= -low, -high, -low)
        largest = torch.where(largest == 0, -torch.ones_like(largest), largest)
        for rows, places, _ in self._chunks(None):
            weights[rows] /= largest[places]
        return shared * largest.unsqueeze(1), weights


def _projections(values: Tensor, shared: Tensor) -> Tensor:
    """w of the least |values - w shared|^2 of every row; 1 where `shared` is 0."""
    norms = shared.square().sum(dim=1)
    return torch.where(norms > 0, (values * shared).sum(dim=1) / norms.clamp(min=TINY), torch.ones_like(norms))


def universal(generator: torch.Generator, count: int) -> Tensor:
    """`count` random pairs (a, b) [count, 2] int64 of hashes (a x + b) mod PRIME (Carter and Wegman 1979)."""
    factors = torch.randint(1, PRIME, (count, 1), generator=generator)
    return torch.cat([factors, torch.randint(0, PRIME, (count, 1), generator=generator)], dim=1)


def chunks(rows: int, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Ranges of rows, each with its ids int64."""
    for start in range(0, rows, CHUNK):
        stop = min(start + CHUNK, rows)
        yield slice(start, stop), torch.arange(start, stop, device=device)


def collisions(shared: Tensor, counts: Tensor | None, num_shared: int) -> tuple[float, float]:
    """The share of ids, and of the traffic `counts` [ids], whose row `shared` [ids] is that of another id as well.

    >>> collisions(torch.tensor([0, 1, 1, 2]), torch.tensor([1.0, 2.0, 3.0, 4.0]), 3)
    (0.5, 0.5)
    """
    if not len(shared):
        return 0.0, 0.0
    met = torch.bincount(shared, minlength=num_shared)[shared] > 1
    traffic = met.to(torch.float32) if counts is None else met * counts
    total = float(len(shared)) if counts is None else float(counts.sum())
    return float(met.float().mean()), float(traffic.sum()) / max(total, 1.0)


def expected_collisions(ids: int, buckets: int) -> float:
    """The share of `ids` that meet another one where each falls into one of `buckets` at random: 1 - (1 - 1/m)^(n-1).

    >>> expected_collisions(2, 4), expected_collisions(1, 4)
    (0.25, 0.0)
    """
    return 1.0 - (1.0 - 1.0 / max(buckets, 1)) ** max(ids - 1, 0)


def bounds_of(starts: Tensor, rows: int) -> list[tuple[int, int]]:
    """First row, and the row after the last, of every field."""
    return list(pairwise([*starts.tolist(), rows]))
