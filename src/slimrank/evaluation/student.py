"""Student's t beside the normal distribution, to three digits from nine degrees of freedom on, without SciPy."""

from __future__ import annotations

import math
from statistics import NormalDist

NORMAL = NormalDist()


def student_point(freedom: float, level: float = 0.95) -> float:
    """The point that the middle `level` of t ends at (Cornish and Fisher; Abramowitz and Stegun 26.7.5).

    >>> round(student_point(19), 3), round(student_point(1e9), 3)
    (2.093, 1.96)
    """
    z = NORMAL.inv_cdf((1 + level) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def below(t: float, freedom: float) -> float:
    """The chance that t is below a value (Abramowitz and Stegun 26.7.8).

    >>> round(below(-2.093, 19), 3)
    0.025
    """
    if math.isinf(t):
        return float(t > 0)
    return NORMAL.cdf(t * (1 - 1 / (4 * freedom)) / math.sqrt(1 + t * t / (2 * freedom)))


def two_sided(t: float, freedom: float) -> float:
    """The chance that t is at least so far from 0."""
    return min(1.0, 2 * below(-abs(t), freedom))
