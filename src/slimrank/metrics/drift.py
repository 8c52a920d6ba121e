"""How far the scores of now are from those of then: histograms of probabilities, and their stability index.

Left out: where the histograms come from, and what to do about a drift.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError

WIDTH, FURTHEST = 0.5, 9.5  # of a bin, and of the last edge from 0, on the scale of the logit
COUNT = int(2 * FURTHEST / WIDTH) + 2
EDGES = tuple(1 / (1 + math.exp(FURTHEST - place * WIDTH)) for place in range(COUNT - 1))
BINS = (0.0, *EDGES)  # where each begins; the last ends with 1


def histogram(probability: ArrayLike) -> NDArray[np.int64]:
    """How many probabilities fall into each of `COUNT` bins; the last holds 1 too.

    Bins have the same width on the scale of the logit, ln(p / (1 - p)), between 1e-4 and 1 - 1e-4 and a little beyond,
    and the first and the last hold what is outside. Bins of equal width on [0, 1] would hold nearly all of a click
    model's probabilities in the first, whose mean is mostly below 5%. They hang on nothing that is measured, so that
    histograms of any two models and times can be compared.

    >>> histogram([0.0, 0.5, 0.61, 1.0])[[0, 20, 39]].tolist()  # 0.5 to 0.62 is one bin: the logit is 0 to 0.5
    [1, 2, 1]

    Raises:
        InputError: one is not between 0 and 1.
    """
    given = np.asarray(probability, np.float64).ravel()
    if not ((given >= 0) & (given <= 1)).all():  # false of NaN
        wrong = given[~((given >= 0) & (given <= 1))]
        raise InputError(f"probability: got {wrong[0]:g} ({len(wrong)} of {len(given)} are wrong), allowed 0..1")
    places = np.searchsorted(EDGES, given, side="right")
    return np.bincount(places, minlength=COUNT).astype(np.int64)


def population_stability_index(expected: ArrayLike, found: ArrayLike) -> float:
    """Population stability index of two histograms: 0 of equal shares, symmetric, never negative.

    PSI = sum over bins of (p - q) ln(p / q), p and q the shares of `found` and `expected`: the Jeffreys divergence of
    both (Kullback and Leibler 1951), as credit scoring uses it (Siddiqi, Credit Risk Scorecards, 2006, which calls a
    value below 0.1 no change, to 0.25 a small one, and above a shift). A count of 1/2 is added to every bin of both,
    the Jeffreys prior, so that an empty bin is a rare one and no infinity. With nothing changed its mean is about
    (B - 1) (1 / n + 1 / m) of B bins and n and m scores (Yurdakul 2018), so that few scores say little: where
    20 bins are in use, of 200 scores 0.1 is chance.

    Args:
        expected: counts [B] of then.
        found: counts [B] of now; either may be weighted, so no integers.

    >>> round(population_stability_index([1, 1], [2, 1]), 4)  # (0.625 - 0.5) ln(0.625 / 0.5) + ...
    0.0639

    Raises:
        InputError: the histograms differ in length, are empty, or have a count that is negative or no number.
    """
    p, q = (_shares(name, counts) for name, counts in (("found", found), ("expected", expected)))
    if len(p) != len(q):
        raise InputError(f"histograms of {len(q)} and {len(p)} bins cannot be compared; both must have the same")
    return float(((p - q) * np.log(p / q)).sum())


def _shares(name: str, counts: ArrayLike) -> NDArray[np.float64]:
    given = np.asarray(counts, np.float64)
    if given.ndim != 1 or not len(given):
        raise InputError(f"{name}: got an array {list(given.shape)}, a histogram is counts [bins]")
    if not (np.isfinite(given) & (given >= 0)).all():
        raise InputError(f"{name}: got {given.tolist()}, counts are at least 0")
    smoothed = given + 0.5
    return np.asarray(smoothed / smoothed.sum(), np.float64)
