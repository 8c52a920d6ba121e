"""Bounds of what is in work: more is told so at once, with 503 and when to come again; what is over makes room."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from slimrank.serving import Limits
from slimrank.serving.gate import Gate, Overloaded, Stopwatch


async def _enter(gate: Gate, held: asyncio.Event) -> None:
    async with gate.room("m"):
        await held.wait()


def test_so_many_are_inside_and_no_more() -> None:
    async def crowd() -> None:
        gate, held = Gate(Limits(max_requests=3)), asyncio.Event()
        inside = [asyncio.ensure_future(_enter(gate, held)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await _enter(gate, held)
        held.set()
        await asyncio.gather(*inside)
        assert gate.inside == 0
        await _enter(gate, held)

    asyncio.run(crowd())


def test_a_request_that_fails_or_is_left_gives_its_place_back() -> None:
    async def one(gate: Gate) -> None:
        async with gate.room("m"):
            raise ValueError("wrong")

    async def crowd() -> None:
        gate = Gate(Limits(max_requests=1))
        with pytest.raises(ValueError, match="wrong"):
            await one(gate)
        left = asyncio.ensure_future(_enter(gate, asyncio.Event()))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert gate.inside == 0

    asyncio.run(crowd())


def test_no_more_work_stands_before_a_request_than_it_may_wait_for() -> None:
    gate = Gate(Limits(max_wait_ms=10))
    gate.means["m"] = 0.004
    for _ in range(3):  # 0, 4 and 8 ms stand before them
        gate.enter("m")
    with pytest.raises(Overloaded):
        gate.enter("m")
    gate._leave(0.004)
    gate.enter("m")


def test_slow_requests_that_are_few_are_learned_too() -> None:
    gate = Gate(Limits())
    for place in range(2000):
        gate.learn("m", 0.2 if place % 10 == 0 else 0.0003)
    assert gate.means["m"] == pytest.approx(0.02, rel=0.5)


def test_each_model_has_its_own_time() -> None:
    gate = Gate(Limits(max_wait_ms=10))
    gate.means |= {"fast": 0.0001, "slow": 0.02}
    for _ in range(50):
        gate.enter("fast")
    gate.enter("slow")
    with pytest.raises(Overloaded):
        gate.enter("fast")


def test_a_time_is_learned_from_all_of_late() -> None:
    gate = Gate(Limits())
    gate.learn("m", 1.0)  # an outlier counts as ten milliseconds more than thirty times the mean
    assert gate.means["m"] == pytest.approx(0.05 * 0.01)
    gate.learn("m", 0.0)
    assert gate.means["m"] == pytest.approx(0.0475 * 0.01)
    for taken in (1.0, 0.001):
        for _ in range(200):
            gate.learn("m", taken)
        assert gate.means["m"] == pytest.approx(taken, rel=0.1)


def test_a_request_or_two_of_a_slow_model_may_wait() -> None:
    gate = Gate(Limits(max_wait_ms=10))
    gate.means["m"] = 1.0
    gate.enter("m")
    gate.enter("m")
    with pytest.raises(Overloaded):
        gate.enter("m")


def test_who_waits_for_its_client_takes_no_place() -> None:
    gate = Gate(Limits(max_requests=1))

    async def read(sent: asyncio.Event) -> None:
        async with gate.room("m"):
            with gate.aside("m"):
                await sent.wait()
            assert gate.inside == 1

    async def crowd() -> None:
        sent = asyncio.Event()
        slow = [asyncio.ensure_future(read(sent))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert gate.inside == 0
        gate.enter("m")
        sent.set()
        with pytest.raises(Overloaded):  # its body is there, and no room
            await slow[0]
        gate._leave(0.0)
        await read(sent)
        assert gate.inside == 0

    asyncio.run(crowd())


def test_all_clients_together_may_send_so_much() -> None:
    gate = Gate(Limits(max_held_bytes=100))
    with gate.aside("m") as first:
        first(60)
        with pytest.raises(Overloaded), gate.aside("m") as second:
            second(41)
        assert gate.held == 60
        first(40)
    assert (gate.held, gate.inside) == (0, 0)


def test_a_closed_gate_lets_nobody_in() -> None:
    gate = Gate(Limits())
    gate.closed = True
    with pytest.raises(Overloaded):
        gate.enter("m")


def test_work_is_told_from_waiting() -> None:
    watch = Stopwatch()
    watch.stages = {"wait": 1.0, "read": 2.0, "queue": 4.0, "parse": 0.5, "run": 3.0, "reply": 0.25}
    assert watch.worked == 3.75
    watch.joined = 3
    assert watch.worked == 1.75


def test_overload_is_answered_at_once_and_over_when_it_is(
    serving: Any, linear: Any, row: dict[str, Any], eventually: Any
) -> None:
    served = serving(linear.path, limits=Limits(max_requests=2))
    gate, call = served.service.gate, served.service.repository.version("linear").call
    run, held = call.run, Event()
    call.run = lambda arrays: (held.wait(60), run(arrays))[1]
    with ThreadPoolExecutor(2) as pool:
        inside = [pool.submit(served.rank, candidates=[row]) for _ in range(2)]
        eventually(lambda: gate.inside == 2)
        for _ in range(3):
            answer = served.rank(candidates=[row])
            assert (answer.status_code, answer.json()) == (503, {"error": "too many requests; try again"})
            assert answer.headers["retry-after"] == "1"
        assert served.infer(inputs=[]).status_code == 503
        assert served.http.get("/v2/health/live").status_code == 200
        held.set()
        assert [each.result().status_code for each in inside] == [200, 200]
    assert served.rank(candidates=[row]).status_code == 200
    assert served.metric("shed_total") == 4


def test_clients_that_send_slowly_do_not_fill_the_service(
    serving: Any, linear: Any, row: dict[str, Any], eventually: Any
) -> None:
    served = serving(linear.path, limits=Limits(max_requests=2))
    head = b"POST /v2/models/linear/rank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    slow = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(10)]
    try:
        for each in slow:
            each.sendall(head)
            eventually(lambda: served.rank(candidates=[row]).status_code == 200)
        for _ in range(5):
            assert served.rank(candidates=[row]).status_code == 200
        for each in slow:
            each.setblocking(False)
            with pytest.raises(BlockingIOError):  # neither answered nor closed
                each.recv(1)
    finally:
        for each in slow:
            each.close()
    assert eventually(lambda: served.service.gate.inside == 0)
