"""The load generator against a real server whose answers and delays are known, and the arithmetic of its figures."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bench.load.answers import RIGHT, UNCHECKED, WRONG, Checker, header
from bench.load.connection import parse
from bench.load.figures import figures, percentile, spread
from bench.load.generator import COLUMNS, Generator, Loaded, due_times
from bench.load.malformed import malformed
from bench.load.plan import Plan
from bench.load.process import load
from bench.load.requests import (
    HEADER_LENGTH,
    Request,
    infer_binary,
    infer_json,
    json_bytes,
    post,
    read_requests,
    write_requests,
)
from bench.load.timer import Timer
from bench.serve_overload import recovered
from bench.serve_peers import ratios
from bench.soak import Events, memory_of, verdict

HOST = "127.0.0.1"
DELAY = 0.02


class Handler(socketserver.StreamRequestHandler):
    """One connection, a thread of its own, until the client closes it."""

    def handle(self) -> None:
        """Answer one request after the other."""
        with contextlib.suppress(ConnectionError):
            while line := self.rfile.readline():
                length = 0
                while (field := self.rfile.readline()).strip():
                    if field.lower().startswith(b"content-length:"):
                        length = int(field.split(b":")[1])
                path, body = line.split()[1].decode(), self.rfile.read(length)
                if len(body) < length:
                    return
                self.wfile.write(reply(path, body))
                if path in ("/last", "/dead"):
                    return


def reply(path: str, body: bytes) -> bytes:
    """What the path says is done with a request.

    /STATUS answers with it; /echo with the body; /slow the same after `DELAY`; /last and closes; /dead closes without a
    word; /chunks in chunks; /noise with what is no HTTP.
    """
    if path == "/dead":
        return b""
    if path == "/noise":
        return b"no HTTP\r\n\r\n"
    if path == "/slow":
        time.sleep(DELAY)
    if path == "/chunks":
        half = len(body) // 2
        parts = b"".join(f"{len(each):x}\r\n".encode() + each + b"\r\n" for each in (body[:half], body[half:]) if each)
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"
    status = path[1:] if path[1:].isdecimal() else "200"
    close = "Connection: close\r\n" if path == "/last" else ""
    return f"HTTP/1.1 {status} Word\r\n{close}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Tiny(socketserver.ThreadingTCPServer):
    """A real server whose answers are known; closing it waits for its threads."""

    request_queue_size = 64

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])


@pytest.fixture
def tiny() -> Iterator[Tiny]:
    with Tiny((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(plan: Plan, *requests: Request) -> Loaded:
    return Generator(plan, requests).run()


def ranked(version: str, scores: list[float]) -> bytes:
    return json_bytes({"model_name": "m", "model_version": version, "probability": scores})


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 1000])
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(share: float, count: int) -> None:
    values = np.sort(np.random.default_rng(count).random(count))
    enough = [value for value in values if (values <= value).sum() >= share * count - 1e-9]
    assert percentile(values, share) == enough[0]


def test_no_samples_have_no_percentiles() -> None:
    assert spread([]) == {"count": 0}


def test_due_times_are_a_poisson_process_of_their_rate() -> None:
    times = due_times(Plan(HOST, 0, "", 1, seconds=20.0, rate=1000.0))
    gaps = np.diff(times) / 1e9
    assert (gaps >= 0).all()
    assert times[-1] < 20e9
    assert len(times) / 20 == pytest.approx(1000, rel=0.03)  # 20,000 of them: a standard deviation is .7%
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # as an exponential's is


def test_every_status_is_counted_and_those_that_no_request_allows_are_unexpected(tiny: Tiny) -> None:
    requests = [
        Request(post("/200", b"{}")),
        Request(post("/400", b"{}"), allowed=(400, 413)),
        Request(post("/404", b"{}")),
        Request(post("/503", b"{}")),
    ]
    plan = Plan(HOST, tiny.port, "", connections=4, seconds=0.5, rate=400.0)
    loaded = run(plan, *requests)
    found = figures(loaded, plan, requests)
    assert sum(found["statuses"].values()) == len(due_times(plan))
    by_place = [int((loaded.samples[:, 4] == place).sum()) for place in range(4)]
    assert [found["statuses"][key] for key in ("200", "400", "404", "503")] == by_place
    assert found["unexpected"] == found["statuses"]["404"]
    assert found["latency_ms"]["count"] == found["statuses"]["200"]
    assert found["shed_ms"]["count"] == found["statuses"]["503"]


def test_a_closed_loop_has_one_request_of_each_client_on_its_way(tiny: Tiny) -> None:
    plan = Plan(HOST, tiny.port, "", connections=3, seconds=6.5 * DELAY)
    rows = run(plan, Request(post("/slow", b"{}"))).samples
    assert 3 <= len(rows) <= 3 * 7  # the seventh of each may be sent before the end, an eighth cannot
    assert ((rows[:, 2] - rows[:, 1]) >= DELAY * 1e9 * 0.99).all()
    assert (rows[:, 0] <= rows[:, 1]).all()


def test_in_an_open_loop_waiting_for_a_connection_is_a_part_of_the_latency(tiny: Tiny) -> None:
    plan = Plan(HOST, tiny.port, "", connections=1, seconds=0.2, rate=100.0)
    requests = [Request(post("/slow", b"{}"))]
    loaded = run(plan, *requests)
    count = len(due_times(plan))
    found = figures(loaded, plan, requests)
    assert found["statuses"] == {"200": count}
    # One connection answers them one after the other: the last is done after all delays, and was due within .2 s.
    assert found["latency_ms"]["max"] >= 1e3 * (count * DELAY * 0.99 - plan.seconds)
    assert found["latency_ms"]["p50"] >= found["from_send_ms"]["p50"] >= 1e3 * DELAY * 0.99
    assert found["late_ms"]["max"] <= found["latency_ms"]["max"]


def test_a_lossy_loop_gives_up_what_finds_no_connection(tiny: Tiny) -> None:
    plan = Plan(HOST, tiny.port, "", connections=1, seconds=0.2, rate=500.0, lossy=True)
    requests = [Request(post("/slow", b"{}"))]
    found = figures(run(plan, *requests), plan, requests)
    assert sum(found["statuses"].values()) == len(due_times(plan))
    assert 1 <= found["statuses"]["200"] <= 0.2 / DELAY + 1
    assert found["statuses"]["no_connection"] > 0


def test_a_client_that_was_shed_keeps_still(tiny: Tiny) -> None:
    plan = Plan(HOST, tiny.port, "", connections=2, seconds=0.5, pause=60.0)
    assert run(plan, Request(post("/503", b"{}"))).samples[:, 3].tolist() == [503, 503]


@pytest.mark.parametrize(("path", "named"), [("/dead", "reset"), ("/noise", "unreadable")])
def test_what_is_no_answer_is_counted_and_the_load_goes_on(tiny: Tiny, path: str, named: str) -> None:
    requests = [Request(post("/200", b"{}")), Request(post(path, b"{}"))]
    plan = Plan(HOST, tiny.port, "", connections=2, seconds=0.3, rate=100.0)
    found = figures(run(plan, *requests), plan, requests)["statuses"]
    assert set(found) == {"200", named}
    assert sum(found.values()) == len(due_times(plan))


def test_a_server_that_closes_after_an_answer_is_connected_to_again(tiny: Tiny) -> None:
    plan = Plan(HOST, tiny.port, "", connections=2, seconds=0.3, rate=100.0)
    rows = run(plan, Request(post("/last", b"{}"))).samples
    assert rows[:, 3].tolist() == [200] * len(due_times(plan))


def test_an_answer_that_does_not_come_is_given_up(tiny: Tiny) -> None:
    plan = Plan(HOST, tiny.port, "", connections=1, seconds=0.5, timeout=1.0)
    waits = b"POST /200 HTTP/1.1\r\nContent-Length: 5\r\n\r\n"  # and no body
    assert run(plan, Request(waits)).samples[:, 3].tolist() == [-2]


def test_nobody_there_is_counted() -> None:
    with Tiny((HOST, 0), Handler) as closed:
        port = closed.port
    plan = Plan(HOST, port, "", connections=2, seconds=0.2, rate=100.0, timeout=0.1)
    rows = run(plan, Request(post("/", b"{}"))).samples
    assert len(rows) == len(due_times(plan))
    assert set(rows[:, 3].tolist()) <= {-1, -4}


@pytest.mark.parametrize("path", ["/echo", "/chunks"])
def test_wrong_scores_are_found_among_right_ones(tiny: Tiny, path: str) -> None:
    told, near, far = [0.25, 0.5], [0.25, 0.500009], [0.25, 0.50002]
    requests = [
        Request(post(path, ranked("ab", told)), form="rank", expected={"abcd": np.array(told)}),
        Request(post(path, ranked("ab", near)), form="rank", expected={"abcd": np.array(told)}),
        Request(post(path, ranked("ab", far)), form="rank", expected={"abcd": np.array(told)}),
        Request(post(path, ranked("x", told)), form="rank", expected={"abcd": np.array(told)}),
        Request(post(path, ranked("ab", told[:1])), form="rank", expected={"abcd": np.array(told)}),
        Request(post(path, b"{"), form="rank", expected={"abcd": np.array(told)}),
    ]
    plan = Plan(HOST, tiny.port, "", connections=2, seconds=0.3, rate=300.0)
    loaded = run(plan, *requests)
    verdicts = {place: set(loaded.samples[loaded.samples[:, 4] == place, 5].tolist()) for place in range(6)}
    assert verdicts == {0: {RIGHT}, 1: {RIGHT}, 2: {WRONG}, 3: {WRONG}, 4: {WRONG}, 5: {WRONG}}
    found = figures(loaded, plan, requests)
    assert found["wrong"] + found["right"] == len(due_times(plan))
    assert {each["request"] for each in found["wrong_answers"]} <= {2, 3, 4, 5}


def test_logits_are_compared_as_probabilities_in_every_form() -> None:
    logits = np.array([0.0, 30.0, -200.0], np.float32)
    expected = {"": np.array([0.5, 1.0, 0.0])}
    tensor = {"name": "logit", "datatype": "FP32", "shape": [3]}
    said = json_bytes({"outputs": [{**tensor, "parameters": {"binary_data_size": 12}}]})
    answers = {
        "infer-json": (b"HTTP/1.1 200 OK", json_bytes({"outputs": [{**tensor, "data": logits.tolist()}]})),
        "infer-binary": (f"HTTP/1.1 200 OK\r\n{HEADER_LENGTH}: {len(said)}".encode(), said + logits.tobytes()),
        "raw": (b"HTTP/1.1 200 OK", logits.tobytes()),
    }
    for form, (head, body) in answers.items():
        checker = Checker([Request(b"", form=form, expected=expected)])
        assert [checker.verdict(0, 200, head, body) for _ in range(2)] == [RIGHT, RIGHT], checker.wrong
        assert checker.verdict(0, 200, head, body[:-4]) == WRONG
        assert checker.verdict(0, 503, head, body) == UNCHECKED
    short = Checker([Request(b"", form="infer-binary", expected=expected)])
    assert short.verdict(0, 200, answers["infer-json"][0], answers["infer-json"][1]) == WRONG


def test_an_answer_is_whole_only_at_its_last_byte() -> None:
    plain = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\nX: y\r\n\r\nhello"
    chunks = (
        b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\nConnection: Close\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    )
    for data, status, keep in ((plain, 200, True), (chunks, 503, False)):
        assert all(parse(data[:end]) is None for end in range(len(data)))
        found = parse(data)
        assert found is not None
        assert (found.status, found.body, found.keep) == (status, b"hello", keep)
        with pytest.raises(ValueError, match="1 bytes behind"):
            parse(data + b"!")
    for data in (b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0\r\n\r\n"):
        with pytest.raises(ValueError, match="answer"):
            parse(data)


def test_a_timer_does_not_ring_before_its_time() -> None:
    import select

    timer, poll = Timer(), select.epoll()
    poll.register(timer.fd, select.EPOLLIN)
    due = time.perf_counter_ns() + 3_000_000
    timer.ring_at(due)
    assert poll.poll(10)
    assert time.perf_counter_ns() >= due
    timer.close()
    poll.close()


def test_requests_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    ids = np.arange(6, dtype=np.int32).reshape(3, 2)
    requests = [
        Request(infer_json("/v2/models/m/infer", {"ids": ids}), form="infer-json", expected={"ab": np.zeros(3)}),
        Request(infer_binary("/v2/models/m/infer", {"ids": ids}), (200, 400), weight=0.25),
    ]
    write_requests(tmp_path / "requests.npz", requests)
    found = read_requests(tmp_path / "requests.npz")
    assert [(each.data, each.allowed, each.form, each.weight) for each in found] == [
        (each.data, each.allowed, each.form, each.weight) for each in requests
    ]
    assert list(found[0].expected) == ["ab"]
    assert not found[1].expected
    head, _, body = found[1].data.partition(b"\r\n\r\n")
    length = int(header(head, HEADER_LENGTH) or 0)
    assert json.loads(body[:length])["inputs"][0]["shape"] == [3, 2]
    assert np.frombuffer(body[length:], np.int32).tolist() == list(range(6))


def test_malformed_requests_are_all_different_and_good_http() -> None:
    ids = np.ones((2, 3), np.int32)
    ranking = {"shared": {"user": 1}, "candidates": {"item": [1, 2], "cost": [0, 1]}}
    found = malformed("m", ids, ranking, 0.5)
    assert len({each.data for each in found}) == len(found)
    assert sum(each.weight for each in found) == pytest.approx(0.5)
    for each in found:
        head, _, body = each.data.partition(b"\r\n\r\n")
        assert int(header(head, "Content-Length") or -1) == len(body)
        assert all(400 <= status < 500 for status in each.allowed)


def test_a_generator_in_a_process_of_its_own_says_the_same(tiny: Tiny) -> None:
    requests = [Request(post("/echo", ranked("v", [0.5])), form="rank", expected={"v": np.array([0.5])})]
    plan = Plan(HOST, tiny.port, "", connections=2, seconds=0.3, rate=100.0, seed=3)
    found = figures(load(plan, requests), plan, requests)
    assert found["statuses"] == {"200": len(due_times(plan))}
    assert found["right"] == len(due_times(plan))
    assert 0 < found["processor_share"] <= 1.5


def test_recovery_is_the_end_of_the_last_window_that_is_not_as_before() -> None:
    due = np.arange(0, 3_000_000_000, 10_000_000)  # one every 10 ms, answered in 1 ms; an overload from 1 s to 2 s
    rows = np.zeros((len(due), len(COLUMNS)), np.int64)
    rows[:, 0] = rows[:, 1] = due
    rows[:, 2], rows[:, 3] = due + 1_000_000, 200
    begin, end = 1_000_000_000, 2_000_000_000
    assert recovered(rows, begin, end) == 0.0
    rows[(due >= begin) & (due < end), 3] = 503
    assert recovered(rows, begin, end) == 0.0
    rows[due == 2_250_000_000, 3] = 503
    assert recovered(rows, begin, end) == pytest.approx(0.3)
    rows[(due >= 2_400_000_000) & (due < 2_500_000_000), 2] += 5_000_000
    assert recovered(rows, begin, end) == pytest.approx(0.5)


def test_memory_that_grows_has_a_slope_and_flat_memory_has_none() -> None:
    looks = [(float(when), pid, size) for when in range(100) for pid, size in ((1, 100 << 20), (2, (50 + when) << 20))]
    found = memory_of(Events(server=1, memory=[*looks, (1.0, 3, 7)]))
    assert set(found) == {"1", "2"}
    assert found["1"]["growth_mb_per_hour"] == 0.0
    assert found["2"]["growth_mb_per_hour"] == pytest.approx(3600)
    assert (found["2"]["first_mb"], found["2"]["last_mb"], found["2"]["peak_mb"]) == (72.0, 147.0, 149.0)
    assert (found["1"]["role"], found["2"]["role"]) == ("server", "worker")


def test_the_verdict_counts_what_the_goal_is_about() -> None:
    http = {
        "statuses": {"200": 90, "400": 5, "500": 1, "503": 7, "reset": 2, "unreadable": 1, "no_connection": 4},
        **{"right": 90, "wrong": 1, "unexpected": 1},
    }
    grpc = {"calls": {"right": 10, "wrong": 1, "StatusCode.UNAVAILABLE": 3, "StatusCode.INTERNAL": 1}}
    slow = {"slow_head: closed by the server": 9, "slow_body: 504": 1, "garbage: 400": 3}
    memory = {
        "1": {"role": "server", "seconds": 100.0, "first_mb": 1.0, "last_mb": 9.0},
        "2": {"role": "worker", "seconds": 99.0, "first_mb": 50.0, "last_mb": 50.5},
        "3": {"role": "worker", "seconds": 10.0, "first_mb": 40.0, "last_mb": 50.0},
    }
    assert verdict(http, grpc, slow, memory) == {
        "right": 100,
        "wrong": 2,
        "failed": 3,
        "unexpected": 1,
        "shed": 7,
        "unsent": 4,
        "unreadable": 1,
        "died_with_a_worker": 2,
        "growth_of_the_oldest_mb": 0.5,
    }


def test_ratios_are_medians_of_turns_in_the_same_codec_and_of_the_best_forms() -> None:
    def turns(*rates: float) -> list[dict[str, object]]:
        one = {"p50_ms": 1.0, "p99_ms": 2.0, "closed": {"per_second": 1.0}, "wrong": 0, "generator_share_max": 0.1}
        return [{**one, "per_second": rate} for rate in rates]

    found = ratios(
        {
            "ours, binary": turns(100, 200, 300),
            "ours, json": turns(40, 50, 60),
            "kserve, binary": turns(10, 10, 10),
            "kserve, json": turns(20, 10, 20),
            "mlserver, json": turns(5, 0, 6),
        }
    )
    assert found["ratio_in_the_same_codec"] == {"kserve, binary": 20, "kserve, json": 3, "mlserver, json": 9}
    assert found["ratio_of_the_best_forms"] == {"kserve, json": 15, "mlserver, json": 35}
