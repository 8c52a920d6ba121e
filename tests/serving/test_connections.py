"""Connections that are slow, many, broken or silent: each is closed in its time, and others are answered meanwhile."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from slimrank.serving import Limits

HEAD = b"POST /v2/models/linear/rank HTTP/1.1\r\nHost: x\r\n"
IMPATIENT = Limits(idle_ms=1000, max_requests=4)


@pytest.fixture
def connect() -> Iterator[Any]:
    """Opens connections to a port of this machine; they are closed with the test."""
    with contextlib.ExitStack() as stack:

        def opened(port: int, sent: bytes = b"") -> socket.socket:
            found = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            found.sendall(sent)
            return found

        yield opened


def is_closed(connection: socket.socket, *, wait: bool = True) -> bool:
    """Whether the other end has closed it without an answer."""
    connection.settimeout(60 if wait else 0.001)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "sent",
    [b"", b"P", HEAD[:20], HEAD + b"Content-Length: 100\r\n\r\n{", HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"],
)
def test_who_does_not_send_a_whole_request_is_closed(
    serving: Any, linear: Any, row: dict[str, Any], connect: Any, sent: bytes
) -> None:
    served = serving(linear.path, limits=IMPATIENT)
    slow = [connect(served.port, sent) for _ in range(10)]
    assert served.rank(candidates=[row]).status_code == 200
    assert all(map(is_closed, slow))
    url = f"http://127.0.0.1:{served.port}/v2/models/linear/rank"  # by a connection of its own: the old one is as idle
    assert httpx.post(url, json={"candidates": [row]}).status_code == 200
    assert served.service.gate.inside == 0


def test_a_byte_now_and_then_keeps_no_connection(serving: Any, linear: Any, connect: Any, eventually: Any) -> None:
    served = serving(linear.path, limits=IMPATIENT)
    slow = connect(served.port, HEAD + b"Content-Length: 1000000\r\n\r\n")

    def is_cut_off() -> bool:
        try:
            slow.sendall(b" ")
        except OSError:
            return True
        return is_closed(slow, wait=False)

    assert eventually(is_cut_off)


def test_a_connection_that_was_answered_may_ask_again_and_is_closed_when_it_does_not(
    serving: Any, linear: Any, connect: Any
) -> None:
    served = serving(linear.path, limits=IMPATIENT)
    kept = connect(served.port)
    for _ in range(3):
        kept.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(1000).startswith(b"HTTP/1.1 200")
    assert is_closed(kept)


def test_who_does_not_read_the_answer_is_closed(serving: Any, linear: Any, connect: Any, eventually: Any) -> None:
    served = serving(linear.path, limits=Limits(idle_ms=1000))
    rows = 4096
    tensors = {"ids": np.ones((rows, 5), np.int32), "numbers": np.ones((rows, 1), np.float32)}
    inputs = [
        {"name": name, "shape": each.shape, "datatype": kind, "parameters": {"binary_data_size": each.nbytes}}
        for (name, each), kind in zip(tensors.items(), ("INT32", "FP32"), strict=True)
    ]
    head = json.dumps({"inputs": inputs}).encode()
    body = head + b"".join(each.tobytes() for each in tensors.values())
    told = f"Content-Length: {len(body)}\r\nInference-Header-Content-Length: {len(head)}\r\n\r\n"
    request = HEAD.replace(b"/rank", b"/infer") + told.encode() + body
    deaf = connect(served.port)
    deaf.sendall(request)
    eventually(lambda: served.metric("requests_total", model="linear", code="ok") == 1)

    def is_cut_off() -> bool:
        try:
            deaf.sendall(request)  # until more than the system keeps is not read
        except OSError:
            return True
        return False

    assert eventually(is_cut_off)
    assert served.http.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize("chunks", [[b"{}"], [b"{", b"}"], [b'{"candidates"', b": [", b"]}"]])
def test_bodies_in_chunks_are_read(serving: Any, linear: Any, chunks: list[bytes]) -> None:
    served = serving(linear.path)
    answer = served.http.post("/v2/models/linear/rank", content=iter(chunks))
    assert answer.status_code == (200 if len(chunks) == 3 else 400)


def test_who_leaves_in_the_middle_of_a_body_leaves_nothing_behind(
    serving: Any, linear: Any, row: dict[str, Any], connect: Any, eventually: Any
) -> None:
    served = serving(linear.path, limits=Limits(max_requests=4))
    for _ in range(20):
        for sent in (HEAD + b"Content-Length: 100\r\n\r\n{", HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"):
            connect(served.port, sent).close()
    eventually(lambda: served.metric("requests_total", code="refused") == 40)
    assert served.service.gate.inside == 0
    assert served.rank(candidates=[row]).status_code == 200


def test_pipelined_requests_are_answered_in_their_order(serving: Any, linear: Any, connect: Any) -> None:
    served = serving(linear.path)
    asked = b"".join(
        b"GET /v2/models/%s HTTP/1.1\r\nHost: x\r\n\r\n" % each for each in (b"linear", b"none", b"linear")
    )
    connection = connect(served.port, asked + b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = b"".join(iter(lambda: connection.recv(10_000), b""))
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200", b"200"]


def test_connections_over_the_bound_are_told_so_and_those_within_it_go_on(
    serving: Any, linear: Any, row: dict[str, Any], connect: Any, eventually: Any
) -> None:
    served = serving(linear.path, limits=Limits(max_connections=3))
    assert served.rank(candidates=[row]).status_code == 200  # by a connection that stays
    within = [connect(served.port) for _ in range(2)]
    asked = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    for each in within:
        each.sendall(asked)
        assert each.recv(1000).startswith(b"HTTP/1.1 200")
    for _ in range(3):
        assert connect(served.port, asked).recv(1000).startswith(b"HTTP/1.1 503")
        assert served.rank(candidates=[row]).status_code == 200
    within[0].close()
    eventually(lambda: connect(served.port, asked).recv(1000).startswith(b"HTTP/1.1 200"))


@pytest.fixture
def many_files() -> Iterator[int]:
    """How many files this process may have open: as many as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_thousand_connections_do_not_stop_the_service(
    start: Any, linear: Any, row: dict[str, Any], connect: Any, many_files: int, tmp_path: Any
) -> None:
    config = tmp_path / "serve.toml"
    config.write_text("[limits]\nmax_connections = 20000\nidle_ms = 60000\n")
    started = start(linear.path, "--port", 0, "--config", config)
    url = started.url
    port = int(url.rsplit(":", 1)[1])
    silent = [connect(port) for _ in range(min(10_000, many_files - 500))]
    with httpx.Client(base_url=url, timeout=60, verify=False) as client:
        for _ in range(20):
            assert client.get("/v2/health/ready").json() == {"ready": True}
            answer = client.post("/v2/models/linear/rank", json={"candidates": [row]})
            assert answer.status_code == 200
    asked = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    for each in silent[:: len(silent) // 20]:
        each.sendall(asked)
        assert each.recv(1000).startswith(b"HTTP/1.1 200")


FEW_FILES = """
import resource, sys
from pathlib import Path
from slimrank.serving import Limits, Settings, models_of, serve

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
serve(Settings(models=models_of([Path(sys.argv[1])]), port=0, limits=Limits(idle_ms=60_000)))
"""


def test_a_service_out_of_files_recovers(
    start: Any, linear: Any, row: dict[str, Any], connect: Any, eventually: Any
) -> None:
    started = start(linear.path, script=FEW_FILES)
    url = started.url
    port = int(url.rsplit(":", 1)[1])
    asked = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with httpx.Client(base_url=url, timeout=60, verify=False) as client:
        rank = {"json": {"candidates": [row]}}
        assert client.post("/v2/models/linear/rank", **rank).status_code == 200
        many = [connect(port) for _ in range(200)]
        assert client.post("/v2/models/linear/rank", **rank).status_code == 200  # who is in goes on
        for each in many:
            each.close()

        def answered() -> bool:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(asked)
                with contextlib.suppress(OSError):
                    return connection.recv(1000).startswith(b"HTTP/1.1 200")
            return False

        assert eventually(answered)
        assert client.post("/v2/models/linear/rank", **rank).status_code == 200
    assert started.process.poll() is None
