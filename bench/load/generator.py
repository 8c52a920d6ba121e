"""The loop of a generator: due requests out, answers in, a sample for each.

In an open loop a latency begins when its request was due, not when a connection got free for it: a server that stands
still for a second is seen by all that would have come in that second, not by the few that were on their way.
"""

from __future__ import annotations

import select
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.load.answers import UNCHECKED, Checker
from bench.load.connection import WRITABLE, Connection
from bench.load.plan import Plan
from bench.load.requests import Request
from bench.load.timer import BILLION, Timer

RESET, TIMEOUT, UNREADABLE, NO_CONNECTION = -1, -2, -3, -4
FAULTS = {RESET: "reset", TIMEOUT: "timeout", UNREADABLE: "unreadable", NO_CONNECTION: "no_connection"}
COLUMNS = ("intended", "sent", "done", "status", "place", "verdict")
SHED = 503
RETRY = 20_000_000  # nanoseconds until a refused connection is tried again
SWEEP = 100_000_000  # nanoseconds between looks for answers that take too long


@dataclass(frozen=True, eq=False)
class Loaded:
    """What was seen: a row of samples for each request, times in nanoseconds from the begin.

    Attributes:
        samples: int64 [N, 6], `COLUMNS`.
        processor: seconds of processor time that the generator took in all.
        seconds: that it ran.
        wrong: the first wrong answers.
    """

    samples: NDArray[np.int64]
    processor: float
    seconds: float
    wrong: list[dict[str, Any]]


def due_times(plan: Plan) -> NDArray[np.int64]:
    """When requests of an open loop are due, nanoseconds from the begin: a Poisson process of that rate."""
    draw = np.random.default_rng(plan.seed)
    count = int(plan.rate * plan.seconds + 10 * (plan.rate * plan.seconds) ** 0.5 + 10)
    times = np.cumsum(draw.exponential(1 / plan.rate, count))
    return np.asarray(times[times < plan.seconds] * BILLION, np.int64)


