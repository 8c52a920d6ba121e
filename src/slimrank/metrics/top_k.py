"""Metrics of ranked lists: NDCG, recall, hit rate, reciprocal rank, average precision, by group, exact with ties.

A group is what is ranked: the candidates of a request, the documents of a query, the items of a user. Rows of equal
score have no order, so every metric is its mean over all orders of them (McSherry and Najork 2008, "Computing
information retrieval performance measures efficiently in the presence of tied scores"): no order of the rows in a file,
and no noise of a sort, makes a model better. All groups at once: one sort, no loop over groups.
Labels are relevances, >= 0. A group counts in the mean by the mean `weight` of its rows, or once. Left out: metrics of
one binary label over all rows, which are in `clicks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError
from slimrank.metrics import Floats, Grouped, codes_of, fault, sorted_ties

Gain = Literal["linear", "exponential"]
NEVER = -40.0
"""The logarithm of no chance: exp(-40) is below the last digit of 1, and differences of sums stay finite."""


def ndcg(
    relevance: ArrayLike,
    score: ArrayLike,
    group: ArrayLike,
    k: int | None = None,
    gain: Gain = "linear",
    weight: ArrayLike | None = None,
) -> Grouped:
    """Normalised discounted cumulative gain of the first `k` (None: all) of every group; NaN with nothing relevant.

    DCG@k = sum over ranks r <= k of gain / log2(r + 1), over the same sum in the best order (Jarvelin and Kekalainen
    2002). The gain of relevance l is l, or with "exponential" 2**l - 1 (Burges et al. 2005).

    >>> ndcg([0, 1], [2.0, 1.0], [7, 7]).value.round(3).tolist()  # the relevant one at rank 2: 1 / log2(3)
    [0.631]

    Raises:
        InputError: no rows, a relevance that is negative or not finite, NaN, lengths that differ, k below 1.
    """
    lists = _lists(relevance, score, group, k, weight)
    value = lists.relevance if gain == "linear" else np.exp2(lists.relevance) - 1
    discount = 1 / np.log2(np.arange(lists.longest) + 2)
    reached = lists.sums(value * lists.mean_over_ties(discount))
    best = np.lexsort((-value, lists.code))
    ideal = lists.sums(value[best] * np.where(lists.rank < lists.k, discount[lists.rank], 0.0))
    return lists.grouped(_ratio(reached, ideal))


def recall(
    relevance: ArrayLike, score: ArrayLike, group: ArrayLike, k: int, weight: ArrayLike | None = None
) -> Grouped:
    """The share of a group's relevant rows (relevance above 0) that are among its first `k`; NaN without any.

    >>> recall([1, 1, 0], [3.0, 1.0, 2.0], [7, 7, 7], k=2).value.tolist()
    [0.5]

    Raises:
        InputError: as `ndcg`.
    """
    lists = _lists(relevance, score, group, k, weight)
    hit = lists.relevance > 0
    found = lists.sums(hit * lists.mean_over_ties(np.ones(lists.longest)))
    return lists.grouped(_ratio(found, lists.sums(hit)))


def hit_rate(
    relevance: ArrayLike, score: ArrayLike, group: ArrayLike, k: int, weight: ArrayLike | None = None
) -> Grouped:
    """The chance that any of a group's first `k` is relevant: 0 or 1 without ties; NaN with nothing relevant.

    >>> hit_rate([1, 0, 0], [1.0, 1.0, 1.0], [7, 7, 7], k=2).value.round(3).tolist()  # any of three, two are shown
    [0.667]

    Raises:
        InputError: as `ndcg`.
    """
    lists = _lists(relevance, score, group, k, weight)
    chance = lists.first_hit_chance()
    return lists.grouped(np.where(lists.any_relevant, lists.sums(chance * (lists.rank < lists.k)), np.nan))


def reciprocal_rank(
    relevance: ArrayLike, score: ArrayLike, group: ArrayLike, k: int | None = None, weight: ArrayLike | None = None
) -> Grouped:
    """1 / rank of a group's first relevant row, 0 beyond rank `k`; its mean is the MRR. NaN with nothing relevant.

    >>> reciprocal_rank([0, 1, 1], [3.0, 2.0, 1.0], [7, 7, 7]).value.tolist()
    [0.5]

    Raises:
        InputError: as `ndcg`.
    """
    lists = _lists(relevance, score, group, k, weight)
    each = lists.first_hit_chance() * (lists.rank < lists.k) / (lists.rank + 1)
    return lists.grouped(np.where(lists.any_relevant, lists.sums(each), np.nan))


def average_precision(
    relevance: ArrayLike, score: ArrayLike, group: ArrayLike, k: int | None = None, weight: ArrayLike | None = None
) -> Grouped:
    """The mean over a group's relevant rows of the precision at their rank, 0 beyond rank `k`; its mean is the MAP.

    Precision at rank r is the share of relevant rows (relevance above 0) among the first r. In a tie of n rows, r of
    them relevant, each place is relevant with chance r / n, and then (r - 1) / (n - 1) of the places before it are.
    NaN with nothing relevant.

    >>> average_precision([1, 0, 1], [3.0, 2.0, 1.0], [7, 7, 7]).value.round(3).tolist()  # (1 / 1 + 2 / 3) / 2
    [0.833]

    Raises:
        InputError: as `ndcg`.
    """
    lists = _lists(relevance, score, group, k, weight)
    hit = lists.relevance > 0
    place, size, hits, above = lists.within_ties()
    found = above + 1 + place * (hits - 1) / np.maximum(size - 1, 1)
    each = hits / size * found / (lists.rank + 1) * (lists.rank < lists.k)
    return lists.grouped(_ratio(lists.sums(each), lists.sums(hit)))


@dataclass(frozen=True)
class _Lists:
    """Rows sorted by group and falling score. `rank` counts from 0 within the group, `tie` numbers the runs of ties."""

    names: NDArray[Any]
    code: NDArray[np.int64]
    relevance: Floats
    rank: NDArray[np.int64]
    tie: NDArray[np.int64]
    k: int
    weight: Floats

    @property
    def longest(self) -> int:
        """Rows of the longest group."""
        return int(self.rank.max()) + 1

    @property
    def any_relevant(self) -> NDArray[np.bool_]:
        """Of each group whether it has a relevant row."""
        return np.asarray(self.sums(self.relevance > 0) > 0)

    def sums(self, values: NDArray[Any]) -> Floats:
        """Sum over the rows of each group."""
        return np.bincount(self.code, values, len(self.names)).astype(np.float64)

    def grouped(self, value: Floats) -> Grouped:
        """The groups' values, and what each counts."""
        return Grouped(self.names, value, self.weight)

    def mean_over_ties(self, of_rank: Floats) -> Floats:
        """What rows get of `of_rank` [longest], 0 from rank k on: those of one tie share what its ranks get."""
        own = np.where(self.rank < self.k, of_rank[self.rank], 0.0)
        shared: Floats = (np.bincount(self.tie, own) / np.bincount(self.tie))[self.tie]
        return shared

    def first_hit_chance(self) -> Floats:
        """For each rank the chance that its row is the first relevant one of its group, over all orders of ties.

        In a tie of n rows, r of them relevant, the j-th (from 0) is the first with chance
        r / (n - j) * product over i < j of (1 - r / (n - i)); only the first tie with a relevant row has any.
        """
        place, size, hits, above = self.within_ties()
        left = size - place
        miss = np.maximum(1 - hits / left, 0.0)
        with np.errstate(divide="ignore"):
            log_miss = np.maximum(np.log(miss), NEVER)
        missed = np.cumsum(log_miss) - log_miss
        missed -= missed[np.arange(len(place)) - place]
        chance: Floats = np.exp(missed) * np.minimum(hits / left, 1.0) * (above == 0)
        return chance

    def within_ties(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
        """Of each row: its place in its tie (from 0), rows and relevant rows of the tie, relevant ones above it."""
        size = np.bincount(self.tie)
        hits: Floats = np.bincount(self.tie, self.relevance > 0).astype(np.float64)
        begin = np.concatenate([[0], np.cumsum(size)[:-1]])
        group = self.code[begin]
        before = np.cumsum(hits) - hits
        above = before - before[np.searchsorted(group, group)]
        place: NDArray[np.int64] = np.arange(len(self.tie)) - begin[self.tie]
        return place, size[self.tie], hits[self.tie], above[self.tie]


def _lists(relevance: ArrayLike, score: ArrayLike, group: ArrayLike, k: int | None, weight: ArrayLike | None) -> _Lists:
    values, scores = np.asarray(relevance, dtype=np.float64), np.asarray(score)
    if k is not None and k < 1:
        raise InputError(f"k: got {k}, allowed 1 or more")
    if values.ndim != 1 or values.shape != scores.shape:
        raise InputError(
            f"every row needs one value of each, got shapes relevance {values.shape}, score {scores.shape}"
        )
    if not len(values):
        raise InputError("no rows to evaluate")
    scores = scores if np.issubdtype(scores.dtype, np.floating) else scores.astype(np.float64)
    faults = [
        fault("relevance", ~((values >= 0) & np.isfinite(values)), values, "negative or not finite"),
        fault("score", np.isnan(scores), scores, "NaN"),
    ]
    if any(faults):
        raise InputError("\n".join(filter(None, faults)))
    names, code = codes_of(group, len(values))
    order, first = sorted_ties(-scores, code)
    tie = np.zeros(len(order), dtype=np.int64)
    tie[first[1:]] = 1
    sizes = np.bincount(code)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    counted = np.ones(len(names)) if weight is None else _weights(weight, code, sizes)
    return _Lists(names, code[order], values[order], rank, np.cumsum(tie), k or len(order), counted)


def _weights(weight: ArrayLike, code: NDArray[np.int64], sizes: NDArray[np.int64]) -> Floats:
    """Of each group the mean weight of its rows."""
    each = np.asarray(weight, dtype=np.float64)
    if each.shape != code.shape:
        raise InputError(f"every row needs one weight, got shapes weight {each.shape}, score {code.shape}")
    if not ((each >= 0) & np.isfinite(each)).all() or not each.any():
        raise InputError("weight: negative or not finite values, or all 0; allowed are numbers of 0 or more")
    return np.bincount(code, each) / sizes


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where whole is 0."""
    value: Floats = np.full(len(whole), np.nan)
    np.divide(part, whole, out=value, where=whole > 0)
    return value
