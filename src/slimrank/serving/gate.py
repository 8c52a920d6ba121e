"""Who may come in: a bounded number of requests, and no more work before one than it may wait for.

A request over the bounds is told so at once, before its body is read: a backlog would make every answer late, and a
late answer is worth nothing to who ranks. What a request takes is learned from those that were answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from slimrank.serving.settings import Limits

WEIGHT = 0.05  # of a new request in the mean time that one takes
WAITING = ("wait", "read", "queue")  # stages in which others are worked for
LEAST = 2  # requests that may be in work whatever they take: of a slow model each is longer than any bound
OUTLIER = 4  # times the mean, beyond which a request is no more than that


class Overloaded(Exception):
    """There is no room for a request; it may be tried again."""


class Gate:
    """Counts requests in work of one worker.

    Attributes:
        inside: how many there are.
        held: bytes of bodies that are not whole yet.
        seconds: what a request occupied the worker for lately, on average.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.inside = self.held = 0
        self.seconds = 0.0
        self.closed = False

    @asynccontextmanager
    async def room(self) -> AsyncIterator[None]:
        """Hold a place while a request is answered.

        Raises:
            Overloaded: there is none, or the service is being stopped.
        """
        self.enter()
        try:
            await asyncio.sleep(0)  # those that came in at the same time are counted before any is worked on
            yield
        finally:
            self.inside -= 1

    @contextmanager
    def aside(self) -> Iterator[Callable[[int], None]]:
        """Give the place back while a request waits for its own client, so that slow clients take none from others.

        What this yields is told of the bytes that came.

        Raises:
            Overloaded: all places were taken meanwhile, or all clients together have sent too much.
        """
        held = 0

        def hold(count: int) -> None:
            nonlocal held
            held += count
            self.held += count
            if self.held > self.limits.max_held_bytes:
                raise Overloaded

        self.inside -= 1
        try:
            yield hold
        finally:
            self.inside += 1
            self.held -= held
        if self.inside > self.limits.max_requests:
            raise Overloaded

    def enter(self) -> None:
        """Take a place, which the caller gives back.

        Raises:
            Overloaded: as `room`.
        """
        if self.full:
            raise Overloaded
        self.inside += 1

    @property
    def full(self) -> bool:
        """Whether a request that comes now finds no room."""
        waiting = 1e3 * self.inside * self.seconds > self.limits.max_wait_ms and self.inside >= LEAST
        return self.closed or self.inside >= self.limits.max_requests or waiting

    def learn(self, seconds: float) -> None:
        """A request has occupied the worker for that long."""
        likely = min(seconds, OUTLIER * self.seconds + 1e-3)  # one that stood still says little of the next
        self.seconds += WEIGHT * (likely - self.seconds)


class Stopwatch:
    """How long the stages of one request took, in the order in which they ended.

    Attributes:
        joined: how many requests shared its call of the graph.
    """

    def __init__(self) -> None:
        self.begun = self.last = time.perf_counter()
        self.stages: dict[str, float] = {}
        self.joined = 1

    def lap(self, stage: str) -> None:
        """The time since the last call belongs to `stage`."""
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + now - self.last
        self.last = now

    @property
    def worked(self) -> float:
        """Seconds that the request itself took, its part of a shared call; what it waited for others is left out."""
        working = sum(taken for stage, taken in self.stages.items() if stage not in WAITING)
        return working - self.stages.get("run", 0.0) * (1 - 1 / self.joined)
