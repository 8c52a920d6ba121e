"""Metrics as functions of sums over clusters, so that a bootstrap draws clusters and not rows.

Rows of one user, or of one query, hang together: drawn one by one they would promise more than they know. Of every
metric here the value is a function of a few sums over rows; a draw of clusters weighs each cluster's part of them, and
costs no look at the rows. AUC over all rows is no such sum: `slimrank.evaluation.paired` has its own interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError, nearest
from slimrank.evaluation.calibration import ece, field_ece
from slimrank.metrics import Floats, Grouped, auc_by_group, check_rows, sigmoid, top_k

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Rows:
    """What a metric is taken over: `label` and, where it needs them, `group` and `field`, each [N]."""

    label: NDArray[Any]
    group: NDArray[Any] | None = None
    field: NDArray[Any] | None = None


@dataclass(frozen=True)
class Sums:
    """A metric as `value` of totals [sums], where `amounts` [sums, clusters] says what each cluster adds to each.

    >>> mean = Sums(np.array([[3.0, 5.0]]), lambda totals: float(totals[0]))
    >>> mean.whole(), mean.drawn(np.array([2, 0]))
    (8.0, 6.0)
    """

    amounts: Floats
    value: Callable[[Floats], float]

    def whole(self) -> float:
        """The metric of all clusters."""
        return self.value(self.amounts.sum(axis=1))

    def drawn(self, times: NDArray[np.int64]) -> float:
        """The metric where cluster c was drawn `times` [c] times."""
        return self.value(self.amounts @ times)


@dataclass(frozen=True)
class Metric:
    """A metric that two models can be compared by.

    `sums(rows, logit, cluster)` gives its sums, `cluster` [N] being numbered from 0; None for AUC, which has an
    interval of its own, and for metrics that are `told` (rows, logit) and have none: a sum of absolute gaps is biased
    upwards, the more the better calibrated a model is, and its draws are as well. `needs` names the column of `Rows`
    that it cannot do without. `of_groups`: whether it is a mean over groups of values from 0 to 1.
    """

    name: str
    better: Better
    sums: Callable[[Rows, NDArray[Any], NDArray[np.int64]], Sums] | None
    needs: Literal["", "group", "field"] = ""
    told: Callable[[Rows, NDArray[Any]], float] | None = None
    of_groups: bool = False


def find_metric(name: str) -> Metric:
    """The metric of that name; those of ranked lists say how many ranks count, as in `ndcg@10`.

    `field_ece@city` is `field_ece`, named with the column that it looks within.

    Raises:
        InputError: there is none, or the ranks are missing or not allowed.
    """
    plain, at, ranks = name.partition("@")
    if plain in RANKED:
        if (at and not ranks.isdecimal()) or ranks == "0":
            raise InputError(f"metric {name!r}: ranks must be a number from 1 on, such as {plain}@10")
        if not at and plain not in ("mrr", "map"):
            raise InputError(f"metric {name!r} needs its ranks, such as {plain}@10")
        return Metric(name, "higher", _of_groups(RANKED[plain], int(ranks) if at else None), "group", of_groups=True)
    if plain == "field_ece" and ranks:
        return replace(METRICS[plain], name=name)
    if name not in METRICS:
        raise InputError(f"unknown metric {name!r}. {nearest(name, [*METRICS, *(f'{each}@10' for each in RANKED)])}")
    return METRICS[name]


def _rows(
    parts: Callable[[NDArray[Any], Floats, Floats], tuple[ArrayLike, ...]], value: Callable[[Floats], float]
) -> Callable[[Rows, NDArray[Any], NDArray[np.int64]], Sums]:
    """A metric of sums over rows: `parts(label, logit, probability)` gives what each row adds to each of them."""

    def sums(rows: Rows, logit: NDArray[Any], cluster: NDArray[np.int64]) -> Sums:
        checked = check_rows(rows.label, logit)
        z = checked.score.astype(np.float64)
        added = [np.broadcast_to(part, z.shape) for part in parts(checked.label, z, sigmoid(z))]
        endless = int(np.count_nonzero(~np.isfinite(np.sum(added, axis=0))))
        if endless:
            raise InputError(f"{endless} of {len(z)} rows are certain and wrong: an infinite loss, and none to compare")
        count = int(cluster.max()) + 1
        return Sums(np.stack([np.bincount(cluster, part, count) for part in added]), value)

    return sums


def _loss(label: NDArray[Any], logit: Floats) -> Floats:
    return np.asarray(np.logaddexp(0.0, np.where(label, -logit, logit)))


def _normalized(totals: Floats) -> float:
    loss, rows, clicks = totals
    rate = clicks / rows
    if not 0 < rate < 1:
        return float("nan")
    return float(loss / rows / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)))


def _field_ece(rows: Rows, logit: NDArray[Any]) -> float:
    assert rows.field is not None
    return field_ece(rows.label, logit, rows.field)


def _of_groups(each: Callable[..., Grouped], *settings: Any) -> Callable[[Rows, NDArray[Any], NDArray[np.int64]], Sums]:
    """The weighted mean over groups; a group belongs to the cluster of its rows."""

    def sums(rows: Rows, logit: NDArray[Any], cluster: NDArray[np.int64]) -> Sums:
        assert rows.group is not None
        found = each(rows.label, logit, rows.group, *settings)
        if not found.counted:
            raise InputError(f"none of the {len(found.group)} groups has both rows of label 0 and of more")
        _, first, code = np.unique(rows.group, return_index=True, return_inverse=True)
        if not np.array_equal(cluster, cluster[first][code]):
            raise InputError("a group lies in more than one cluster: rows of one group must be drawn together")
        known = ~np.isnan(found.value)
        own, weight, count = cluster[first][known], found.weight[known], int(cluster.max()) + 1
        amounts = [np.bincount(own, each, count) for each in (weight * found.value[known], weight)]
        return Sums(np.stack(amounts), _mean)

    return sums


def _of_values(rows: Rows, value: NDArray[Any], cluster: NDArray[np.int64]) -> Sums:
    """The mean of what was computed for each row before; rows without a value (NaN) do not count."""
    known = ~np.isnan(value)
    count = int(cluster.max()) + 1
    return Sums(np.stack([np.bincount(cluster[known], each, count) for each in (value[known], known[known])]), _mean)


def _mean(totals: Floats) -> float:
    return float(totals[0] / totals[1]) if totals[1] else float("nan")


RANKED: dict[str, Callable[..., Grouped]] = {
    "ndcg": top_k.ndcg,
    "recall": top_k.recall,
    "hit_rate": top_k.hit_rate,
    "mrr": top_k.reciprocal_rank,
    "map": top_k.average_precision,
}
METRICS = {
    each.name: each
    for each in (
        Metric("auc", "higher", None),
        Metric("gauc", "higher", _of_groups(auc_by_group), "group", of_groups=True),
        Metric("logloss", "lower", _rows(lambda y, z, p: (_loss(y, z), 1.0), _mean)),
        Metric("normalized_entropy", "lower", _rows(lambda y, z, p: (_loss(y, z), 1.0, y), _normalized)),
        Metric("pcoc", "neither", _rows(lambda y, z, p: (p, y), _mean)),
        Metric("value", "higher", _of_values, "group", of_groups=True),
        Metric("ece", "lower", None, told=lambda rows, logit: ece(rows.label, logit)),
        Metric("field_ece", "lower", None, "field", told=_field_ece),
    )
}
