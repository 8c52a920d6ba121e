"""Calibration: whether probabilities mean what they say, over all rows and within the values of a field.

Distillation, list-wise losses and coarse tables keep the order of rows and move their probabilities: ranking metrics do
not see it, and whoever bids or adds scores up does. Left out: PCOC, which is in `slimrank.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError
from slimrank.metrics import Floats, check_rows, codes_of, sigmoid

BINS = 15  # as Guo et al. 2017


@dataclass(frozen=True)
class Curve:
    """Calibration by bins of predicted probability, from low to high; bins without rows are left out.

    Attributes:
        predicted: [bins] mean probability.
        observed: [bins] share of positives.
        rows: [bins] how many rows, or the sum of their weights.
    """

    predicted: Floats
    observed: Floats
    rows: Floats


def calibration_curve(
    label: ArrayLike, logit: ArrayLike, bins: int = BINS, weight: ArrayLike | None = None, *, equal_rows: bool = True
) -> Curve:
    """Predicted and observed click rate by bins of the prediction.

    Bins hold equally many rows (rows of equal score stay together), or with `equal_rows` off are equally wide in
    probability; clicks are rare, and of equally wide bins the first would hold nearly all rows.

    >>> curve = calibration_curve([0, 1], [-1.0, 1.0], bins=2)
    >>> curve.predicted.round(3).tolist(), curve.observed.tolist()
    ([0.269, 0.731], [0.0, 1.0])

    Raises:
        InputError: no rows, a label that is not 0 or 1, NaN, lengths that differ, bins below 1.
    """
    rows = check_rows(label, logit, weight)
    mass = np.ones(len(rows.label)) if rows.weight is None else rows.weight
    chance = sigmoid(rows.score)
    cell = bins_of(chance, bins, mass, equal_rows=equal_rows)
    total: Floats = np.bincount(cell, mass, bins).astype(np.float64)
    known = total > 0
    predicted, observed = (np.bincount(cell, mass * values, bins)[known] for values in (chance, rows.label))
    return Curve(predicted / total[known], observed / total[known], total[known])


def as_lists(label: ArrayLike, logit: ArrayLike) -> dict[str, list[float]]:
    """The calibration curve as a result file holds it."""
    curve = calibration_curve(label, logit)
    return {"predicted": curve.predicted.tolist(), "observed": curve.observed.tolist(), "rows": curve.rows.tolist()}


def bins_of(chance: Floats, bins: int, weight: Floats, *, equal_rows: bool) -> NDArray[np.int64]:
    """The bin of every probability. [N]"""
    if bins < 1:
        raise InputError(f"bins: got {bins}, allowed 1 or more")
    if not equal_rows:
        return np.minimum((chance * bins).astype(np.int64), bins - 1)
    values, place = np.unique(chance, return_inverse=True)
    mass = np.bincount(place, weight, len(values))
    middle = np.cumsum(mass) - mass / 2
    cell: NDArray[np.int64] = np.minimum(middle / mass.sum() * bins, bins - 1).astype(np.int64)[place]
    return cell


def ece(
    label: ArrayLike, logit: ArrayLike, bins: int = BINS, weight: ArrayLike | None = None, *, equal_rows: bool = False
) -> float:
    """Expected calibration error: the mean over rows of |predicted - observed| of their bin.

    ECE = sum over bins of |sum of w (p - y)| / sum of w (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599), with
    bins that are equally wide unless asked for. It depends on the bins and is biased upwards on few rows.

    >>> round(ece([1, 0], [0.0, 0.0]), 3), round(ece([1, 1], [0.0, 0.0]), 3)
    (0.0, 0.5)

    Raises:
        InputError: as `calibration_curve`.
    """
    curve = calibration_curve(label, logit, bins, weight, equal_rows=equal_rows)
    return float(np.abs(curve.predicted - curve.observed) @ curve.rows / curve.rows.sum())


def field_ece(label: ArrayLike, logit: ArrayLike, field: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Calibration error within the values of a field, such as the advertiser, where the overall rate hides it.

    Field-ECE = sum over values of |sum of w (y - p) of their rows| / sum of w (Pan et al. 2020, arXiv 1911.10936).

    >>> field_ece([1, 0, 1, 0], [0.0, 0.0, 0.0, 0.0], ["a", "a", "b", "b"])
    0.0
    >>> field_ece([1, 1, 0, 0], [0.0, 0.0, 0.0, 0.0], ["a", "a", "b", "b"])
    0.5

    Raises:
        InputError: as `calibration_curve`.
    """
    rows = check_rows(label, logit, weight)
    names, code = codes_of(field, len(rows.label))
    mass: Any = np.ones(len(rows.label)) if rows.weight is None else rows.weight
    gap = np.bincount(code, mass * (rows.label - sigmoid(rows.score)), len(names))
    return float(np.abs(gap).sum() / mass.sum())
