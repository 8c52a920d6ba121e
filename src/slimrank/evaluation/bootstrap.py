"""The bootstrap over clusters: what two models' metrics would be, had other users or queries been asked.

Efron and Tibshirani 1993, "An introduction to the bootstrap", chapters 13 and 8.5 (clusters drawn whole). Both models
are judged on the same draws, so that the interval is of the difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.evaluation.sums import Sums
from slimrank.metrics import Floats

DRAWS = 2000
NORMAL = NormalDist()
LEAST_CLUSTERS = 20
"""With fewer clusters percentiles promise too much: 20 draws of 20 things leave out a third of them each."""


@dataclass(frozen=True)
class Drawn:
    """`difference` [draws] of the metric of b and that of a, of draws of `clusters` on which both are defined.

    `whole` is the difference of all clusters, each once.
    """

    difference: Floats
    clusters: int
    whole: float

    @property
    def standard_error(self) -> float:
        """Standard deviation over draws."""
        return float(self.difference.std(ddof=1))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The middle `level` of the draws, corrected for bias, and somewhat wider where clusters are few.

        A calibration error is larger on draws than on the rows themselves, so that percentiles of differences lie too
        near to 0: they are moved by twice the normal point z0 of the share of draws below the whole (Efron 1987,
        "Better bootstrap confidence intervals", BC). And they are as narrow as an interval with a variance over n and
        not n - 1: they are taken further out by sqrt(n / (n - 1)) t / z (Hesterberg 2015, "What teachers should know
        about the bootstrap", section 3.3).
        """
        z, rest = NORMAL.inv_cdf((1 + level) / 2), self.clusters - 1
        t = z + (z**3 + z) / (4 * rest) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * rest**2)  # of Student, to 1e-4
        wide, shift = math.sqrt(self.clusters / rest) * t, 2 * self._point_below(self.whole)
        low, high = np.quantile(self.difference, [NORMAL.cdf(shift - wide), NORMAL.cdf(shift + wide)])
        return float(low), float(high)

    @property
    def p(self) -> float:
        """Two-sided, of the hypothesis that the difference is 0: at which level the interval ends there."""
        z = self._point_below(0.0) - 2 * self._point_below(self.whole)
        return 2 * NORMAL.cdf(-abs(z) / math.sqrt(self.clusters / (self.clusters - 1)))

    def _point_below(self, value: float) -> float:
        """The normal point of the share of draws below `value`, those at it counting half."""
        share = float((self.difference < value).mean() + (self.difference == value).mean() / 2)
        least = 1 / (len(self.difference) + 1)
        return NORMAL.inv_cdf(min(max(share, least), 1 - least))


def bootstrap(a: Sums, b: Sums, clusters: int, draws: int = DRAWS, seed: int = 0) -> Drawn:
    """Draw `clusters` of the clusters with replacement, `draws` times, and take the metric of both models on each.

    Raises:
        InputError: fewer than `LEAST_CLUSTERS` clusters, or the metric is not defined on most draws.
    """
    if clusters < LEAST_CLUSTERS:
        raise InputError(f"an interval needs {LEAST_CLUSTERS} users or queries to draw from, got {clusters}")
    generator = np.random.default_rng(seed)
    found = np.array([_one(a, b, _times(generator, clusters)) for _ in range(draws)])
    known = found[np.isfinite(found)]
    if len(known) < draws / 2:
        raise InputError(f"the metric is not defined on {draws - len(known)} of {draws} draws of {clusters} clusters")
    return Drawn(known, clusters, b.whole() - a.whole())


def _times(generator: np.random.Generator, clusters: int) -> NDArray[np.int64]:
    """How often each cluster is drawn."""
    return np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)


def _one(a: Sums, b: Sums, times: NDArray[np.int64]) -> float:
    return b.drawn(times) - a.drawn(times)
