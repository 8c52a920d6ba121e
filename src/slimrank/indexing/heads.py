"""Which items may be among the first, of products that were summed in float32 in whatever order.

A float32 product of n terms is off by at most about n * 2**-24 * |query| * |item| (Higham 2002, "Accuracy and stability
of numerical algorithms", section 3.1). Every item within twice that of the k-th product may be among the first k, and
no other: those are few, and their products are summed again in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from slimrank.data.ragged import Places
from slimrank.indexing.index import Vectors

CHUNK = 1 << 23  # products at a time: 32 MB


def slack_of(queries: Vectors, longest: float, terms: int) -> NDArray[np.float64]:
    """[n] how far two products of `terms` terms, with items no longer than `longest`, may be from their order."""
    lengths = np.sqrt(np.add.reduce(queries.astype(np.float64) ** 2, axis=1))
    unit, least = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)
    return np.asarray(2 * ((terms + 2) * unit * lengths * longest + terms * least))


def first_of(scores: Vectors, k: int) -> tuple[Places, Vectors]:
    """The `k` largest of each row of `scores` [n, C], falling, of equal ones the lower place first: places and scores.

    Both are [n, min(k, C)]; where too few are above -inf, place -1 stands for the rest.
    """
    width = min(k, scores.shape[1])
    places = np.full((len(scores), width), -1, np.int64)
    best = np.full((len(scores), width), -np.inf, np.float32)
    if not width:
        return places, best
    for row, found in enumerate(heads(scores, width, np.zeros(len(scores)))):
        kept = found[scores[row, found] > -np.inf]
        order = kept[np.lexsort((kept, -scores[row, kept]))][:width]
        places[row, : len(order)], best[row, : len(order)] = order, scores[row, order]
    return places, best


def heads(products: Vectors, wanted: int, slack: NDArray[np.float64]) -> Iterator[Places]:
    """Of each row of `products` [n, C] the items whose product is within `slack` [n] of its `wanted`-th."""
    last = products.shape[1] - wanted
    bar = np.partition(products, last, axis=1)[:, last] - slack
    lowest = np.nextafter(bar.astype(np.float32), np.float32(-np.inf))
    for row, least in zip(products, lowest, strict=True):
        yield np.flatnonzero(row >= least)
