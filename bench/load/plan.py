"""What a generator is to do, as it is handed to its process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """One stretch of load.

    Attributes:
        rate: requests a second on average, at the times of a Poisson process; 0 is a closed loop, in which each
            connection sends its next request when it has the answer to the last.
        connections: at most this many at once.
        seconds: how long requests are sent.
        warm_up: seconds at the beginning that no figure holds.
        lossy: a request for which no connection is free when it is due is given up, not sent late.
        pause: seconds for which a client of a closed loop that was shed (503) keeps still.
        timeout: seconds after which an answer is no longer waited for.
        core: the processor to run on; None for any.
        start: when to begin, on the clock of `time.perf_counter_ns`; 0 is at once.
    """

    host: str
    port: int
    requests: str
    connections: int
    seconds: float
    rate: float = 0.0
    warm_up: float = 0.0
    lossy: bool = False
    pause: float = 0.0
    timeout: float = 10.0
    seed: int = 0
    core: int | None = None
    start: int = 0
