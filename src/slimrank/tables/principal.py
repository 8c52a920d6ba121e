"""Principal components of the rows of a table: which directions the vectors that a model looks up spread along.

With rows X [N, dim], weights w [N] of how often each is looked up, and their mean m (or m = 0), the covariance
C = sum_n w_n (x_n - m)(x_n - m)^T has eigenvectors B, one a row, with eigenvalues e, falling. Of all vectors
m + z P with z [rank] of the row's own and P [rank, dim] shared, z = (x - m) P^T with P the first `rank` rows of B has
the least weighted squared error (Eckart and Young 1936), and that is the sum of the other eigenvalues. Rows are worked
on a chunk at a time, in double precision. Left out: where the components go; that is the low-rank table's work.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from slimrank.config import InputError

CHUNK = 1 << 18  # values worked on at a time: a chunk and its double fit the cache


class Spectrum(NamedTuple):
    """Principal components of rows: all directions, so that any rank up to dim can be cut from it.

    `mean` [dim], `basis` [dim, dim] with orthonormal rows, `energy` [dim], falling: the weighted sum of squares along
    each. All float64, on the CPU.
    """

    mean: Tensor
    basis: Tensor
    energy: Tensor

    def lost(self, rank: int) -> float:
        """The weighted squared error of the best vectors of `rank` numbers."""
        return float(self.energy[rank:].sum())

    def rank_that_keeps(self, share: float) -> int:
        """The least rank, from 1, that keeps `share` of the energy."""
        return rank_that_keeps(self.energy, share)


def rank_that_keeps(energy: Tensor, share: float) -> int:
    """The least rank, from 1, whose first entries of `energy` [dim] make up `share` of their sum.

    >>> rank_that_keeps(torch.tensor([6.0, 3.0, 1.0]), share=0.9)
    2
    """
    if not bool(energy.any()):
        return 1
    kept = energy.cumsum(0) / energy.sum()
    return min(int((kept < share - 1e-12).sum()) + 1, len(energy))


def spectrum(rows: Tensor, weights: Tensor | None = None, *, centred: bool = False) -> Spectrum:
    """The principal components of `rows` [N, dim] float32, each counting by `weights` [N], or all alike.

    Uncentred, directions go through zero, and a row of zeros is represented exactly. Weights that are all 0 count as
    none.

    Raises:
        InputError: there are no rows, or a value is NaN or infinite.
    """
    if not rows.numel():
        raise InputError("the table has no rows")
    if weights is not None and not bool(weights.any()):
        weights = None
    mean = _mean(rows, weights) if centred else torch.zeros(rows.shape[1], dtype=torch.float64)
    covariance = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for chunk, weight in _chunks(rows, weights):
        offset = chunk - mean
        covariance += (offset * weight).T @ offset
    if not bool(torch.isfinite(covariance).all()):
        raise InputError("the table holds NaN or infinite values: they have no principal components")
    energy, directions = torch.linalg.eigh(covariance)
    return Spectrum(mean, directions.T.flip(0).contiguous(), energy.flip(0).clamp(min=0.0))


def project(rows: Tensor, mean: Tensor, projection: Tensor, out: Tensor | None = None) -> Tensor:
    """(rows - mean) P^T as float32 [N, rank], of `rows` [N, dim] and P [rank, dim]; written to `out` where given."""
    projected = rows.new_empty(len(rows), len(projection)) if out is None else out
    first = 0
    for chunk, _ in _chunks(rows, None):
        projected[first : first + len(chunk)] = ((chunk - mean) @ projection.T).to(projected.dtype)
        first += len(chunk)
    return projected


def _mean(rows: Tensor, weights: Tensor | None) -> Tensor:
    total, count = torch.zeros(rows.shape[1], dtype=torch.float64), 0.0
    for chunk, weight in _chunks(rows, weights):
        total += (chunk * weight).sum(dim=0)
        count += float(weight.sum())
    return total / count


def _chunks(rows: Tensor, weights: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows [n, dim] and their weights [n, 1], a chunk at a time, both float64 on the CPU."""
    step = max(1, CHUNK // rows.shape[1])
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step].detach().cpu().double()
        weight = torch.ones(len(chunk)) if weights is None else weights[start : start + step].cpu()
        yield chunk, weight.double().unsqueeze(1)