class Generator:
    """One run of a plan."""

    def __init__(self, plan: Plan, requests: Sequence[Request]) -> None:
        self.plan, self.requests = plan, requests
        self.checker = Checker(requests)
        self.samples = array("q")
        self.poll, self.timer = select.epoll(), Timer()
        address = (plan.host, plan.port)
        self.connections = {each.fd: each for each in (Connection(address, self.poll) for _ in range(plan.connections))}
        self.idle = deque(self.connections.values())
        self.broken: deque[tuple[int, Connection]] = deque()  # and when to try them again
        self.resting: deque[tuple[int, Connection]] = deque()  # clients that were shed, and until when they keep still
        self.late: deque[int] = deque()  # due times of requests that no connection was free for
        self.due = due_times(plan).tolist() if plan.rate else []
        weights = np.array([each.weight for each in requests])
        chosen = np.random.default_rng(plan.seed + 1).choice(len(requests), 65_536, p=weights / weights.sum())
        self.order: list[int] = chosen.tolist()
        self.sent, self.next_due = 0, 0

    def run(self) -> Loaded:
        """Send until the time is over, and wait for what is on its way."""
        self.poll.register(self.timer.fd, select.EPOLLIN | select.EPOLLET)
        self.begin = self.plan.start or time.perf_counter_ns()
        self.until = self.begin + int(self.plan.seconds * BILLION)
        self.due = [each + self.begin for each in self.due]
        self.swept = self.begin
        time.sleep(max(0.0, (self.begin - time.perf_counter_ns()) / BILLION))
        used, started = time.process_time(), time.perf_counter()
        while self._step():
            pass
        self._end()
        rows = np.array(self.samples, np.int64).reshape(-1, len(COLUMNS))
        rows[:, :3] -= self.begin
        return Loaded(rows, time.process_time() - used, time.perf_counter() - started, self.checker.wrong)

    def _step(self) -> bool:
        """Send what is due, wait, take what came; False when all is done."""
        now = time.perf_counter_ns()
        self._send_due(now)
        if now - self.swept > SWEEP:
            self._sweep(now)
        self._mend(now)
        more = self.next_due < len(self.due) if self.plan.rate else now < self.until
        if not more and not self.late and self._unused() == self.plan.connections:
            return False
        for fd, event in self.poll.poll(0.01 if self.resting or self.broken else 0.1):
            connection = self.connections.get(fd)
            if connection is None:
                continue  # the timer: what is due is sent at the next step
            if event & WRITABLE:
                self._flush(connection)
            if event & ~WRITABLE and connection.fd == fd:
                self._take(connection)
        return True

    def _unused(self) -> int:
        return len(self.idle) + len(self.broken) + len(self.resting)

    def _send_due(self, now: int) -> None:
        if not self.plan.rate:
            while self.idle and now < self.until:
                self._send(self.idle.popleft(), now)
            return
        due, place = self.due, self.next_due
        if place == len(due):
            return
        while place < len(due) and due[place] <= now:
            if self.idle:
                self._send(self.idle.popleft(), due[place])
            elif self.plan.lossy:
                self.samples.extend((due[place], now, now, NO_CONNECTION, 0, UNCHECKED))
            else:
                self.late.append(due[place])
            place += 1
        if place != self.next_due or place == 0:
            self.next_due = place
            if place < len(due):
                self.timer.ring_at(due[place])

    def _send(self, connection: Connection, intended: int) -> None:
        connection.place = self.order[self.sent & 65_535]
        self.sent += 1
        connection.intended, connection.sent = intended, time.perf_counter_ns()
        try:
            connection.send(self.requests[connection.place].data)
        except OSError:
            self._failed(connection, RESET)

    def _flush(self, connection: Connection) -> None:
        try:
            connection.flush()
        except OSError:
            self._failed(connection, RESET)

    def _take(self, connection: Connection) -> None:
        """An answer, or the end of a connection."""
        try:
            answer = connection.receive()
        except OSError:
            self._failed(connection, RESET)
            return
        except ValueError:
            self._failed(connection, UNREADABLE)
            return
        if answer is None:
            return
        done, place = time.perf_counter_ns(), connection.place
        if place < 0:  # an answer that nobody asked for
            self._failed(connection, UNREADABLE)
            return
        verdict = self.checker.verdict(place, answer.status, answer.head, answer.body)
        self.samples.extend((connection.intended, connection.sent, done, answer.status, place, verdict))
        if not answer.keep:
            self._reconnect(connection)
        if answer.status == SHED and self.plan.pause:
            connection.place = -1
            self.resting.append((done + int(self.plan.pause * BILLION), connection))
        else:
            self._free(connection)

    def _free(self, connection: Connection) -> None:
        """The next request on it, if one waits; else it is idle."""
        connection.place = -1
        if self.late:
            self._send(connection, self.late.popleft())
        else:
            self.idle.append(connection)

    def _failed(self, connection: Connection, fault: int) -> None:
        """Note what became of its request, if it had one, and try a new connection a little later."""
        now = time.perf_counter_ns()
        if connection.place >= 0:
            self.samples.extend((connection.intended, connection.sent, now, fault, connection.place, UNCHECKED))
        elif connection in self.idle:  # closed while idle, as servers do
            self.idle.remove(connection)
        else:
            self.resting = deque(each for each in self.resting if each[1] is not connection)
        self.broken.append((now + RETRY, connection))
        connection.place = -1
        self.connections.pop(connection.fd, None)
        connection.close()

    def _mend(self, now: int) -> None:
        """Take back the clients that have kept still long enough, and connect anew what broke."""
        while self.resting and self.resting[0][0] <= now:
            self._free(self.resting.popleft()[1])
        while self.broken and self.broken[0][0] <= now:
            connection = self.broken.popleft()[1]
            self._reconnect(connection)
            self._free(connection)

    def _reconnect(self, connection: Connection) -> None:
        self.connections.pop(connection.fd, None)
        connection.connect()
        self.connections[connection.fd] = connection

    def _sweep(self, now: int) -> None:
        """Give up what has waited too long."""
        self.swept = now
        oldest = now - int(self.plan.timeout * BILLION)
        for connection in list(self.connections.values()):
            if connection.place >= 0 and connection.sent < oldest:
                self._failed(connection, TIMEOUT)
        while self.late and self.late[0] < oldest:
            self.samples.extend((self.late.popleft(), now, now, NO_CONNECTION, 0, UNCHECKED))

    def _end(self) -> None:
        for connection in self.connections.values():
            connection.close()
        self.timer.close()
        self.poll.close()
