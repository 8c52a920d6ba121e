"""The bootstrap over clusters: what two models' metrics would be, had other users or queries been asked.

Efron and Tibshirani 1993, "An introduction to the bootstrap", chapters 13 and 8.5 (clusters drawn whole). Both models
are judged on the same draws, so that the interval is of the difference. For metrics that are smooth in their sums; the
sum of absolute gaps of a calibration error is not, and no draw mends its bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.evaluation.student import NORMAL, student_point, two_sided
from slimrank.evaluation.sums import Sums
from slimrank.metrics import Floats

DRAWS = 2000
LEAST_CLUSTERS = 20
"""With fewer clusters percentiles promise too much: 20 draws of 20 things leave out a third of them each."""
MOST_CLUSTERS = 2000
"""More are dealt into so many at random: the variance of 2000 is known to 3%, and a draw costs no look at the rows."""


@dataclass(frozen=True)
class Drawn:
    """`difference` [draws] of the metric of b and that of a, of draws of `clusters` on which both are defined."""

    difference: Floats
    clusters: int

    @property
    def standard_error(self) -> float:
        """Standard deviation over draws."""
        return float(self.difference.std(ddof=1))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The middle `level` of the draws, somewhat wider where clusters are few.

        Percentiles are as narrow as a normal interval with a variance over n and not n - 1: they are taken further out
        by sqrt(n / (n - 1)) t / z (Hesterberg 2015, "What teachers should know about the bootstrap", section 3.3).
        """
        outside = NORMAL.cdf(-self._wider() * student_point(self.clusters - 1, level))
        low, high = np.quantile(self.difference, [outside, 1 - outside])
        return float(low), float(high)

    @property
    def p(self) -> float:
        """Two-sided, of the hypothesis that the difference is 0: at which level the interval ends there."""
        share = float((self.difference < 0).mean() + (self.difference == 0).mean() / 2)
        least = 1 / (len(self.difference) + 1)
        point = NORMAL.inv_cdf(min(max(share, least), 1 - least))
        return two_sided(point / self._wider(), self.clusters - 1)

    def _wider(self) -> float:
        return float(np.sqrt(self.clusters / (self.clusters - 1)))


def bootstrap(a: Sums, b: Sums, clusters: int, draws: int = DRAWS, seed: int = 0) -> Drawn:
    """Draw `clusters` of the clusters with replacement, `draws` times, and take the metric of both models on each.

    Raises:
        InputError: fewer than `LEAST_CLUSTERS` clusters, or the metric is not defined on most draws.
    """
    if clusters < LEAST_CLUSTERS:
        raise InputError(f"an interval needs {LEAST_CLUSTERS} rows, users or queries to draw from, got {clusters}")
    generator = np.random.default_rng(seed)
    found = np.array([_one(a, b, _times(generator, clusters)) for _ in range(draws)])
    known = found[np.isfinite(found)]
    if len(known) < draws / 2:
        raise InputError(f"the metric is not defined on {draws - len(known)} of {draws} draws of {clusters} clusters")
    return Drawn(known, clusters)


def dealt(cluster: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """The clusters of rows, numbered from 0; dealt into `MOST_CLUSTERS` at random where there are twice as many."""
    count = int(cluster.max()) + 1
    if count < 2 * MOST_CLUSTERS:
        return cluster
    return np.random.default_rng(seed).permutation(count)[cluster] % MOST_CLUSTERS


def _times(generator: np.random.Generator, clusters: int) -> NDArray[np.int64]:
    """How often each cluster is drawn."""
    return np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)


def _one(a: Sums, b: Sums, times: NDArray[np.int64]) -> float:
    return b.drawn(times) - a.drawn(times)
