"""Is the difference between two models real: both score the same rows, and the interval is of the difference.

AUC: DeLong, DeLong and Clarke-Pearson 1988 in the O(N log N) form of Sun and Xu 2014 ("Fast implementation of DeLong's
algorithm"), with rows that hang together added up by group (Obuchowski 1997, "Nonparametric analysis of clustered ROC
curve data") and Student's t for few of a class. All else: a bootstrap over groups. Everywhere `a` is the baseline and
`b` the candidate, and a difference is b - a. Left out: slices, which are in `slices`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError
from slimrank.evaluation.bootstrap import DRAWS, LEAST_CLUSTERS, bootstrap, dealt
from slimrank.evaluation.student import NORMAL, below, student_point, two_sided
from slimrank.evaluation.sums import Better, Metric, Rows, Sums, find_metric
from slimrank.metrics import Floats, check_rows, codes_of

LEAST_OF_CLASS = 10
"""Rows of either class from which an interval of AUC holds what it promises."""
FEW_DIFFERENT = 10
"""Groups in which two models differ, below which draws tell no spread."""
POISSON_NONE = 3.7
"""No event seen, the expected number is at most this at 97.5%: -log(.025)."""
POWER = 0.9
MARGIN = 0.001
"""Of AUC: what the field calls a difference."""

Outcome = Literal["non-inferior", "inferior", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """A metric of two models on the same rows, and their difference b - a with its 95% interval [low, high].

    `p` is two-sided, of the hypothesis that the difference is 0. `rows` were compared, in `groups` that were drawn or
    added up as one (0: every row by itself). Error, interval and p are None where the metric allows none.
    """

    metric: str
    better: Better
    a: float
    b: float
    difference: float
    standard_error: float | None
    low: float | None
    high: float | None
    p: float | None
    rows: int
    groups: int
    freedom: float

    @property
    def loss(self) -> tuple[float, float, float]:
        """What is lost from a to b, least, as measured and most; negative where b is better.

        Raises:
            InputError: the metric has no interval, or neither direction of it is better.
        """
        if self.low is None or self.high is None or self.better == "neither":
            raise InputError(f"metric {self.metric!r} is told and not judged: {_why_not(self)}")
        if self.better == "lower":
            return self.low, self.difference, self.high
        return -self.high, -self.difference, -self.low

    @property
    def p_worse(self) -> float:
        """One-sided, of the hypothesis that b is no worse than a."""
        loss = self.loss[1]
        if not self.standard_error:
            return 1.0
        return below(-loss / self.standard_error, self.freedom)


def _why_not(found: Comparison) -> str:
    if found.better == "neither":
        return "neither more nor less of it is better"
    return "a sum of absolute gaps is biased upwards, and no interval of its difference holds what it promises"


@dataclass(frozen=True)
class Verdict:
    """Whether b loses less than `margin`: the whole interval of the loss says so, says the contrary, or neither.

    `rows_needed`, of an undecided one: how many rows of this kind would show it nine times of ten, were both models
    equally good.
    """

    margin: float
    outcome: Outcome
    rows_needed: int | None


def compare(
    label: ArrayLike,
    logit_a: ArrayLike,
    logit_b: ArrayLike,
    metric: str = "auc",
    *,
    group: ArrayLike | None = None,
    field: ArrayLike | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """The paired difference b - a of a metric, with its 95% interval.

    Args:
        label: [N] 0 or 1; of ranked lists (`ndcg@10` and the like) relevances of 0 or more.
        logit_a: [N] scores of the baseline.
        logit_b: [N] scores of the candidate.
        metric: one of `slimrank.evaluation.sums.METRICS` or `RANKED`.
        group: [N] user or query: what GAUC and ranked lists are of, and what rows hang together by. Without it every
            row stands for itself.
        field: [N] whose values `field_ece` looks within.
        draws: of the bootstrap.
        seed: of the bootstrap.

    >>> found = compare([0, 1] * 10, [0.0, 1.0] * 10, [0.0, 1.0] * 9 + [1.0, 0.0])
    >>> found.a, round(found.b, 2), round(found.high - found.low, 2)
    (1.0, 0.9, 0.32)

    Raises:
        InputError: an unknown metric, a column it needs is missing, fewer than 10 rows of a class (AUC) or than 20
            groups, no rows, a label that is not allowed, NaN, lengths that differ.
    """
    chosen = find_metric(metric)
    rows = Rows(np.asarray(label), _column(group), _column(field))
    if chosen.needs and getattr(rows, chosen.needs) is None:
        how = ", as in field_ece@city" if chosen.needs == "field" else ""
        raise InputError(f"metric {metric!r} needs a {chosen.needs} for every row, and none is given{how}")
    count = len(rows.label)
    if not count:
        raise InputError("no rows to compare")
    cluster = np.arange(count) if rows.group is None else codes_of(rows.group, count)[1]
    groups = 0 if rows.group is None else int(cluster.max()) + 1
    if chosen.told is not None:
        first, second = (chosen.told(rows, np.asarray(logit)) for logit in (logit_a, logit_b))
        named = chosen.name, chosen.better, first, second, second - first
        return Comparison(*named, None, None, None, None, count, groups, 0)
    if chosen.sums is None:
        return _of_auc(chosen, rows, logit_a, logit_b, cluster)
    cluster = dealt(cluster, seed)
    clusters = int(cluster.max()) + 1
    a, b = (chosen.sums(rows, np.asarray(logit), cluster) for logit in (logit_a, logit_b))
    whole = a.whole(), b.whole()
    drawn = bootstrap(a, b, clusters, draws, seed)
    low, high = drawn.interval()
    if chosen.of_groups and not np.array_equal(logit_a, logit_b):
        low, high = _not_too_narrow(a, b, low, high, groups)
    known = chosen.name, chosen.better, *whole, whole[1] - whole[0]
    return Comparison(*known, drawn.standard_error, low, high, drawn.p, count, groups, clusters - 1)


def _not_too_narrow(a: Sums, b: Sums, low: float, high: float, groups: int) -> tuple[float, float]:
    """The interval, as wide as it must be where hardly any group tells two models apart.

    Where none of n groups differs, 3.7 / n of all still may: draws of groups that are alike show no spread.
    """
    if int((a.amounts != b.amounts).sum()) >= FEW_DIFFERENT:
        return low, high
    difference, room = b.whole() - a.whole(), POISSON_NONE / groups
    return min(low, difference - room), max(high, difference + room)


def _column(values: ArrayLike | None) -> NDArray[Any] | None:
    return None if values is None else np.asarray(values)


def judge(found: Comparison, margin: float) -> Verdict:
    """Whether the candidate is non-inferior at `margin`: whether the 95% interval of the loss lies below it.

    That is a one-sided test at 2.5%, as regulators ask for (FDA 2016, "Non-inferiority clinical trials").

    Raises:
        InputError: the margin is not above 0 and finite, or the metric is not one to be judged.
    """
    if not 0 < margin < math.inf:
        raise InputError(f"margin: got {margin}, allowed more than 0 and finite")
    _, loss, most = found.loss
    outcome = outcome_at(found, margin)
    if outcome != "undecided":
        return Verdict(margin, outcome, None)
    times = (most - loss) / margin  # of an interval that is as wide as it is because no group differs
    if found.standard_error:
        points = (most - loss) / found.standard_error + NORMAL.inv_cdf(POWER)
        times = (points * found.standard_error / margin) ** 2
    return Verdict(margin, outcome, math.ceil(found.rows * times))


def outcome_at(found: Comparison, limit: float) -> Outcome:
    """Whether the 95% interval of the loss lies below `limit`, from it on, or around it; one below 0 asks for a gain.

    Raises:
        InputError: the metric is not one to be judged.
    """
    least, _, most = found.loss
    return "non-inferior" if most < limit else "inferior" if least >= limit else "undecided"


def _of_auc(
    chosen: Metric, rows: Rows, logit_a: ArrayLike, logit_b: ArrayLike, cluster: NDArray[np.int64]
) -> Comparison:
    """The difference of AUC by placements.

    With V_i the placement of row i (see `placements`) and d = V_b - V_a, DeLong's variance is
    var(d over the m positives) / m + var(d over the n negatives) / n, both variances with m - 1, n - 1. Of rows in G
    groups it is G / (G - 1) times the sum over groups of (sum of (d - mean) / m over its positives, and / n over its
    negatives) squared.
    """
    positive = check_rows(rows.label, logit_a).label
    check_rows(rows.label, logit_b)
    counts = int(positive.sum()), int((~positive).sum())
    if min(counts) < LEAST_OF_CLASS:
        raise InputError(
            f"an interval needs {LEAST_OF_CLASS} rows of each class, got {counts[0]} positive, {counts[1]} negative"
        )
    groups = 0 if rows.group is None else int(cluster.max()) + 1
    if 0 < groups < LEAST_CLUSTERS:
        raise InputError(f"an interval needs {LEAST_CLUSTERS} groups, got {groups}")
    place_a, place_b = placements(rows.label, logit_a), placements(rows.label, logit_b)
    change = place_b - place_a
    if not groups:
        variance = sum(float(change[part].var(ddof=1)) / int(part.sum()) for part in (positive, ~positive))
    else:
        share = np.where(positive, (change - change[positive].mean()) / counts[0], 0.0)
        share += np.where(positive, 0.0, (change - change[~positive].mean()) / counts[1])
        variance = groups / (groups - 1) * float(np.square(np.bincount(cluster, share)).sum())
    auc_a, auc_b = float(place_a[positive].mean()), float(place_b[positive].mean())
    error, difference, freedom = (
        math.sqrt(variance),
        auc_b - auc_a,
        min(counts if not groups else (*counts, groups)) - 1,
    )
    room = student_point(freedom) * error
    p = two_sided(difference / error, freedom) if error > 0 else 1.0
    low, high = difference - room, difference + room
    known = chosen.name, chosen.better, auc_a, auc_b, difference
    return Comparison(*known, error, low, high, p, len(positive), groups, freedom)


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
