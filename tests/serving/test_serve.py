"""The service, through a real server and a real client: answers equal the runtime's, everything else is a 4xx."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import polars
import pytest
import uvicorn

from slimrank.config import InputError
from slimrank.runtime import Model, load, load_graph
from slimrank.serving import Limits, serve
from slimrank.serving.app import create_app
from slimrank.serving.served import Served, of_graph, of_model
from slimrank.serving.server import listening

LIMITS = Limits(max_body_bytes=20_000, max_rows=50)
ROW = {"user": 7, "item": "tea", "price": 1.5, "history": ["tea"]}


@pytest.fixture
def model(linear: Any) -> Model:
    return load(linear.path)


@contextmanager
def connected(served: Served, name: str) -> Iterator[httpx.Client]:
    """A client of a server that serves it."""
    door = listening("127.0.0.1", 0)  # listens before the server runs, so a client may connect at once
    config = uvicorn.Config(create_app(served, name, LIMITS), log_level="critical", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    host, port = door.getsockname()
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client:
        yield client
    server.should_exit = True
    thread.join()
    door.close()


@pytest.fixture
def client(model: Model) -> Iterator[httpx.Client]:
    with connected(of_model(model), "linear") as found:
        yield found


def tensors(rows: int = 2, **changes: Any) -> dict[str, Any]:
    ids = {"name": "ids", "shape": [rows, 5], "datatype": "INT32", "data": [1, 2, 1, 0, 0] * rows}
    numbers = {"name": "numbers", "shape": [rows, 1], "datatype": "FP32", "data": [0.5] * rows}
    return {"inputs": [{**ids, **changes}, numbers]}


def test_health_and_metadata(client: httpx.Client, model: Model) -> None:
    version = model.artifact.digest[:12]
    for path, answer in {
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        "/v2/models/linear/ready": {"name": "linear", "ready": True},
        "/v2/models/linear": {
            "name": "linear",
            "versions": [version],
            "platform": "onnx",
            "inputs": [
                {"name": "ids", "datatype": "INT32", "shape": [-1, 5]},
                {"name": "numbers", "datatype": "FP32", "shape": [-1, 1]},
            ],
            "outputs": [{"name": "logit", "datatype": "FP32", "shape": [-1]}],
        },
    }.items():
        response = client.get(path)
        assert (response.status_code, response.json()) == (200, answer)
    assert client.get("/v2").json()["name"] == "slimrank"


def test_infer_gives_what_the_runtime_gives(client: httpx.Client, model: Model, linear_rows: polars.DataFrame) -> None:
    inputs = model.encoding.encode(linear_rows)
    expected = model.score(inputs).tolist()
    for flat in (True, False):
        request = {
            "id": "a request",
            "inputs": [
                {
                    "name": name,
                    "shape": list(array.shape),
                    "datatype": kind,
                    "data": (array.ravel() if flat else array).tolist(),
                }
                for name, kind, array in [("numbers", "FP32", inputs.numbers), ("ids", "INT32", inputs.ids)]
            ],
            "outputs": [{"name": "logit"}],
        }
        answer = client.post("/v2/models/linear/infer", json=request).json()
        output = {"name": "logit", "datatype": "FP32", "shape": [len(linear_rows)], "data": expected}
        version = model.artifact.digest[:12]
        assert answer == {"model_name": "linear", "model_version": version, "id": "a request", "outputs": [output]}


def test_rank_gives_what_the_runtime_gives(client: httpx.Client, model: Model, linear_rows: polars.DataFrame) -> None:
    rows = [*linear_rows.to_dicts(), {**ROW, "user": "nobody", "history": ["ale", "gin"]}]
    answer = client.post("/rank", json={"rows": rows}).json()
    assert answer["probability"] == model.predict(rows).probability.tolist()
    assert answer["unknown"] == {"user": 1, "item": 0, "history": 2}
    assert answer["model_version"] == model.artifact.digest[:12]


def test_no_rows_are_answered_with_no_scores(client: httpx.Client) -> None:
    assert client.post("/rank", json={"rows": []}).json()["probability"] == []
    assert client.post("/v2/models/linear/infer", json=tensors(0)).json()["outputs"][0]["data"] == []


def test_requests_at_once_do_not_mix(client: httpx.Client, model: Model) -> None:
    requests = [[{**ROW, "price": price, "user": user}] * (1 + price) for price in range(20) for user in (7, 9)]
    requests[5] = [{**ROW, "price": "dear"}]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda rows: client.post("/rank", json={"rows": rows}), requests))
    assert answers[5].status_code == 400
    for place, (rows, answer) in enumerate(zip(requests, answers, strict=True)):
        if place != 5:
            assert answer.json()["probability"] == model.predict(rows).probability.tolist()


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ([], 400, 'must be an object with a list "inputs"'),
        ({"inputs": {}}, 400, 'must be an object with a list "inputs"'),
        ({"inputs": []}, 400, "inputs are missing: ids, numbers"),
        ({"inputs": [7]}, 400, "unknown input None. Allowed: ids, numbers."),
        (tensors(name="idz"), 400, "unknown input 'idz'. Did you mean 'ids'?"),
        (tensors(name="numbers"), 400, "input 'numbers': datatype 'INT32', must be 'FP32'"),
        ({"inputs": [*tensors()["inputs"]] * 2}, 400, "input 'ids' is given twice"),
        (tensors(datatype="INT64"), 400, "datatype 'INT64', must be 'INT32'"),
        (tensors(shape=[2]), 400, "shape [2], must be [rows, 5]"),
        (tensors(shape=[2, 5.0]), 400, "must be [rows, 5]"),
        (tensors(shape=[-2, -5]), 400, "must be [rows, 5]"),
        (tensors(shape=[2, 4]), 400, "shape [2, 4], must be [rows, 5]"),
        (tensors(shape=[3, 5]), 400, "the data do not have the shape [3, 5]"),
        (tensors(data=[[1, 2, 1, 0, 0], [1, 2, 1, 0]]), 400, "the data are ragged"),
        (tensors(data=[[1, 2], [1, 2]]), 400, "the data do not have the shape [2, 5]"),
        (tensors(data=[[[1] * 5], [[1] * 5]]), 400, "the data do not have the shape [2, 5]"),
        (tensors(data=[[[1]] + [1] * 4] * 2), 400, "the data are ragged"),
        (tensors(data=[1.5] * 10), 400, "the data must be integers"),
        (tensors(data=["1"] * 10), 400, "the data must be integers"),
        (tensors(data=[None] * 10), 400, "the data must be integers"),
        (tensors(data=[True] * 10), 400, "the data must be integers"),
        (tensors(data=[{}] * 10), 400, "the data must be integers"),
        (tensors(data=[2**31] * 10), 400, "a value does not fit INT32"),
        (tensors(data=[-(2**31) - 1] * 10), 400, "a value does not fit INT32"),
        (tensors(data=[2**64] * 10), 400, "the data must be integers"),
        (tensors(data=[4] * 10), 400, "field 'item' (column 1 of ids): id 4 in row 0 is out of range, allowed 0..3"),
        (tensors(data=[-1] * 10), 400, "id -1 in row 0 is out of range"),
        (tensors(data=None), 400, '"data" must be a list'),
        (tensors(51), 413, "51 rows in one request, at most 50 are allowed"),
        (tensors(shape=[10**9, 5]), 413, "1000000000 rows in one request"),
        ({**tensors(), "outputs": [{"name": "logits"}]}, 400, "unknown output 'logits'. Did you mean 'logit'?"),
        ({**tensors(), "outputs": "logit"}, 400, '"outputs" must be a list of objects'),
    ],
)
def test_inference_requests_that_are_wrong(client: httpx.Client, request_: Any, status: int, message: str) -> None:
    answer = client.post("/v2/models/linear/infer", json=request_)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ([ROW], 400, 'must be an object with a list "rows"'),
        ({"rows": ROW}, 400, 'must be an object with a list "rows"'),
        ({"rows": [], "row": []}, 400, "unknown key 'row'. Did you mean 'rows'?"),
        ({"rows": [7]}, 400, "row 0 is a int"),
        ({"rows": [{"usr": 7}]}, 400, "missing column 'user'. Did you mean 'usr'?"),
        ({"rows": [{**ROW, "price": 10**400}]}, 400, "column 'price'"),
        ({"rows": [{**ROW, "price": -1e308}]}, 400, "column 'price'"),
        ({"rows": [{**ROW, "price": "1"}]}, 400, "column 'price'"),
        ({"rows": [{**ROW, "price": [1]}]}, 400, "column 'price'"),
        ({"rows": [{**ROW, "user": {"a": 1}}]}, 400, "an id is an integer or text"),
        ({"rows": [{**ROW, "history": {"a": 1}}]}, 400, "must be a list"),
        ({"rows": [ROW] * 51}, 413, "51 rows in one request, at most 50 are allowed"),
        ({"rows": [{str(key): 0 for key in range(1000)}]}, 400, "missing column 'user'"),
    ],
)
def test_rank_requests_that_are_wrong(client: httpx.Client, request_: Any, status: int, message: str) -> None:
    answer = client.post("/rank", json=request_)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"rows": [NaN]}', b"[" * 10_000, b"\xff\xfe", b'"\\ud800"', b'{"rows": [Infinity]}']
)
def test_bodies_that_are_not_json(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/rank", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the body is not JSON: ")


def test_numbers_beyond_any_float_are_refused(client: httpx.Client) -> None:
    answer = client.post("/rank", content=json.dumps({"rows": [ROW]}).replace("1.5", "1e999"))
    assert answer.status_code == 400
    assert "1 infinite of 1 values" in answer.json()["error"]
    request = tensors()
    request["inputs"][1]["data"] = [1e300, 0.5]
    answer = client.post("/v2/models/linear/infer", json=request)
    assert answer.status_code == 400
    assert "field 'price' (column 0 of numbers): 0 NaN and 1 infinite" in answer.json()["error"]


def test_ids_of_any_size_and_shape_are_unknown_and_no_error(client: httpx.Client) -> None:
    users = [2**63, -(2**64), 10**300, "x" * 5000, "", "\x00", "\N{GRINNING FACE}", -0.0, 1e308]
    answer = client.post("/rank", json={"rows": [{**ROW, "user": user} for user in users]})
    assert answer.json()["unknown"]["user"] == len(users)


def test_paths_and_methods_that_are_not_there(client: httpx.Client) -> None:
    for method, path, status, message in [
        ("GET", "/v2/models/liner", 404, "unknown model 'liner'. Did you mean 'linear'?"),
        ("POST", "/v2/models/other/infer", 404, "unknown model 'other'"),
        ("GET", "/nowhere", 404, "Not Found"),
        ("GET", "/rank", 405, "Method Not Allowed"),
        ("DELETE", "/v2/models/linear", 405, "Method Not Allowed"),
    ]:
        answer = client.request(method, path)
        assert answer.status_code == status
        assert message in answer.json()["error"]


def test_large_bodies_are_refused_declared_or_not(client: httpx.Client) -> None:
    large = json.dumps({"rows": [], "padding": "x" * 30_000}).encode()
    declared = client.post("/rank", content=large)
    assert declared.status_code == 413
    assert "at most 20000 are allowed" in declared.json()["error"]

    def chunks() -> Iterator[bytes]:
        yield from (large[start : start + 1000] for start in range(0, len(large), 1000))

    assert client.post("/rank", content=chunks()).status_code == 413


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        b"POST /rank HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /rank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00",
        b"",
    ],
)
def test_broken_connections_leave_the_service_alone(client: httpx.Client, request_: bytes) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(1000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert client.post("/rank", json={"rows": [ROW]}).status_code == 200


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_server_process_answers_on_loopback_and_stops_without_torch(linear: Any, stop: signal.Signals) -> None:
    script = (
        "import sys, atexit; from slimrank.serving import serve; "
        "atexit.register(lambda: print([m for m in ('torch', 'onnx', 'sklearn') if m in sys.modules], flush=True)); "
        "serve(sys.argv[1], name='linear', port=0)"
    )
    command = [sys.executable, "-c", script, str(linear.path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    address = next(line for line in process.stderr if "serving linear on" in line).split()[-1]
    assert address.startswith("http://127.0.0.1:")
    assert httpx.post(f"{address}/rank", json={"rows": [ROW]}).status_code == 200
    process.send_signal(stop)
    output, errors = process.communicate()
    assert "Finished server process" in errors
    assert "Traceback" not in errors
    assert process.returncode in (0, -stop)
    assert output.endswith("[]\n") == (stop is signal.SIGINT)  # SIGTERM ends the process without its atexit


MINE = [
    {"name": "user", "shape": [2], "datatype": "INT64", "data": [3, 19]},
    {"name": "numbers", "shape": [2, 2], "datatype": "FP32", "data": [1, 0, 0.5, -2]},
]


@pytest.fixture
def mine(asked_by_tensors: Path) -> Iterator[httpx.Client]:
    """A module of one's own, served."""
    with connected(of_graph(load_graph(asked_by_tensors)), "mine") as found:
        yield found


