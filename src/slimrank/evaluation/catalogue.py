"""What is found among a whole catalogue: NDCG@k, recall@k and MRR of every query, never holding queries x items.

A query (a user, a text) has items that it is to find and items that are left out, such as those that it met already.
All others are ranked. Scores are made for a chunk of queries at a time, and nothing is sorted: an item's rank is the
number of scores above its own. Items of equal score have no order, so every metric is its mean over all orders of them,
as in `slimrank.metrics.top_k`, whose definitions these are. Values are kept by query, for paired tests. Left out:
graded relevance, which `slimrank.metrics.top_k` takes from rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError
from slimrank.data.interactions import draw_unmet
from slimrank.data.ragged import Places, Ragged
from slimrank.metrics import Floats, Grouped

Scores = NDArray[np.float32]
Scorer = Callable[[int, int], Scores]
"""The scores of all items for queries `start` to `stop`: float32 [stop - start, C]."""

AT = (10, 20)
CHUNK = 1 << 22  # scores at a time: 16 MB, which a cache of the second or third level has room for


@dataclass(frozen=True)
class Found:
    """Metrics by name, each with its value for every query, and what could not be found.

    Attributes:
        metrics: `ndcg@10`, `recall@10`, ..., `mrr`; a query with nothing to find has NaN.
        unknown: how many items to find are none of the catalogue, and so were missed.
    """

    metrics: Mapping[str, Grouped]
    unknown: int


def product(queries: ArrayLike, items: ArrayLike) -> Scorer:
    """Scores as products of vectors: `queries` [N, D] with `items` [C, D].

    Raises:
        InputError: they are no such arrays.
    """
    left, right = np.asarray(queries, dtype=np.float32), np.asarray(items, dtype=np.float32)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise InputError(f"vectors of queries and items must have one width, got {left.shape} and {right.shape}")
    return lambda start, stop: left[start:stop] @ right.T


def find_in_catalogue(
    score: Scorer,
    targets: Ragged | ArrayLike,
    items: int,
    left_out: Ragged | None = None,
    at: Sequence[int] = AT,
    group: ArrayLike | None = None,
) -> Found:
    """Rank the whole catalogue for every query.

    Several items to find are one list: recall@k is the share of them among the first k (with one, the hit rate),
    NDCG@k has gain 1 for each, MRR takes the first found. One that is no item of the catalogue is missed.

    >>> found = find_in_catalogue(product([[1.0]], [[3.0], [2.0], [1.0]]), [1], items=3)
    >>> {name: round(metric.mean, 3) for name, metric in found.metrics.items()}
    {'ndcg@10': 0.631, 'recall@10': 1.0, 'ndcg@20': 0.631, 'recall@20': 1.0, 'mrr': 0.5}

    Args:
        score: scores of all items for a chunk of queries.
        targets: what each query is to find, places in the catalogue; [N] integers where it is one item. -1 stands for
            an item that is none of the catalogue, such as one never in training.
        items: how many there are, C.
        left_out: what is not ranked for a query.
        at: the k of NDCG@k and recall@k.
        group: [N] names of the queries; 0 to N - 1 where there are none.

    Raises:
        InputError: no queries, no items, k below 1, scores that are NaN or not [n, C], places that are no item, an item
            to find that is named twice for one query or is left out for it.
    """
    wanted = targets if isinstance(targets, Ragged) else Ragged.one_each(targets)
    out = _checked(wanted, items, left_out, at)
    known = wanted.where(wanted.values >= 0)
    sums = _Sums(wanted.lengths, at, items)
    size = max(1, CHUNK // items)
    for start in range(0, len(wanted), size):
        stop = min(start + size, len(wanted))
        scores = _scores(score, start, stop, items)
        _add(sums, scores, known.part(start, stop), out.part(start, stop), start)
    return Found(sums.metrics(_names(group, len(wanted))), int((wanted.values < 0).sum()))


def find_among_sampled(
    score: Scorer,
    targets: ArrayLike,
    negatives: ArrayLike,
    items: int,
    at: Sequence[int] = AT,
    group: ArrayLike | None = None,
) -> Found:
    """Rank one item to find among a few others: only to stand beside a published figure that was measured so.

    Such figures order models otherwise than the catalogue does (Krichene and Rendle 2020), so they are named by how
    many were sampled: `ndcg@10 among 100 sampled`. A negative that is the item to find ties with it.

    Args:
        score: scores of all items for a chunk of queries.
        targets: [N] places; -1 for an item that is none of the catalogue.
        negatives: [N, M] places, given or from `draw_negatives`.
        items: how many there are, C.
        at: the k of NDCG@k and recall@k.
        group: [N] names of the queries.

    Raises:
        InputError: as `find_in_catalogue`; negatives that are not [N, M] items.
    """
    wanted, drawn = Ragged.one_each(targets), np.asarray(negatives)
    if drawn.ndim != 2 or len(drawn) != len(wanted):
        raise InputError(f"negatives: got shape {drawn.shape}, must be a row for each of {len(wanted)} queries")
    Ragged.of(drawn).check("negatives", len(drawn), items)
    _checked(wanted, items, None, at)
    sums = _Sums(wanted.lengths, at, drawn.shape[1] + 1)
    size = max(1, CHUNK // items)
    for start in range(0, len(wanted), size):
        stop = min(start + size, len(wanted))
        scores = _scores(score, start, stop, items)
        chosen = np.flatnonzero(wanted.values[start:stop] >= 0)
        own = scores[chosen, wanted.values[start:stop][chosen], None]
        others = np.take_along_axis(scores[chosen], drawn[start:stop][chosen], axis=1)
        above, tied = (others > own).sum(axis=1), (others == own).sum(axis=1)
        sums.add(start + chosen, above, tied + 1)
        sums.first(start + chosen, above, tied + 1, np.ones(len(chosen), np.int64))
    names = _names(group, len(wanted))
    metrics = {f"{name} among {drawn.shape[1]} sampled": each for name, each in sums.metrics(names).items()}
    return Found(metrics, int((wanted.values < 0).sum()))


def draw_negatives(targets: ArrayLike, items: int, count: int, seed: int, left_out: Ragged | None = None) -> Places:
    """`count` items for each query, [N, count], evenly among those that it neither is to find nor leaves out.

    Raises:
        InputError: a query has no such item; places that are no item.
    """
    wanted = Ragged.one_each(targets)
    out = _checked(wanted, items, left_out, AT)
    known = wanted.where(wanted.values >= 0)
    met = [np.concatenate(pair) for pair in ((known.query, out.query), (known.values, out.values))]
    drawn = draw_unmet(met[0], met[1], items, np.repeat(np.arange(len(wanted)), count), (seed,))
    return drawn.reshape(len(wanted), count)


class _Sums:
    """What the queries' metrics are made of, added up as scores come by.

    The mean over a tie of `size` ranks from `above` on is a difference of sums over ranks, so each is kept as its sums.
    """

    def __init__(self, relevant: Places, at: Sequence[int], items: int):
        self.relevant = relevant
        rank = np.arange(items)
        gain = 1 / np.log2(rank + 2)
        self.of_rank = {f"ndcg@{k}": _sums_to(np.where(rank < k, gain, 0.0)) for k in at}
        self.of_rank |= {f"recall@{k}": _sums_to((rank < k).astype(np.float64)) for k in at}
        self.reciprocal = _sums_to(1 / (rank + 1))
        self.total = {name: np.zeros(len(relevant)) for name in self.of_rank}
        self.mrr = np.zeros(len(relevant))
        self.at = at

    def add(self, query: Places, above: Places, size: Places) -> None:
        """One more item found for each `query` [n]: `above` others before a tie of `size` that it belongs to."""
        for name, sums in self.of_rank.items():
            self.total[name][query] += (sums[above + size] - sums[above]) / size

    def first(self, query: Places, above: Places, size: Places, hits: Places) -> None:
        """The highest item found: `hits` of its tie are to be found, so that its rank is that of the first of them."""
        self.mrr[query] = (self.reciprocal[above + size] - self.reciprocal[above]) / size
        for row in np.flatnonzero(hits > 1):
            chance = first_of_several(int(size[row]), int(hits[row]))
            self.mrr[query[row]] = chance @ (1 / (above[row] + 1 + np.arange(len(chance))))

    def metrics(self, names: NDArray[np.generic]) -> dict[str, Grouped]:
        """Every metric of every query, rising by name."""
        order = np.argsort(names, kind="stable")
        some = self.relevant > 0
        most = int(max(self.relevant.max(initial=0), 1))
        found: dict[str, Floats] = {}
        for k in self.at:
            ideal = _sums_to(np.where(np.arange(most) < k, 1 / np.log2(np.arange(most) + 2), 0.0))
            whole = {f"ndcg@{k}": ideal[self.relevant], f"recall@{k}": self.relevant}
            found |= {name: self.total[name] / np.where(some, whole[name], 1) for name in whole}
        found["mrr"] = self.mrr
        values = {name: np.where(some, value, np.nan)[order] for name, value in found.items()}
        return {name: Grouped(names[order], value, np.ones(len(value))) for name, value in values.items()}


def first_of_several(size: int, hits: int) -> Floats:
    """The chance that the first of `hits` items is at place 0, 1, ... of a tie of `size`, over all of its orders.

    >>> first_of_several(3, 2).round(3).tolist()
    [0.667, 0.333]
    """
    place = np.arange(size - hits + 1)
    miss = 1 - hits / (size - place)
    return np.asarray(hits / (size - place) * np.concatenate([[1.0], np.cumprod(miss)[:-1]]))


def _add(sums: _Sums, scores: Scores, wanted: Ragged, out: Ragged, start: int) -> None:
    """Count a chunk of queries: the best item of each first, then the next, until no k reaches it."""
    own = scores[wanted.query, wanted.values]
    order = np.lexsort((-own, wanted.query))
    own, hidden = own[order], scores[out.query, out.values]
    longest, reach = int(wanted.lengths.max(initial=0)), max(sums.at)
    rows = np.flatnonzero(wanted.lengths)
    for turn in range(longest):
        rows = rows[wanted.lengths[rows] > turn]
        if not len(rows):
            break
        bar = np.full(len(scores), np.nan, np.float32)
        bar[rows] = own[wanted.starts[rows] + turn]
        kept = scores if len(rows) == len(scores) else scores[rows]
        above = (kept > bar[rows, None]).sum(axis=1) - _count(out.query, hidden > bar[out.query], len(scores))[rows]
        size = (kept == bar[rows, None]).sum(axis=1) - _count(out.query, hidden == bar[out.query], len(scores))[rows]
        sums.add(start + rows, above, size)
        if turn == 0:
            hits = _count(wanted.query, own == bar[wanted.query], len(scores))[rows]
            sums.first(start + rows, above, size, hits)
        rows = rows[above < reach]


def _count(query: Places, which: NDArray[np.bool_], queries: int) -> Places:
    """[queries] how many are true of each."""
    return np.bincount(query[which], minlength=queries)


def _sums_to(values: Floats) -> Floats:
    """[n + 1] the sum of the first 0, 1, ... n values."""
    return np.concatenate([[0.0], np.cumsum(values)])


def _scores(score: Scorer, start: int, stop: int, items: int) -> Scores:
    """The scores of a chunk, as they must be.

    Raises:
        InputError: they are not [n, C] or NaN.
    """
    scores = np.asarray(score(start, stop))
    if scores.shape != (stop - start, items):
        raise InputError(f"scores of queries {start} to {stop}: got {scores.shape}, must be {(stop - start, items)}")
    wrong = np.isnan(scores)
    if wrong.any():
        row, item = np.argwhere(wrong)[0]
        raise InputError(f"scores: {int(wrong.sum())} of {wrong.size} are NaN (query {start + row}, item {item})")
    return scores


def _checked(wanted: Ragged, items: int, left_out: Ragged | None, at: Sequence[int]) -> Ragged:
    """What is left out, each item once, after a look at all that is given."""
    if not len(wanted):
        raise InputError("no queries to evaluate")
    if items < 1:
        raise InputError(f"items: got {items}, allowed 1 or more")
    for k in at:
        if k < 1:
            raise InputError(f"k: got {k}, allowed 1 or more")
    wanted.check("targets", len(wanted), items, least=-1)
    known = wanted.where(wanted.values >= 0)
    if len(known.distinct().values) < len(known.values):
        raise InputError("targets: an item to find is named twice for one query; name it once")
    if left_out is None:
        return Ragged.of([[]] * len(wanted))
    left_out.check("left_out", len(wanted), items)
    out = left_out.distinct()
    both = out.holds(known.query, known.values)
    if both.any():
        at_first = int(np.argmax(both))
        raise InputError(
            f"left_out: {int(both.sum())} of {len(both)} items to find are left out for the query that is to find them "
            f"(query {int(known.query[at_first])}: {int(known.values[at_first])}); they could only be missed"
        )
    return out


def _names(group: ArrayLike | None, queries: int) -> NDArray[np.generic]:
    """The queries' names; each stands once."""
    names: NDArray[np.generic] = np.arange(queries) if group is None else np.asarray(group)
    if names.shape != (queries,):
        raise InputError(f"every query needs one group, got shapes group {names.shape}, queries ({queries},)")
    if len(np.unique(names)) < queries:
        raise InputError("group: a query is named twice; every query needs a name of its own")
    return names
