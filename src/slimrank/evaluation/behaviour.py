"""How alike two models behave beyond their quality, and whether one gives the same answer however it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError
from slimrank.metrics import Floats, Grouped, codes_of
from slimrank.runtime.session import open_session

if TYPE_CHECKING:
    from slimrank.data.encoding import Inputs
    from slimrank.runtime import Model

LOOKED_AT = 2048  # rows whose scores are asked for again
BATCHES = (1, 7, 256)


@dataclass(frozen=True)
class Invariance:
    """The largest difference of a row's logit from what it was among all rows, by how it was asked."""

    by_batch: dict[int, float]
    by_threads: float
    unoptimised: float

    @property
    def by_neighbours(self) -> float:
        """Of batches of other sizes, and two threads: what ought to be nothing but rounding."""
        return max(*self.by_batch.values(), self.by_threads)


def overlap(score_a: ArrayLike, score_b: ArrayLike, group: ArrayLike, k: int) -> Grouped:
    """The share of a group's first `k` by a that are among its first `k` by b.

    NaN for groups of at most `k` rows, and where the k-th and the next row have equal scores: no order says who is in.

    >>> overlap([3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [7, 7, 7], k=2).value.tolist()
    [0.5]

    Raises:
        InputError: lengths differ, k is below 1.
    """
    if k < 1:
        raise InputError(f"k: got {k}, allowed 1 or more")
    first, second = (np.asarray(score, dtype=np.float64) for score in (score_a, score_b))
    if first.shape != second.shape or first.ndim != 1:
        raise InputError(f"every row needs one score of each, got shapes {first.shape} and {second.shape}")
    names, code = codes_of(group, len(first))
    sizes = np.bincount(code, minlength=len(names))
    (top_a, clear_a), (top_b, clear_b) = (_top(score, code, sizes, k) for score in (first, second))
    shared = np.bincount(code, top_a & top_b, len(names)) / k
    return Grouped(names, np.where((sizes > k) & clear_a & clear_b, shared, np.nan), np.ones(len(names)))


def _top(score: Floats, code: NDArray[np.int64], sizes: NDArray[Any], k: int) -> tuple[Any, Any]:
    """Whether every row is among the first `k` of its group, and of every group whether that is beyond doubt."""
    order = np.lexsort((-score, code))
    begin = np.cumsum(sizes) - sizes
    rank = np.empty(len(score), dtype=np.int64)
    rank[order] = np.arange(len(score)) - np.repeat(begin, sizes)
    ordered, last = score[order], len(score) - 1
    return rank < k, ordered[np.minimum(begin + k - 1, last)] != ordered[np.minimum(begin + k, last)]


def rank_correlation(score_a: ArrayLike, score_b: ArrayLike) -> float:
    """Spearman's correlation of the scores' ranks, ties having their mean rank; NaN where either is constant.

    >>> rank_correlation([1.0, 2.0, 3.0], [10.0, 30.0, 20.0])
    0.5
    """
    a, b = (_mean_ranks(np.asarray(score)) for score in (score_a, score_b))
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else float("nan")


def _mean_ranks(score: NDArray[np.floating]) -> Floats:
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(count) - (count - 1) / 2)[place].astype(np.float64)
    return ranks


def invariance(model: Model, inputs: Inputs) -> Invariance:
    """Score the first rows again: in batches of other sizes, on two threads, by a graph that is not optimised.

    A row's score must not depend on its neighbours. Optimised graphs of integers may round a sum another way, which is
    what `unoptimised` shows.

    Raises:
        InputError: there are no rows.
    """
    rows = inputs.take(slice(0, LOOKED_AT))
    if not len(rows.ids):
        raise InputError("no rows to score")
    whole = model.score(rows)
    by_batch = {size: _largest(whole, _in_batches(model, rows, size)) for size in BATCHES}
    feeds = {name: getattr(rows, name) for name in model.feeds}
    others = [open_session(model.artifact, 2), open_session(model.artifact, 1, optimise=False)]
    threaded, plain = (_largest(whole, session.run(["logit"], feeds)[0]) for session in others)
    return Invariance(by_batch, threaded, plain)


def _in_batches(model: Model, rows: Inputs, size: int) -> NDArray[np.float32]:
    starts = range(0, len(rows.ids), size)
    return np.concatenate([model.score(rows.take(slice(start, start + size))) for start in starts])


def _largest(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.abs(one.astype(np.float64) - other).max())
