"""faiss, which the base install does not have: imported when it is needed, and kept to one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError

PER_CENTRE = 256  # vectors that k-means looks at for each of its centres, as faiss advises
Floats = NDArray[np.float32]


def load_faiss(what: str) -> Any:
    """faiss, for `what` needs it.

    Raises:
        InputError: it is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError:
        raise InputError(f'{what} need faiss: pip install "slimrank[train]"') from None
    return faiss


@contextmanager
def one_thread(faiss: Any) -> Iterator[None]:
    """faiss on one thread: its result does not depend on how many there are, and torch's threads are left alone."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def k_means(vectors: Floats, count: int, weights: Floats | None, seed: int, rounds: int) -> Floats:
    """`count` centres [count, dim] of `vectors` [n, dim], which count as `weights` [n] say.

    Raises:
        InputError: faiss is not installed.
    """
    faiss = load_faiss("codebooks and clusters")
    with one_thread(faiss):
        means = faiss.Kmeans(
            vectors.shape[1],
            count,
            niter=rounds,
            seed=seed + 1,
            min_points_per_centroid=1,
            max_points_per_centroid=2 * PER_CENTRE,
        )
        means.train(np.ascontiguousarray(vectors), weights=None if weights is None else np.ascontiguousarray(weights))
    centres: Floats = means.centroids.copy()
    return centres


def flat_index(values: Floats) -> Any:
    """An index of faiss that looks at every one of `values` [k, dim], by squared distance."""
    index = load_faiss("codebooks and clusters").IndexFlatL2(values.shape[1])
    index.add(np.ascontiguousarray(values))
    return index
