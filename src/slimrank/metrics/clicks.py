"""Ranking and calibration metrics of a binary label, exact with ties and weights.

Pure functions of numpy arrays: `label` [N] of 0 and 1, `score` or `logit` [N], and optionally `weight` [N] >= 0.
Ranking metrics take any score, finite or infinite; calibration metrics take the logit, because a probability in
float32 has already lost its tails. Left out: intervals and comparisons, which are in `paired`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError

Floats = NDArray[np.float64]


def auc(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, a tie counting half.

    AUC = sum over pairs of w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / (W_1 W_0), i positive and j negative,
    the Mann-Whitney statistic. One sort: O(N log N).

    >>> auc([1, 0, 1, 0], [3.0, 2.0, 2.0, 1.0])  # 3 pairs won and one tie, of 4
    0.875

    Raises:
        InputError: no rows, one class only, a label that is not 0 or 1, NaN, lengths that differ.
    """
    rows = check_rows(label, score, weight)
    _two_classes(rows.label, rows.weight)
    order, first = sorted_ties(rows.score)
    positive, negative = _class_weights(rows, order, first)
    won = positive * (np.cumsum(negative) - negative / 2)
    return float(won.sum() / (positive.sum() * negative.sum()))


@dataclass(frozen=True)
class Grouped:
    """A metric of every group, kept apart so that groups can be compared or drawn again.

    Attributes:
        group: [G] the groups' ids, rising.
        value: [G] float64, NaN where the metric of a group is not defined (one class only, nothing relevant).
        weight: [G] float64, what the group counts in the mean: its impressions, or 1.
    """

    group: NDArray[Any]
    value: Floats
    weight: Floats

    @property
    def counted(self) -> int:
        """How many groups have a value, which are the ones that `mean` is taken over."""
        return int(np.count_nonzero(~np.isnan(self.value)))

    @property
    def mean(self) -> float:
        """Weighted mean of the counted groups' values; NaN when none counts."""
        known = ~np.isnan(self.value)
        return float(np.average(self.value[known], weights=self.weight[known])) if known.any() else float("nan")


def auc_by_group(label: ArrayLike, score: ArrayLike, group: ArrayLike, weight: ArrayLike | None = None) -> Grouped:
    """`auc` within every group, all groups at once: one sort by group and score, no loop.

    >>> found = auc_by_group([1, 0, 1, 0, 1], [2.0, 1.0, 1.0, 2.0, 5.0], [7, 7, 8, 8, 9])
    >>> found.value.tolist(), found.counted
    ([1.0, 0.0, nan], 2)

    Raises:
        InputError: no rows, a label that is not 0 or 1, NaN, lengths that differ.
    """
    rows = check_rows(label, score, weight)
    names, code = codes_of(group, len(rows.label))
    order, first = sorted_ties(rows.score, code)
    positive, negative = _class_weights(rows, order, first)
    block_group = code[order[first]]
    size = len(names)
    group_negative = np.bincount(block_group, negative, size)
    group_positive = np.bincount(block_group, positive, size)
    before = np.concatenate([[0.0], np.cumsum(group_negative)[:-1]])[block_group]
    won = positive * (np.cumsum(negative) - negative / 2 - before)
    pairs = group_positive * group_negative
    value: Floats = np.full(size, np.nan)
    np.divide(np.bincount(block_group, won, size), pairs, out=value, where=pairs > 0)
    return Grouped(names, value, np.asarray(group_positive + group_negative, dtype=np.float64))


