"""Metrics in numpy, exact with ties: of clicks (a label for each row), and of ranked lists in `top_k`.

Below training, since early stopping and steps that prune within a bound need them.
"""

from slimrank.metrics.clicks import (
    Floats,
    Grouped,
    Scored,
    auc,
    auc_by_group,
    check_rows,
    codes_of,
    fault,
    gauc,
    logloss,
    normalized_entropy,
    pcoc,
    quality,
    sigmoid,
    sorted_ties,
)

__all__ = [
    "Floats",
    "Grouped",
    "Scored",
    "auc",
    "auc_by_group",
    "check_rows",
    "codes_of",
    "fault",
    "gauc",
    "logloss",
    "normalized_entropy",
    "pcoc",
    "quality",
    "sigmoid",
    "sorted_ties",
]
