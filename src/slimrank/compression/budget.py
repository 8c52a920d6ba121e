"""A budget in bytes divided among parts of a model: one of several options for each part, with the least error in all.

This is the multiple-choice knapsack. Steps that choose bits, dimensions or kinds by budget make the options; what they
weigh the error with is theirs. Left out: what an option is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from slimrank.config import InputError

STATES = 1 << 15  # partial choices that are kept at a time: all of them, and so an exact answer, in most models

Front = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]  # bytes, rising, and error, falling, of partial choices


class Option(NamedTuple):
    """One thing that can be done with a part: what it then takes, and how wrong it then is."""

    bytes: int
    error: float


def allocate(options: Sequence[Sequence[Option]], budget: int, *, fixed: int = 0, states: int = STATES) -> list[int]:
    """The place of the chosen option of every part: the least sum of errors with fixed + sum of bytes <= budget.

    `fixed` bytes are spent whatever is chosen. Part by part, all choices so far are kept that no other beats in both
    bytes and error. Where these are more than `states`, one of every range of bytes is kept, the one with the least
    error: then the error is at most the least one of a budget smaller by one such range for each part, and a range is
    at most 1 / `states` of the bytes between the smallest and the largest choice. Of equal choices the smaller wins.

    >>> allocate([[Option(4, 9.0), Option(8, 0.0)], [Option(4, 2.0), Option(8, 1.0)]], budget=12)
    [1, 0]

    Raises:
        InputError: the budget is below the least possible, which the message names; an error is NaN.
    """
    least = np.array([min(option.bytes for option in part) for part in options], np.int64)
    if fixed + int(least.sum()) > budget:
        raise InputError(f"a budget of {budget:,} bytes is below the least possible: {fixed + int(least.sum()):,}")
    if any(np.isnan(option.error) for part in options for option in part):
        raise InputError("the error of an option is NaN")
    spans = [max(option.bytes for option in part) - low for part, low in zip(options, least.tolist(), strict=True)]
    order = np.argsort(spans, kind="stable").tolist()  # parts of little weight first: their ranges are small as well
    left = budget - fixed - int(least.sum())
    front: Front = np.zeros(1, np.int64), np.zeros(1)
    history = []
    for part in order:
        above = np.array([option.bytes - least[part] for option in options[part]], np.int64)
        errors = np.array([option.error for option in options[part]], np.float64)
        front, came_from = _extended(front, above, errors, left, states)
        history.append((part, len(above), came_from))
    return _traced(history, len(options))


def _extended(
    front: Front, size: npt.NDArray[np.int64], error: npt.NDArray[np.float64], left: int, states: int
) -> tuple[Front, npt.NDArray[np.int64]]:
    """The front with every option of one more part, and where each of its states came from: state * options + option.

    Bytes are counted above the least possible, so whatever is within `left` can be completed.
    """
    sizes = np.add.outer(front[0], size).ravel()
    errors = np.add.outer(front[1], error).ravel()
    kept = np.flatnonzero(sizes <= left)
    kept = kept[np.lexsort((errors[kept], sizes[kept]))]
    best = np.minimum.accumulate(errors[kept])
    kept = kept[np.concatenate([[True], best[1:] < best[:-1]])]
    if len(kept) > states:
        ranges = (sizes[kept] - sizes[kept[0]]) * states // (sizes[kept[-1]] - sizes[kept[0]] + 1)
        kept = kept[np.concatenate([ranges[1:] != ranges[:-1], [True]])]
    return (sizes[kept], errors[kept]), kept


def _traced(history: Sequence[tuple[int, int, npt.NDArray[np.int64]]], parts: int) -> list[int]:
    """The options that led to the last state, the one with the least error."""
    chosen, state = [0] * parts, -1
    for part, count, came_from in reversed(history):
        state, chosen[part] = divmod(int(came_from[state]), count)
    return chosen