def gauc(label: ArrayLike, score: ArrayLike, group: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Grouped AUC: mean of the groups' AUC weighted by their impressions, over groups with both classes.

    Zhu et al. 2017 (arXiv 1706.06978), section 6.1. `auc_by_group(...).counted` says how many groups that is.

    >>> gauc([1, 0, 1, 0, 0, 1], [2.0, 1.0, 1.0, 2.0, 3.0, 5.0], [7, 7, 8, 8, 8, 9])  # (2 * 1 + 3 * 0) / 5
    0.4

    Raises:
        InputError: as `auc_by_group`, or no group has both classes.
    """
    groups = auc_by_group(label, score, group, weight)
    if not groups.counted:
        raise InputError(f"gauc: none of the {len(groups.group)} groups has both classes")
    return groups.mean


def logloss(label: ArrayLike, logit: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean negative log-likelihood in nats: log(1 + exp(-z)) of a positive, log(1 + exp(z)) of a negative.

    Computed from the logit z without clipping; a wrong infinite logit costs infinity.

    >>> round(logloss([1, 0], [0.0, 0.0]), 6)  # log 2
    0.693147

    Raises:
        InputError: no rows, a label that is not 0 or 1, NaN, lengths that differ.
    """
    rows = check_rows(label, logit, weight)
    loss = np.logaddexp(0.0, np.where(rows.label, -rows.score, rows.score).astype(np.float64))
    return float(np.average(loss, weights=rows.weight))


def normalized_entropy(label: ArrayLike, logit: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Logloss over the entropy of the mean click rate c: NE = logloss / -(c log c + (1 - c) log(1 - c)).

    1 is a model that knows only the rate; less is better. He et al. 2014, "Practical lessons from predicting
    clicks on ads at Facebook", section 3.

    >>> normalized_entropy([1, 0], [0.0, 0.0])
    1.0

    Raises:
        InputError: as `logloss`, or one class only.
    """
    rows = check_rows(label, logit, weight)
    _two_classes(rows.label, rows.weight)
    rate = float(np.average(rows.label, weights=rows.weight))
    return logloss(label, logit, weight) / -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


def pcoc(label: ArrayLike, logit: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Predicted clicks over observed clicks: sum of sigmoid(z) / sum of y. 1 is calibrated, more promises too much.

    >>> pcoc([1, 0, 0, 0], [0.0, 0.0, 0.0, 0.0])
    2.0

    Raises:
        InputError: as `logloss`, or no positive.
    """
    rows = check_rows(label, logit, weight)
    weights = np.ones(len(rows.label)) if rows.weight is None else rows.weight
    clicks = weights @ rows.label
    if clicks == 0:
        raise InputError("pcoc: no row is positive, so the ratio is not defined")
    return float(weights @ sigmoid(rows.score) / clicks)


def sigmoid(logit: ArrayLike) -> Floats:
    """1 / (1 + exp(-z)) in float64, without overflow at any z.

    >>> sigmoid([-1000.0, 0.0, 1000.0]).tolist()
    [0.0, 0.5, 1.0]
    """
    z = np.asarray(logit, dtype=np.float64)
    small = np.exp(-np.abs(z))
    return np.where(z < 0, small, 1.0) / (1.0 + small)


def quality(label: ArrayLike, logit: ArrayLike, group: ArrayLike | None = None) -> dict[str, float]:
    """The metrics of one model on one split, as `result.json` holds them.

    `gauc` is left out where it is not defined: no group is given, or none has both classes.

    >>> {name: round(value, 3) for name, value in quality([1, 0, 1], [1.0, 0.0, -1.0], [1, 1, 2]).items()}
    {'auc': 0.5, 'gauc': 1.0, 'logloss': 0.773, 'normalized_entropy': 1.215, 'pcoc': 0.75}

    Raises:
        InputError: no rows, one class only, a label that is not 0 or 1, a logit that is NaN or infinite.
    """
    infinite = int(np.count_nonzero(np.isinf(np.asarray(logit, dtype=np.float64))))
    if infinite:
        raise InputError(f"logit: {infinite} infinite values; a model must score with finite numbers")
    found = {"auc": auc(label, logit)}
    groups = None if group is None else auc_by_group(label, logit, group)
    if groups is not None and groups.counted:
        found["gauc"] = groups.mean
    for metric in (logloss, normalized_entropy, pcoc):
        found[metric.__name__] = metric(label, logit)
    return found


@dataclass(frozen=True)
class Scored:
    """Checked rows: `label` bool [N], `score` float [N] without NaN, `weight` float64 [N] or None."""

    label: NDArray[np.bool_]
    score: NDArray[np.floating[Any]]
    weight: Floats | None


def check_rows(label: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> Scored:
    """The rows as arrays.

    Raises:
        InputError: no rows, a label that is not 0 or 1, NaN, a negative weight, lengths that differ.
    """
    labels, scores = np.asarray(label), np.asarray(score)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    weights = None if weight is None else np.asarray(weight, dtype=np.float64)
    shapes = {"label": labels.shape, "score": scores.shape} | ({} if weights is None else {"weight": weights.shape})
    if labels.ndim != 1 or len(set(shapes.values())) > 1:
        raise InputError(f"every row needs one value of each, got shapes {shapes}")
    if not len(labels):
        raise InputError("no rows to evaluate")
    positive = labels == 1
    faults = [fault("label", ~(positive | (labels == 0)), labels, "neither 0 nor 1")]
    faults.append(fault("score", np.isnan(scores), scores, "NaN"))
    if weights is not None:
        faults.append(fault("weight", ~((weights >= 0) & np.isfinite(weights)), weights, "negative or not finite"))
        faults.append("" if weights.any() else "weight: all are 0")
    if any(faults):
        raise InputError("\n".join(filter(None, faults)))
    return Scored(positive, scores, weights)


def fault(name: str, wrong: NDArray[np.bool_], values: NDArray[Any], what: str) -> str:
    """One line that counts the wrong values and shows the first with its row, or nothing."""
    count = int(np.count_nonzero(wrong))
    if not count:
        return ""
    row = int(np.argmax(wrong))
    return f"{name}: {count} of {len(wrong)} values are {what} (row {row}: {values[row]})"


def _two_classes(positive: NDArray[np.bool_], weight: Floats | None) -> None:
    """Raises `InputError` when one class has no row, or no weight."""
    mass = positive if weight is None else positive * weight
    total = float(len(positive)) if weight is None else float(weight.sum())
    rest = float(np.count_nonzero(~positive)) if weight is None else float((~positive * weight).sum())
    if float(mass.sum()) == 0.0 or rest == 0.0:
        only = "positive" if rest == 0.0 else "negative"
        raise InputError(f"one class only: all of {total:g} rows are {only}; ranking needs both")


def codes_of(group: ArrayLike, rows: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The distinct groups, rising, and each row's place among them."""
    groups = np.asarray(group)
    if groups.shape != (rows,):
        raise InputError(f"every row needs one group, got shapes group {groups.shape}, label ({rows},)")
    names, code = np.unique(groups, return_inverse=True)
    return names, code.astype(np.int64, copy=False)


def sorted_ties(
    score: NDArray[np.floating[Any]], code: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by rising (group and) score, and where among them each run of equal ones begins."""
    order = np.argsort(score) if code is None else np.lexsort((score, code))
    ordered = score[order]
    new = ordered[1:] != ordered[:-1]
    if code is not None:
        new |= code[order[1:]] != code[order[:-1]]
    return order, np.concatenate([[0], np.flatnonzero(new) + 1])


def _class_weights(rows: Scored, order: NDArray[np.int64], first: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Weight of the positives and of the negatives in each run of ties."""
    weight = np.ones(len(order)) if rows.weight is None else rows.weight[order]
    positive = rows.label[order]
    return np.add.reduceat(weight * positive, first), np.add.reduceat(weight * ~positive, first)
