"""Requests that share a call of a graph: each gets its own rows' answer or error, late ones are not computed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
import pytest

from slimrank.runtime import load
from slimrank.serving import Limits
from slimrank.serving.batching import IN_PLACE_SECONDS, Batcher, TooLate
from slimrank.serving.gate import Stopwatch
from slimrank.serving.settings import Batching

Arrays = dict[str, Any]


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


class Doubling:
    """A graph that doubles x, row by row, and keeps what it was asked; rows of -1 it cannot do."""

    def __init__(self) -> None:
        self.calls: list[Arrays] = []
        self.begun, self.held = Event(), Event()
        self.held.set()

    def __call__(self, arrays: Arrays) -> Arrays:
        self.calls.append(arrays)
        self.begun.set()
        assert self.held.wait(60)
        if (arrays["x"] == -1).any():
            raise ValueError("no -1")
        return {"y": 2 * arrays["x"]}

    @property
    def rows(self) -> list[int]:
        """Of every call."""
        return [len(arrays["x"]) for arrays in self.calls]


def of(*values: float, width: int = 1) -> Arrays:
    return {"x": np.repeat(np.array(values, np.float32)[:, None], width, axis=1)}


def later(seconds: float = 60) -> float:
    return time.perf_counter() + seconds


def ask(call: Batcher, *values: float, until: float | None = None, width: int = 1) -> Awaitable[Arrays]:
    return call(of(*values, width=width), len(values), until or later(), Stopwatch())


def answers(found: list[Any]) -> list[Any]:
    return [each["y"][:, 0].tolist() if isinstance(each, dict) else type(each) for each in found]


async def together(*asked: Awaitable[Arrays]) -> list[Any]:
    return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize(("seconds", "delay"), [(0.0, 5), (2 * IN_PLACE_SECONDS, 0), (2 * IN_PLACE_SECONDS, 5)])
def test_requests_that_come_together_share_a_call(thread: ThreadPoolExecutor, seconds: float, delay: float) -> None:
    graph, observed = Doubling(), list[int]()
    call = Batcher(graph, Batching(delay_ms=delay), thread, observed.append)
    call.joint.seconds = seconds
    found = asyncio.run(together(ask(call, 1, 2), ask(call), ask(call, 3), ask(call, 4, 5, 6)))
    assert answers(found) == [[2, 4], [], [6], [8, 10, 12]]
    assert graph.rows == observed == [6]


def test_a_graph_that_is_faster_than_joining_is_called_for_each(thread: ThreadPoolExecutor) -> None:
    graph, observed = Doubling(), list[int]()
    call = Batcher(graph, Batching(), thread, observed.append)
    call.joint.seconds = 0.0
    found = asyncio.run(together(ask(call, 1, 2), ask(call), ask(call, 3), ask(call, 4, until=later(-1))))
    assert answers(found) == [[2, 4], [], [6], TooLate]
    assert graph.rows == [2, 0, 1]
    assert observed == [2, 0, 1]


def test_a_call_has_no_more_rows_than_allowed_but_for_one_request(thread: ThreadPoolExecutor) -> None:
    graph = Doubling()
    call = Batcher(graph, Batching(max_rows=4), thread)
    found = asyncio.run(together(*(ask(call, *range(rows)) for rows in (3, 2, 2, 9, 1))))
    assert [len(each["y"]) for each in found] == [3, 2, 2, 9, 1]
    assert graph.rows == [3, 4, 9, 1]


def test_rows_that_see_each_other_are_not_joined(thread: ThreadPoolExecutor) -> None:
    graph = Doubling()
    call = Batcher(graph, Batching(delay_ms=60_000), thread, joins=False)
    assert answers(asyncio.run(together(ask(call, 1), ask(call, 2)))) == [[2], [4]]
    assert graph.rows == [1, 1]


def test_requests_of_other_widths_are_not_joined(thread: ThreadPoolExecutor) -> None:
    graph = Doubling()
    call = Batcher(graph, Batching(), thread)
    found = asyncio.run(together(ask(call, 1), ask(call, 2), ask(call, 3, width=2), ask(call, 4)))
    assert answers(found) == [[2], [4], [6], [8]]
    assert [arrays["x"].shape for arrays in graph.calls] == [(2, 1), (1, 2), (1, 1)]


def test_one_that_fails_harms_no_other(thread: ThreadPoolExecutor) -> None:
    graph = Doubling()
    call = Batcher(graph, Batching(), thread)
    found = asyncio.run(together(ask(call, 1), ask(call, 2, -1), ask(call, 3)))
    assert answers(found) == [[2], ValueError, [6]]
    assert graph.rows == [4, 1, 2, 1]  # all of them, then one by one
    assert answers(asyncio.run(together(ask(call, 5)))) == [[10]]


async def _while_one_is_computed(graph: Doubling, call: Batcher, meanwhile: Callable[[], Awaitable[None]]) -> Arrays:
    """The answer to a request that is in the graph until `meanwhile` is over."""
    graph.held.clear()
    first = asyncio.ensure_future(ask(call, 1))
    await asyncio.get_running_loop().run_in_executor(None, graph.begun.wait, 60)
    try:
        await meanwhile()
    finally:
        graph.held.set()
    return await first


def test_a_request_that_is_given_up_is_not_computed(thread: ThreadPoolExecutor) -> None:
    graph = Doubling()
    call = Batcher(graph, Batching(), thread)

    async def meanwhile() -> None:
        late = asyncio.ensure_future(ask(call, 2, until=later(0.01)))
        left = asyncio.ensure_future(ask(call, 3))
        with pytest.raises(TooLate):
            await late
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        with pytest.raises(TooLate):
            await ask(call, 4, until=later(-1))

    async def all_of_it() -> list[Any]:
        return [await _while_one_is_computed(graph, call, meanwhile), await ask(call, 5)]

    assert answers(asyncio.run(all_of_it())) == [[2], [10]]
    assert [arrays["x"].tolist() for arrays in graph.calls] == [[[1]], [[5]]]


@pytest.mark.parametrize("fast", [True, False])
def test_work_that_is_not_joined_knows_deadlines_too(thread: ThreadPoolExecutor, fast: bool) -> None:
    call = Batcher(Doubling(), Batching(), thread)
    call.single.seconds = 0.0 if fast else 2 * IN_PLACE_SECONDS
    done = list[int]()
    with pytest.raises(TooLate):
        asyncio.run(call.alone(lambda: done.append(1), 1, later(-1), Stopwatch()))
    assert asyncio.run(call.alone(lambda: 7, 1, later(), Stopwatch())) == 7
    assert done == []


def test_the_first_of_a_call_waits_for_others_no_longer_than_until_it_is_full(thread: ThreadPoolExecutor) -> None:
    graph = Doubling()
    call = Batcher(graph, Batching(max_rows=3, delay_ms=3_600_000), thread)

    async def one_after_another() -> list[Any]:
        asked = [asyncio.ensure_future(ask(call, value)) for value in (1, 2)]
        while not call.waiting:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert graph.calls == []
        return await together(*asked, ask(call, 3))

    assert answers(asyncio.run(one_after_another())) == [[2], [4], [6]]
    assert graph.rows == [3]


def test_a_short_delay_ends_by_itself(thread: ThreadPoolExecutor) -> None:
    graph = Doubling()
    call = Batcher(graph, Batching(delay_ms=1), thread)
    assert answers(asyncio.run(together(ask(call, 1)))) == [[2]]


def test_a_graph_of_which_nothing_is_known_runs_beside_the_loop(thread: ThreadPoolExecutor) -> None:
    graph = Doubling()
    call = Batcher(graph, Batching(), thread)

    async def meanwhile() -> None:
        await asyncio.sleep(0)  # comes back only where the loop is free

    assert answers([asyncio.run(_while_one_is_computed(graph, call, meanwhile))]) == [[2]]


def test_waiting_for_others_is_told_from_work(thread: ThreadPoolExecutor) -> None:
    call = Batcher(Doubling(), Batching(), thread)
    watches = [Stopwatch() for _ in range(4)]
    asyncio.run(together(*(call(of(1), 1, later(), watch) for watch in watches)))
    assert all(set(watch.stages) == {"queue", "run"} and watch.joined == 4 for watch in watches)
    assert all(watch.worked == pytest.approx(watch.stages["run"] / 4) for watch in watches)


def test_a_slow_graph_does_not_hold_up_health(serving: Any, linear: Any, row: dict[str, Any], eventually: Any) -> None:
    served = serving(linear.path)
    version = served.service.repository.version("linear")
    begun, held = Event(), Event()
    run = version.call.run

    def slow(arrays: Arrays) -> Arrays:
        begun.set()
        assert held.wait(60)
        return run(arrays)  # type: ignore[no-any-return]

    version.call.run = slow
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(served.rank, candidates=[row])
        eventually(begun.is_set)
        assert served.http.get("/v2/health/ready").json() == {"ready": True}
        held.set()
        assert asked.result().status_code == 200


def test_late_requests_are_told_so(serving: Any, linear: Any, row: dict[str, Any], eventually: Any) -> None:
    served = serving(linear.path, limits=Limits(timeout_ms=50))
    version = served.service.repository.version("linear")
    run, held = version.call.run, Event()
    version.call.run = lambda arrays: (held.wait(60), run(arrays))[1]
    answer = served.rank(candidates=[row])
    assert (answer.status_code, answer.json()) == (504, {"error": "the request ran out of time"})
    held.set()
    assert eventually(lambda: served.rank(candidates=[row]).status_code == 200)
    assert served.metric("requests_total", code="late") >= 1


def test_of_hundreds_at_once_everyone_gets_the_answer_to_its_own_rows(serving: Any, linear: Any) -> None:
    model = load(linear.path)
    served = serving(linear.path, limits=Limits(max_wait_ms=60_000, max_requests=1000, idle_ms=60_000))
    draw = np.random.default_rng(0)
    requests, expected = [], []
    for place in range(300):
        rows = [
            {"user": int(draw.choice([7, 9, 11, 5])), "item": str(draw.choice(["tea", "jam", "?"])), "price": price}
            for price in draw.normal(size=draw.integers(1, 20)).tolist()
        ]
        rows = [{**each, "history": ["tea", "jam"][: place % 3]} for each in rows]
        expected.append(model.predict(rows).probability)
        shared = {name: rows[0][name] for name in ("history",)} if place % 2 else {}
        own = [{key: value for key, value in each.items() if key not in shared} for each in rows]
        requests.append({"shared": shared, "candidates": own})
        if place % 10 == 3:
            own[-1]["price"] = "dear"

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda request: served.rank(**request), requests))
    for place, answer in enumerate(answers):
        if place % 10 == 3:
            assert (answer.status_code, "column 'price'" in answer.json()["error"]) == (400, True)
        else:
            np.testing.assert_allclose(answer.json()["probability"], expected[place], rtol=0, atol=1e-6)
    assert served.metric("batch_rows_count") < 300


def test_what_fails_beside_the_graph_is_told_and_the_next_are_answered() -> None:
    def observe(rows: int) -> None:
        if rows == 3:
            raise OSError("no space left")

    async def ask() -> None:
        with ThreadPoolExecutor(1) as thread:
            call = Batcher(lambda arrays: {"y": arrays["x"]}, Batching(max_rows=3), thread, observe)
            first, second = (call({"x": np.arange(rows)}, rows, later(), Stopwatch()) for rows in (3, 2))
            answers = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(answers[0], OSError)
        assert isinstance(answers[1], dict)
        assert len(answers[1]["y"]) == 2

    asyncio.run(ask())
