"""Samples of a load to figures: counts by status, exact percentiles of latencies, rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.load.answers import RIGHT, WRONG
from bench.load.generator import COLUMNS, FAULTS, NO_CONNECTION, SHED, Loaded
from bench.load.plan import Plan
from bench.load.requests import Request

INTENDED, SENT, DONE, STATUS, PLACE, VERDICT = range(len(COLUMNS))
SHARES = (0.5, 0.9, 0.99, 0.999)


def percentile(ordered: NDArray[Any], share: float) -> float:
    """The smallest of the sorted values that at least `share` of them do not exceed (nearest rank).

    >>> percentile(np.arange(1, 201), 0.99)
    198.0
    """
    return float(ordered[max(0, math.ceil(round(share * len(ordered), 6)) - 1)])


def spread(nanoseconds: ArrayLike) -> dict[str, float]:
    """Percentiles and the largest, in milliseconds, and of how many; none of no values."""
    ordered = np.sort(np.asarray(nanoseconds, np.float64)) / 1e6
    if not len(ordered):
        return {"count": 0}
    named = {f"p{100 * share:g}": round(percentile(ordered, share), 4) for share in SHARES}
    return {"count": len(ordered), **named, "max": round(float(ordered[-1]), 4)}


def figures(loaded: Loaded, plan: Plan, requests: Sequence[Request]) -> dict[str, Any]:
    """What a load was and what came of it. Counts and checks are of the whole, latencies and rates after the warm-up.

    - `latency_ms`: of answers with 200, from when the request was due; `from_send_ms`: from when it was sent.
    - `shed_ms`: of answers with 503, from when the request was sent.
    - `unexpected`: answers whose status is neither one that its request allows, nor 503.
    - `per_second`: answers with 200 a second, by the time of the answer.
    - `late_ms`: how long after it was due a request was sent.
    - `processor_share`: of one core, that the generator itself took: near 1 it is what is measured.
    """
    rows = loaded.samples
    warm = rows[rows[:, INTENDED] >= plan.warm_up * 1e9]
    good = warm[warm[:, STATUS] == 200]
    inside = rows[
        (rows[:, STATUS] == 200) & (rows[:, DONE] >= plan.warm_up * 1e9) & (rows[:, DONE] <= plan.seconds * 1e9)
    ]
    odd = unexpected(rows, requests)
    offered = warm[warm[:, STATUS] != NO_CONNECTION]
    return {
        "connections": plan.connections,
        **({"rate": plan.rate, "lossy": plan.lossy} if plan.rate else {"rate": "closed loop"}),
        "seconds": plan.seconds,
        "per_second": round(len(inside) / (plan.seconds - plan.warm_up), 2),
        "statuses": statuses(rows),
        "latency_ms": spread(good[:, DONE] - good[:, INTENDED]),
        "from_send_ms": spread(good[:, DONE] - good[:, SENT]),
        "shed_ms": spread((shed := warm[warm[:, STATUS] == SHED])[:, DONE] - shed[:, SENT]),
        "late_ms": spread(offered[:, SENT] - offered[:, INTENDED]),
        "unexpected": sum(odd.values()),
        **({"unexpected_answers": odd} if odd else {}),
        "right": int((rows[:, VERDICT] == RIGHT).sum()),
        "wrong": int((rows[:, VERDICT] == WRONG).sum()),
        **({"wrong_answers": loaded.wrong} if loaded.wrong else {}),
        "processor_share": round(loaded.processor / loaded.seconds, 4),
    }


def statuses(rows: NDArray[np.int64]) -> dict[str, int]:
    """How many answers had a status, and how many requests had none and why."""
    values, counts = np.unique(rows[:, STATUS], return_counts=True)
    return {FAULTS.get(value, str(value)): count for value, count in zip(values.tolist(), counts.tolist(), strict=True)}


def unexpected(rows: NDArray[np.int64], requests: Sequence[Request]) -> dict[str, int]:
    """By request and status: answers that were not shed, with a status that their request does not allow."""
    answered = rows[(rows[:, STATUS] > 0) & (rows[:, STATUS] != SHED)]
    pairs, counts = np.unique(answered[:, [PLACE, STATUS]], axis=0, return_counts=True)
    return {
        f"request {place}: {status}": count
        for (place, status), count in zip(pairs.tolist(), counts.tolist(), strict=True)
        if status not in requests[place].allowed
    }
