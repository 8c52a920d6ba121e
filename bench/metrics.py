"""How long metrics and paired comparisons of a million rows take, one thread: seconds, medians of several calls."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from slimrank.evaluation.paired import compare
from slimrank.metrics import auc

ROWS, GROUPS, REPETITIONS = 1_000_000, 50_000, 5


def metrics() -> dict[str, Any]:
    """Seconds for AUC, and for the difference of two models with its interval: DeLong, and bootstraps over groups."""
    draw = np.random.default_rng(0)
    group = draw.integers(0, GROUPS, ROWS)
    label = draw.random(ROWS) < 0.2
    first = draw.normal(size=ROWS) + label
    second = first + 0.1 * draw.normal(size=ROWS)
    cases: dict[str, Callable[[], Any]] = {
        "auc": lambda: auc(label, first),
        "auc, DeLong": lambda: compare(label, first, second),
        "auc, DeLong by group": lambda: compare(label, first, second, group=group),
        **{
            f"{name}, bootstrap": lambda name=name: compare(label, first, second, name, group=group)
            for name in ("gauc", "logloss", "ndcg@10")
        },
    }
    return {
        "what": f"seconds for {ROWS:,} rows in {GROUPS:,} groups, one thread, median of {REPETITIONS}",
        "seconds": {name: _seconds(case) for name, case in cases.items()},
    }


def _seconds(case: Callable[[], Any]) -> float:
    taken = []
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        case()
        taken.append(time.perf_counter() - begin)
    return median(taken)
