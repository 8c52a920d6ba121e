"""What a search of a catalogue finds and how long it takes, measured together: one says nothing without the other.

Searches take turns, one query a call, so that whatever else the machine does hits all of them. Left out: how good the
vectors are, which `catalogue.py` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from slimrank.config import InputError
from slimrank.data.ragged import Places
from slimrank.evaluation.cost import LEAST_SAMPLES, TURN, Prepared, quantile_interval, summary, take_turns
from slimrank.indexing.index import Index, Vectors

Search = Callable[[Vectors, int], Places]
"""Queries [N, D] and k to the places of the first k [N, k], best first."""


def recall_against(exact: Index, index: Index, queries: ArrayLike, k: int, samples: int = 400) -> dict[str, Any]:
    """`index` beside `exact`: the record of `compare_searches` for both, with the bytes of each.

    Raises:
        InputError: they have other items; as `compare_searches`.
    """
    if (exact.items, exact.dim) != (index.items, index.dim):
        raise InputError(
            f"indices of other items: {exact.items} of {exact.dim} numbers and {index.items} of {index.dim}"
        )
    both = {"exact": exact, "index": index}
    searches: dict[str, Search] = {name: _searching(each) for name, each in both.items()}
    found = compare_searches(searches, queries, k, samples)
    return {name: {**record, "bytes": both[name].nbytes} for name, record in found.items()}


def compare_searches(
    searches: Mapping[str, Search], queries: ArrayLike, k: int, samples: int = 400
) -> dict[str, dict[str, Any]]:
    """Searches by name beside the first of them, which is the reference.

    - `recall`: the share of the reference's first `k` that are found, mean over the queries, and `recall_interval`:
      95%, normal, over queries.
    - `ms`: of one query a call, as `cost.latency` has it.
    - `times_faster`: the reference's time over the search's, the median over turns, and its 95% interval
      `times_faster_interval`.

    Raises:
        InputError: no queries, too few samples.
    """
    vectors = np.asarray(queries, dtype=np.float32)
    if not len(vectors) or samples < LEAST_SAMPLES:
        raise InputError(f"got {len(vectors)} queries and {samples} samples; allowed: 1 and {LEAST_SAMPLES} or more")
    reference, *_ = searches
    best = searches[reference](vectors, k)
    taken = take_turns({name: _one_by_one(search, vectors, k) for name, search in searches.items()}, samples)
    turns = {
        name: np.median(times[: samples // TURN * TURN].reshape(-1, TURN), axis=1) for name, times in taken.items()
    }
    found: dict[str, dict[str, Any]] = {}
    for name, search in searches.items():
        each = overlap(best, search(vectors, k))
        error = 1.96 * float(each.std(ddof=1)) / len(each) ** 0.5 if len(each) > 1 else float("nan")
        faster = turns[reference] / turns[name]
        found[name] = {
            "recall": float(each.mean()),
            "recall_interval": [float(each.mean()) - error, float(each.mean()) + error],
            "ms": summary(taken[name] / 1e6),
            "times_faster": float(np.median(faster)),
            "times_faster_interval": list(quantile_interval(faster, 0.5)),
        }
    return found


def overlap(best: Places, found: Places) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[N] the share of the items of each row of `best` [N, k] that are in that of `found`, in whatever order.

    >>> overlap(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [4, 5]])).tolist()
    [1.0, 0.5]
    """
    return np.array([np.isin(one, other).mean() for one, other in zip(best, found, strict=True)])


def _searching(index: Index) -> Search:
    return lambda queries, k: index.search(queries, k)[0]


def _one_by_one(search: Search, queries: Vectors, k: int) -> Prepared:
    """Sample i is the search of one query, each in its turn."""

    def prepare(sample: int) -> Callable[[], object]:
        at = sample % len(queries)
        return lambda: search(queries[at : at + 1], k)

    return prepare
