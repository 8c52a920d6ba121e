"""Requests that came in together share one call of a graph; none of them sees the rows, or the error, of another.

What is joined has passed its own checks, has the same sizes but for rows, and is cut apart by rows. A graph that is
very fast is called at once for each of them, since joining takes longer than it saves; one that is fast where the
requests are read, since a change of threads would; one that is slow in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from slimrank.serving.gate import Stopwatch
from slimrank.serving.served import Arrays
from slimrank.serving.settings import Batching

AT_ONCE_SECONDS = 0.0005  # a call that takes less, as those before it did, is not worth the wait for others
IN_PLACE_SECONDS = 0.002  # one that takes less is not worth a change of threads
WEIGHT = 0.1  # of a new call in the mean time of one


Found = TypeVar("Found")


class TooLate(Exception):
    """The time for a request ran out before it was answered."""


@dataclass(eq=False)
class _Waiting:
    arrays: Arrays
    rows: int
    until: float
    answer: asyncio.Future[Arrays]
    watch: Stopwatch
    since: float = field(default_factory=time.perf_counter)

    @property
    def form(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """What must be equal in requests that share a call."""
        return tuple((name, array.shape[1:]) for name, array in sorted(self.arrays.items()))


class Pace:
    """How long calls take, learned from those that were made.

    Attributes:
        seconds: of a call, on average.
        rows: of a call, on average.
    """

    def __init__(self) -> None:
        self.seconds, self.rows = IN_PLACE_SECONDS, 0.0  # of which nothing is known may be slow

    def learn(self, seconds: float, rows: int) -> None:
        """A call of so many rows took so long."""
        self.seconds += WEIGHT * (seconds - self.seconds)
        self.rows += WEIGHT * (rows - self.rows)

    def within(self, seconds: float, rows: int) -> bool:
        """Whether a call of so many rows takes less than that."""
        return self.seconds * max(1.0, rows / max(1.0, self.rows)) < seconds


class Batcher:
    """The calls of one loaded graph.

    Attributes:
        observe: told of every call: its rows.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        settings: Batching,
        thread: ThreadPoolExecutor,
        observe: Callable[[int], None] = lambda rows: None,
        *,
        joins: bool = True,
    ) -> None:
        self.run, self.settings, self.thread, self.observe, self.joins = run, settings, thread, observe, joins
        self.waiting: deque[_Waiting] = deque()
        self.working = False
        self.full = asyncio.Event()
        self.joint, self.single = Pace(), Pace()
        self.tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, arrays: Arrays, rows: int, until: float, watch: Stopwatch) -> Arrays:
        """The graph's answers to arrays of `rows` rows, before `until` (of `time.perf_counter`).

        `watch` learns how long it waited.

        Raises:
            TooLate: it was not called before then.
            Exception: what the graph raises for these rows alone.
        """
        if not (self.waiting or self.working or self.settings.delay_ms) and self.joint.within(AT_ONCE_SECONDS, rows):
            return self._timed(lambda: self.run(arrays), self.joint, rows, until, watch)
        loop = asyncio.get_running_loop()
        request = _Waiting(arrays, rows, until, loop.create_future(), watch)
        self.waiting.append(request)
        if sum(each.rows for each in self.waiting) >= self.settings.max_rows:
            self.full.set()
        if not self.working:
            self.working = True
            task = loop.create_task(self._work())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        try:
            async with asyncio.timeout(until - time.perf_counter()):
                return await request.answer
        except TimeoutError:
            raise TooLate from None

    async def alone(self, work: Callable[[], Found], rows: int, until: float, watch: Stopwatch) -> Found:
        """What `work` gives, which calls a graph for `rows` rows and cannot be joined; the rest as in a call.

        Raises:
            TooLate: it was not answered before then; what has not begun is not done.
        """
        timed = partial(self._timed, work, self.single, rows, until, watch)
        if self.single.within(IN_PLACE_SECONDS, rows):
            return timed()
        try:
            async with asyncio.timeout(until - time.perf_counter()):
                return await asyncio.get_running_loop().run_in_executor(self.thread, timed)
        except TimeoutError:
            raise TooLate from None

    def _timed(self, work: Callable[[], Found], pace: Pace, rows: int, until: float, watch: Stopwatch) -> Found:
        """What `work` gives, if it is not too late for it; how long it took is learned."""
        watch.lap("queue")
        if until < watch.last:
            raise TooLate
        self.observe(rows)
        begun = watch.last
        found = work()
        watch.lap("run")
        pace.learn(watch.last - begun, rows)
        return found

    async def _work(self) -> None:
        try:
            while self.waiting:
                if self.settings.delay_ms and self.joins:
                    await self._gather()
                await self._call(self._take())
                await asyncio.sleep(0)  # others are heard between two calls
        finally:
            self.working = False

    async def _gather(self) -> None:
        """Wait for more rows, until there are enough or the first has waited long enough."""
        left = self.waiting[0].since + self.settings.delay_ms / 1e3 - time.perf_counter()
        self.full.clear()
        if left > 0 and sum(each.rows for each in self.waiting) < self.settings.max_rows:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.full.wait(), left)

    def _take(self) -> list[_Waiting]:
        """The next requests that go together, without those that are given up."""
        taken: list[_Waiting] = []
        rows, now = 0, time.perf_counter()
        while self.waiting:
            first = self.waiting[0]
            if first.answer.done() or first.until < now:
                self.waiting.popleft()
                if not first.answer.done():
                    first.answer.set_exception(TooLate())
                continue
            fits = not taken or (self.joins and rows + first.rows <= self.settings.max_rows)
            if not fits or (taken and first.form != taken[0].form):
                break
            taken.append(self.waiting.popleft())
            rows += first.rows
        return taken

    async def _call(self, requests: list[_Waiting]) -> None:
        """Answer requests that were taken; whatever happens, none of them waits on, and the next are called."""
        try:
            await self._answer(requests)
        except Exception as error:
            for each in requests:
                if not each.answer.done():
                    each.answer.set_exception(error)

    async def _answer(self, requests: list[_Waiting]) -> None:
        if not requests:
            return
        rows = sum(each.rows for each in requests)
        self.observe(rows)
        for each in requests:
            each.watch.lap("queue")
        if self.joint.within(IN_PLACE_SECONDS, rows):
            answers = self._answers(requests)
        else:
            loop = asyncio.get_running_loop()
            answers = await loop.run_in_executor(self.thread, self._answers, requests)
        for request, answer in zip(requests, answers, strict=True):
            request.watch.lap("run")
            request.watch.joined = len(requests)
            if request.answer.done():
                continue
            if isinstance(answer, Exception):
                request.answer.set_exception(answer)
            else:
                request.answer.set_result(answer)

    def _answers(self, requests: list[_Waiting]) -> list[Arrays | Exception]:
        """What each request gets: a call for all, and where that fails one for each."""
        begun = time.perf_counter()
        try:
            found = self._together(requests)
        except Exception as error:
            if len(requests) == 1:
                return [error]
            return [self._answers([each])[0] for each in requests]
        self.joint.learn(time.perf_counter() - begun, sum(each.rows for each in requests))
        return list(found)

    def _together(self, requests: list[_Waiting]) -> list[Arrays]:
        if len(requests) == 1:
            return [self.run(requests[0].arrays)]
        names = requests[0].arrays
        joined = self.run({name: np.concatenate([each.arrays[name] for each in requests]) for name in names})
        cuts = np.cumsum([each.rows for each in requests])[:-1]
        parts = {name: np.split(array, cuts) for name, array in joined.items()}
        return [{name: part[place] for name, part in parts.items()} for place in range(len(requests))]
