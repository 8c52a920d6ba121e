"""Is the difference between two models real: both score the same rows, and the interval is of the difference.

DeLong, DeLong and Clarke-Pearson 1988 in the O(N log N) form of Sun and Xu 2014 ("Fast implementation of DeLong's
algorithm"), and the same comparison within slices of head, torso and tail ids, where a loss hides.
Everywhere `a` is the baseline and `b` the candidate, and a difference is b - a: a loss is negative.
Left out: metrics other than AUC, whose intervals need a bootstrap over groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError
from slimrank.metrics import Floats, check_rows

Z_95 = 1.959963984540054
"""The 97.5% point of the normal distribution."""


@dataclass(frozen=True)
class Comparison:
    """AUC of two models on the same rows, and their difference b - a with its 95% interval [low, high].

    `p` is two-sided, of the hypothesis that the difference is 0.
    """

    auc_a: float
    auc_b: float
    difference: float
    standard_error: float
    low: float
    high: float
    p: float


def compare(label: ArrayLike, logit_a: ArrayLike, logit_b: ArrayLike) -> Comparison:
    """Paired difference of AUC, b - a, with its DeLong interval.

    With V_i the placement of row i (see `placements`) and d = V_b - V_a:
    variance = var(d over the m positives) / m + var(d over the n negatives) / n, both variances with m - 1, n - 1.

    >>> found = compare([1, 1, 0, 0], [4.0, 1.0, 2.0, 3.0], [4.0, 3.0, 2.0, 1.0])
    >>> found.auc_a, found.auc_b, found.difference
    (0.5, 1.0, 0.5)

    Raises:
        InputError: fewer than two rows of a class, a label that is not 0 or 1, NaN, lengths that differ.
    """
    positive = check_rows(label, logit_a).label
    check_rows(label, logit_b)
    counts = int(positive.sum()), int((~positive).sum())
    if min(counts) < 2:
        raise InputError(f"an interval needs two rows of each class, got {counts[0]} positive, {counts[1]} negative")
    place_a, place_b = placements(label, logit_a), placements(label, logit_b)
    change = place_b - place_a
    variance = sum(float(change[part].var(ddof=1)) / int(part.sum()) for part in (positive, ~positive))
    auc_a, auc_b = float(place_a[positive].mean()), float(place_b[positive].mean())
    return _interval(auc_a, auc_b, math.sqrt(variance))


def _interval(auc_a: float, auc_b: float, error: float) -> Comparison:
    """The normal interval around the difference; without spread, the difference is certain."""
    difference = auc_b - auc_a
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error > 0 else float(difference == 0)
    return Comparison(auc_a, auc_b, difference, error, difference - Z_95 * error, difference + Z_95 * error, p)


def placements(label: ArrayLike, score: ArrayLike) -> Floats:
    """Of each row, the share of the other class that it is ranked rightly against, a tie counting half. [N]

    For a positive, the share of negatives below it; for a negative, the share of positives above it. The mean over
    either class is the AUC. Both classes must have rows.

    >>> placements([1, 0, 1, 0], [3.0, 2.0, 2.0, 1.0]).tolist()
    [1.0, 0.75, 0.75, 1.0]
    """
    rows = check_rows(label, score)
    order = np.argsort(rows.score)
    ordered, positive = rows.score[order], rows.label[order]
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    tie = np.cumsum(starts) - 1
    positives, negatives = (np.bincount(tie, weights=part) for part in (positive, ~positive))
    below = np.cumsum(negatives) - negatives / 2
    above = positives.sum() - np.cumsum(positives) + positives / 2
    place = np.empty(len(order))
    place[order] = np.where(positive, below[tie] / negatives.sum(), above[tie] / positives.sum())
    return place


@dataclass(frozen=True)
class Slice:
    """The rows whose id falls into one band of train frequency.

    `comparison` is None where the slice has fewer than two rows of a class, and no interval can be given.
    """

    name: str
    ids: int
    rows: int
    positives: int
    comparison: Comparison | None


BANDS = ("head", "torso", "tail")


def band_of_ids(counts: ArrayLike, shares: tuple[float, float] = (0.5, 0.9)) -> NDArray[np.int8]:
    """The band of every local id of a field: 0 head, 1 torso, 2 tail. [size]

    Ids by falling train count: the head is the fewest that hold at least `shares[0]` of the training rows, the torso
    those that follow up to `shares[1]`, the tail the rest. Local id 0, out of vocabulary, stands for the rarest
    ids and is always tail.

    >>> band_of_ids([3, 50, 30, 15, 5], (0.5, 0.9)).tolist()
    [2, 0, 1, 1, 2]

    Raises:
        InputError: shares are not 0 < head <= torso <= 1, or a count is negative.
    """
    known = np.array(counts, dtype=np.float64)
    head, torso = shares
    if not 0 < head <= torso <= 1:
        raise InputError(f"shares: got {shares}, allowed 0 < head <= torso <= 1")
    if known.ndim != 1 or not len(known) or (known < 0).any():
        raise InputError("counts: one train count >= 0 for every local id, got a negative count or no list")
    known[0] = 0
    order = np.argsort(-known, kind="stable")
    before = np.cumsum(known[order]) - known[order]
    total = known.sum()
    band = np.full(len(known), 2, dtype=np.int8)
    band[order] = np.select([before < head * total, before < torso * total], [0, 1], 2)
    band[known == 0] = 2
    return band


def compare_slices(
    label: ArrayLike,
    logit_a: ArrayLike,
    logit_b: ArrayLike,
    ids: ArrayLike,
    counts: ArrayLike,
    shares: tuple[float, float] = (0.5, 0.9),
) -> list[Slice]:
    """`compare` within head, torso and tail of one categorical field.

    Args:
        label, logit_a, logit_b: [N], as in `compare`.
        ids: [N] local id of the field in every row.
        counts: [size] train count of every local id.
        shares: of the training rows, held by the head and by head and torso together.

    Raises:
        InputError: as `compare`, or an id is outside of `counts`.
    """
    positive = check_rows(label, logit_a).label
    scores = check_rows(label, logit_a).score, check_rows(label, logit_b).score
    local, bands = np.asarray(ids), band_of_ids(counts, shares)
    if local.shape != positive.shape or local.min() < 0 or local.max() >= len(bands):
        raise InputError(f"ids: one for every row, of 0 to {len(bands) - 1}, got shape {local.shape}")
    found = []
    for band, name in enumerate(BANDS):
        rows = bands[local] == band
        clicks, total = int(positive[rows].sum()), int(rows.sum())
        enough = min(clicks, total - clicks) >= 2
        result = compare(positive[rows], scores[0][rows], scores[1][rows]) if enough else None
        found.append(Slice(name, int((bands == band).sum()), total, clicks, result))
    return found
