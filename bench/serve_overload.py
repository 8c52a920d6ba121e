"""Ten times overload of the service: what is accepted stays fast, the rest is shed at once, and it is over when it is.

Normal is 80% of what the best closed loop reaches, over 32 connections. Overload is ten times as many clients in a
closed loop, once patient (who is shed keeps still for a second, as the answer's Retry-After says) and once not (who is
shed comes back at once), and ten times the saturation rate in an open loop over 320 connections, where a request that
finds no connection free is not sent. Recovery is what a steady load at 40% sees, which goes on before, through and
after an overload of the last kind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.load.figures import DONE, INTENDED, STATUS, figures
from bench.load.generator import SHED
from bench.load.plan import Plan
from bench.load.process import Load
from bench.load.requests import Request
from bench.serve import CLIENTS, Figures, our_service, requests_of, saturation, sound, stretch
from bench.serve_requests import CANDIDATES, artifacts_of
from bench.serve_servers import HOST, Server, cores, machine_of_load

TIMES = 10
TURNS, SECONDS = 3, 8.0
STEADY = 0.4  # of saturation: the load that recovery is seen by
WINDOW_MS = 100
RETRY_AFTER = 1.0  # seconds that the service asks for
LOADS = ("patient", "closed", "open")
GOAL = {"accepted_p99_over_normal": 2.0, "shed_ms_p99": 50.0, "recovery_s": 1.0}


def serve_overload(folder: Path, turns: int = TURNS, seconds: float = SECONDS) -> Figures:
    """The figures of the first seed's artifact in the run in `folder`, which is made where it is missing."""
    (artifact,) = artifacts_of(folder)
    with our_service(artifact) as server:
        kinds = requests_of(artifact)
        found = [{kind: _turn(server, asked, seconds) for kind, asked in kinds.items()} for _ in range(turns)]
    return {
        "what": f"ten times overload of slimrank serve on Frappe, {CANDIDATES} candidates a request, one worker",
        **{kind: summary([turn[kind] for turn in found]) for kind in kinds},
        "goal": GOAL,
        **machine_of_load(),
        "runs": found,
    }


def _turn(server: Server, requests: Sequence[Request], seconds: float) -> Figures:
    full = saturation(server, requests, seconds / 2)
    rate = float(full["per_second"])
    normal = stretch(server, requests, seconds=seconds, rate=0.8 * rate)
    clients, storm = TIMES * CLIENTS, TIMES * rate
    return {
        "saturated": full,
        "normal": normal,
        "patient": stretch(server, requests, connections=clients, seconds=seconds, pause=RETRY_AFTER),
        "closed": stretch(server, requests, connections=clients, seconds=seconds),
        "open": stretch(server, requests, connections=clients, seconds=seconds, rate=storm, lossy=True),
        "recovery": _recovery(server, requests, rate, seconds / 2),
    }


def _recovery(server: Server, requests: Sequence[Request], rate: float, seconds: float) -> Figures:
    """A steady load, and in its middle third the overload."""
    core = cores()[1]
    start = time.perf_counter_ns() + 3_000_000_000  # both generators have started by then
    steady = Plan(HOST, server.port, "", CLIENTS, 3 * seconds, STEADY * rate, core=core, start=start)
    storm_start = start + int(seconds * 1e9)
    storm = Plan(
        HOST, server.port, "", TIMES * CLIENTS, seconds, TIMES * rate, lossy=True, core=core, start=storm_start
    )
    with Load(steady, requests) as seen, Load(storm, requests) as pushed:
        over, samples = pushed.result(), seen.result()
    rows = samples.samples
    begin, end = int(seconds * 1e9), int(seconds * 1e9 + over.samples[:, INTENDED].max())
    return {
        "recovery_s": recovered(rows, begin, end),
        "steady": figures(samples, steady, requests),
        "overload": figures(over, storm, requests),
    }


def recovered(rows: NDArray[np.int64], begin: int, end: int) -> float:
    """Seconds from the end of the overload to the end of the last window that was not as before it.

    A window of 100 ms, of requests due in it, is as before where none was shed or failed, and its median is within
    twice the 99th percentile of what came before `begin`.
    """
    good = rows[:, STATUS] == 200
    taken = rows[:, DONE] - rows[:, INTENDED]
    usual = float(np.percentile(taken[good & (rows[:, INTENDED] < begin)], 99))
    window = WINDOW_MS * 1_000_000
    last = end
    for start in range(end, int(rows[:, INTENDED].max()), window):
        inside = (rows[:, INTENDED] >= start) & (rows[:, INTENDED] < start + window)
        if inside.any() and (not good[inside].all() or float(np.median(taken[inside])) > 2 * usual):
            last = start + window
    return round((last - end) / 1e9, 3)


def summary(turns: Sequence[Figures]) -> Figures:
    """Medians over turns; ratios are to the turn's own normal."""

    def over(load: str) -> float:
        return float(median(turn[load]["latency_ms"]["p99"] / turn["normal"]["latency_ms"]["p99"] for turn in turns))

    def shed(load: str, name: str) -> float | None:
        found = [turn[load]["shed_ms"][name] for turn in turns if turn[load]["shed_ms"]["count"]]
        return median(found) if found else None

    every: list[Any] = [turn[name] for turn in turns for name in ("saturated", "normal", *LOADS)]
    every += [turn["recovery"][name] for turn in turns for name in ("steady", "overload")]
    return {
        "saturation_per_second": median(turn["saturated"]["per_second"] for turn in turns),
        "normal_p99_ms": median(turn["normal"]["latency_ms"]["p99"] for turn in turns),
        "accepted_per_second": {load: median(turn[load]["per_second"] for turn in turns) for load in LOADS},
        "accepted_p99_ms": {load: median(turn[load]["latency_ms"]["p99"] for turn in turns) for load in LOADS},
        "accepted_p99_over_normal": {load: over(load) for load in LOADS},
        "shed": {load: sum(turn[load]["statuses"].get(str(SHED), 0) for turn in turns) for load in LOADS},
        "shed_ms": {load: {name: shed(load, name) for name in ("p50", "p99", "max")} for load in LOADS},
        "recovery_s": median(turn["recovery"]["recovery_s"] for turn in turns),
        **sound(every),
    }
