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
OUTLIER = 30  # times the mean, beyond which a request is no more than that: one that stood still says little


class Overloaded(Exception):
    """There is no room for a request; it may be tried again."""


class Gate:
    """Counts requests in work of one worker.

    Attributes:
        inside: how many there are.
        work: seconds that they are expected to occupy the worker for, together.
        held: bytes of bodies that are not whole yet.
        means: by model, what a request occupied the worker for lately, on average.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.inside = self.held = 0
        self.work = 0.0
        self.means: dict[str, float] = {}
        self.closed = False

    @asynccontextmanager
    async def room(self, model: str) -> AsyncIterator[None]:
        """Hold a place while a request for a model is answered.

        Raises:
            Overloaded: there is none, or the service is being stopped.
        """
        expected = self.enter(model)
        try:
            await asyncio.sleep(0)  # those that came in at the same time are counted before any is worked on
            yield
        finally:
            self._leave(expected)

    @contextmanager
    def aside(self, model: str) -> Iterator[Callable[[int], None]]:
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

        expected = self.means.get(model, 0.0)
        self._leave(expected)
        try:
            yield hold
        finally:
            full = self.full
            self._come(expected)
            self.held -= held
        if full:
            raise Overloaded

    def enter(self, model: str = "") -> float:
        """Take a place; what the request is expected to take, in seconds.

        Raises:
            Overloaded: as `room`.
        """
        if self.full:
            raise Overloaded
        expected = self.means.get(model, 0.0)
        self._come(expected)
        return expected

    def _come(self, expected: float) -> None:
        self.inside += 1
        self.work += expected

    def _leave(self, expected: float) -> None:
        self.inside -= 1
        self.work = self.work - expected if self.inside else 0.0  # no rest of roundings is left

    @property
    def full(self) -> bool:
        """Whether a request that comes now finds no room."""
        waiting = self.inside >= LEAST and 1e3 * self.work > self.limits.max_wait_ms
        return self.closed or self.inside >= self.limits.max_requests or waiting

    def learn(self, model: str, seconds: float) -> None:
        """A request for a model has occupied the worker for that long."""
        mean = self.means.get(model, 0.0)
        self.means[model] = mean + WEIGHT * (min(seconds, OUTLIER * mean + 0.01) - mean)


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
