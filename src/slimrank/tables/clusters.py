"""k-means by faiss: the centres of vectors, each vector counting as much as it is met.

Left out: what centres are used for; codebooks and clustered tables do that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimrank.config import InputError

PER_CENTRE = 256  # vectors looked at for every centre, as faiss advises
ROUNDS = 20
CHUNK = 1 << 20  # vectors assigned at a time


def centres(vectors: Tensor, count: int, weights: Tensor | None = None, seed: int = 0) -> Tensor:
    """`count` centres [count, dim] of `vectors` [n, dim] with the least weighted squared error that k-means finds.

    Where there are at most `count` distinct vectors these are the centres, exactly, and the rest are 0. Of more than
    `PER_CENTRE` vectors a centre, as many are drawn, by their `weights` [n].
    """
    sample, weights = _sampled(vectors.detach().cpu().float(), weights, count * PER_CENTRE, seed)
    distinct = torch.unique(sample, dim=0)
    if len(distinct) <= count and len(sample) == len(vectors):
        return torch.cat([distinct, distinct.new_zeros(count - len(distinct), vectors.shape[1])])
    faiss = load_faiss()
    with _one_thread(faiss):
        means = faiss.Kmeans(
            vectors.shape[1],
            count,
            niter=ROUNDS,
            seed=seed + 1,
            min_points_per_centroid=1,
            max_points_per_centroid=2 * PER_CENTRE,
        )
        means.train(np.ascontiguousarray(sample.numpy()), weights=None if weights is None else weights.numpy())
    return torch.from_numpy(means.centroids.copy())


def nearest(vectors: Tensor, found: Tensor) -> Tensor:
    """The place of the nearest of the centres `found` [k, dim] for each of `vectors` [n, dim]: [n] int64."""
    places = torch.empty(len(vectors), dtype=torch.int64)
    half = found.square().sum(dim=1) / 2
    for start in range(0, len(vectors), CHUNK // 8):
        part = vectors[start : start + CHUNK // 8].detach().cpu().float()
        places[start : start + len(part)] = torch.addmm(half, part, found.T, alpha=-1.0).argmin(dim=1)
    return places


def _sampled(vectors: Tensor, weights: Tensor | None, most: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """At most `most` vectors, drawn by their weights and then all alike; without weights where all are alike."""
    if weights is not None:
        weights = weights.detach().cpu().float().clamp(min=0.01)  # what was never met counts, but hardly
    if len(vectors) <= most:
        return vectors, weights
    generator = np.random.default_rng(seed)
    share = None if weights is None else weights.double().numpy() / float(weights.double().sum())
    chosen = generator.choice(len(vectors), most, replace=share is not None, p=share)
    return vectors[torch.from_numpy(chosen)], None


def load_faiss() -> Any:
    """faiss, which only these kinds of tables need.

    Raises:
        InputError: it is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError:
        raise InputError('codebooks and clusters need faiss: pip install "slimrank[train]"') from None
    return faiss


class _one_thread:
    """faiss on one thread: its result does not depend on how many there are, and torch's threads are left alone."""

    def __init__(self, faiss: Any):
        self.faiss = faiss

    def __enter__(self) -> None:
        self.before = self.faiss.omp_get_max_threads()
        self.faiss.omp_set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        self.faiss.omp_set_num_threads(self.before)
