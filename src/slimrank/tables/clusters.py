"""k-means by faiss: the centres of vectors, each vector counting as much as it is met.

Left out: what centres are used for; codebooks and clustered tables do that.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import isqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from slimrank.indexing.faiss_library import PER_CENTRE, flat_index, k_means, load_faiss, one_thread

FLAT = 1024  # centres above this are found and searched in two levels: time grows with their square root
PER_CENTRE_OF_MANY, ROUNDS_OF_MANY, PROBES = 32, 6, 3
ROUNDS = 20
CHUNK = 1 << 20  # vectors assigned at a time


def centres(vectors: Tensor, count: int, weights: Tensor | None = None, seed: int = 0) -> Tensor:
    """`count` centres [count, dim] of `vectors` [n, dim] with the least weighted squared error that k-means finds.

    Where there are at most `count` distinct vectors among those looked at, these are the centres, exactly, and the
    rest are 0. Of more than `PER_CENTRE` vectors a centre, as many are drawn, by their `weights` [n]. More than `FLAT`
    centres are shared out among a few large clusters by their vectors, and each finds its own.
    """
    most = count * (PER_CENTRE if count <= FLAT else PER_CENTRE_OF_MANY)
    sample, weights = _sampled(vectors.detach().cpu().float(), weights, most, seed)
    return _found(sample, count, weights, seed, ROUNDS)


def _found(sample: Tensor, count: int, weights: Tensor | None, seed: int, rounds: int) -> Tensor:
    """The distinct vectors of `sample` where they are few enough, or else what k-means finds."""
    if len(torch.unique(sample[: 4 * count], dim=0)) <= count:
        distinct = torch.unique(sample, dim=0)
        if len(distinct) <= count:
            return torch.cat([distinct, distinct.new_zeros(count - len(distinct), sample.shape[1])])
    return _flat(sample, count, weights, seed, rounds) if count <= FLAT else _two_levels(sample, count, weights, seed)


def _two_levels(sample: Tensor, count: int, weights: Tensor | None, seed: int) -> Tensor:
    """Centres of the clusters around a few centres, as many for each as it has of the vectors: [count, dim].

    The clusters are shared out among torch's threads, one thread each, so that the result is the same with any number.
    """
    place = nearest(sample, _flat(sample, isqrt(count), weights, seed, ROUNDS))
    order, ends = place.argsort(stable=True), place.bincount(minlength=isqrt(count)).cumsum(0)
    shares = (ends * count // len(sample)).diff(prepend=ends[:1] * 0).tolist()

    def found(rows: Tensor, share: int) -> Tensor:
        mass = None if weights is None else weights[rows]
        return _found(sample[rows], share, mass, seed, ROUNDS_OF_MANY)

    cells = [(rows, share) for rows, share in zip(order.tensor_split(ends[:-1]), shares, strict=True) if share]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return torch.cat(list(pool.map(found, *zip(*cells, strict=True))))


def _flat(sample: Tensor, count: int, weights: Tensor | None, seed: int, rounds: int) -> Tensor:
    """k-means of the whole `sample`."""
    mass = None if weights is None else weights.numpy()
    return torch.from_numpy(k_means(sample.numpy(), count, mass, seed, rounds))


def nearest(vectors: Tensor, found: Tensor) -> Tensor:
    """The place of the nearest of the centres `found` [k, dim] for each of `vectors` [n, dim]: [n] int64.

    Of more than `FLAT` centres, the nearest of those in the `PROBES` closest cells of an inverted file.
    """
    values = np.ascontiguousarray(found.detach().cpu().numpy(), dtype=np.float32)
    index = _index(values)
    places = torch.empty(len(vectors), dtype=torch.int64)
    for start in range(0, len(vectors), CHUNK):
        part = vectors[start : start + CHUNK].detach().cpu().float().contiguous()
        places[start : start + len(part)] = torch.from_numpy(index.search(part.numpy(), 1)[1][:, 0])
    return places


def _index(values: NDArray[np.float32]) -> Any:
    """An index of faiss over centres: all of them, or an inverted file where they are many."""
    count, dim = values.shape
    if count <= FLAT:
        return flat_index(values)
    faiss = load_faiss("codebooks and clusters")
    with one_thread(faiss):
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, isqrt(count), faiss.METRIC_L2)
        index.cp.min_points_per_centroid = 1
        index.train(values)
        index.add(values)
    index.nprobe = PROBES
    return index


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