def test_a_module_of_ones_own_is_served_by_its_tensors(mine: httpx.Client, asked_by_tensors: Path) -> None:
    told = mine.get("/v2/models/mine").json()
    assert told["inputs"] == [
        {"name": each["name"], "datatype": each["datatype"], "shape": [-1, *each["shape"][1:]]} for each in MINE
    ]
    assert [each["name"] for each in told["outputs"]] == ["score", "pair"]
    arrays = {"user": [3, 19], "numbers": np.array([[1, 0], [0.5, -2]], np.float32)}
    expected = load_graph(asked_by_tensors).run(arrays)
    answer = mine.post("/v2/models/mine/infer", json={"inputs": MINE}).json()
    assert [each["name"] for each in answer["outputs"]] == ["score", "pair"]
    for each in answer["outputs"]:
        assert each["shape"] == list(expected[each["name"]].shape)
        np.testing.assert_allclose(each["data"], expected[each["name"]].ravel())
    one = mine.post("/v2/models/mine/infer", json={"inputs": MINE, "outputs": [{"name": "pair"}]}).json()
    assert [each["name"] for each in one["outputs"]] == ["pair"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": [3, 20]}, "input 'user': id 20 in row 1 is out of range, allowed 0..19"),
        ({"data": [3, 1.5]}, "input 'user': the data must be integers"),
        ({"datatype": "INT32"}, "datatype 'INT32', must be 'INT64'"),
        ({"shape": [2, 1]}, "shape [2, 1], must be [N]"),
        ({"shape": [1], "data": [3]}, "input 'numbers': shape [2, 2], must be [N, 2] with N = 1"),
        ({"shape": [10**9]}, "1000000000 rows in one request"),
        ({"shape": [10**30]}, "must be [N]"),
        ({"name": "usr"}, "unknown input 'usr'. Did you mean 'user'?"),
    ],
)
def test_tensors_that_a_module_does_not_take(mine: httpx.Client, changes: dict[str, Any], message: str) -> None:
    answer = mine.post("/v2/models/mine/infer", json={"inputs": [{**MINE[0], **changes}, MINE[1]]})
    assert answer.status_code in (400, 413)
    assert message in answer.json()["error"]


def test_a_module_of_ones_own_takes_no_raw_rows(mine: httpx.Client) -> None:
    answer = mine.post("/rank", json={"rows": [{"user": 3}]})
    assert answer.status_code == 400
    assert "'mine' is asked by tensors, not by rows: POST /v2/models/mine/infer" in answer.json()["error"]


def test_a_server_that_cannot_start_says_why(linear: Any) -> None:
    with listening("127.0.0.1", 0) as taken, pytest.raises(InputError, match=r"cannot listen on 127\.0\.0\.1 port"):
        serve(linear.path, port=taken.getsockname()[1])
    with pytest.raises(InputError, match=r"port 70000; allowed: 0\.\.65535"):
        serve(linear.path, port=70_000)
    os.remove(linear.path / "schema.json")
    with pytest.raises(InputError, match=r"schema\.json: missing"):
        serve(linear.path, port=0)
