"""Tensor requests: the Open Inference Protocol in JSON. Answers equal the runtime's; everything else is a 4xx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars
import pytest

from slimrank.runtime import Model, load_graph


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
        f"/v2/models/linear/versions/{version}/ready": {"name": "linear", "ready": True},
        "/v2/models/linear": {
            "name": "linear",
            "versions": [version],
            "platform": "onnxruntime_onnx",
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
    assert client.get("/v2/models/linear/versions/none").status_code == 404


def test_infer_gives_what_the_runtime_gives(client: httpx.Client, model: Model, linear_rows: polars.DataFrame) -> None:
    inputs = model.encoding.encode(linear_rows)
    expected = model.score(inputs).tolist()
    version = model.artifact.digest[:12]
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
        output = {"name": "logit", "datatype": "FP32", "shape": [len(linear_rows)], "data": expected}
        for path in ("linear", f"linear/versions/{version}"):
            answer = client.post(f"/v2/models/{path}/infer", json=request).json()
            assert answer == {"model_name": "linear", "model_version": version, "id": "a request", "outputs": [output]}


def test_no_rows_are_answered_with_no_scores(client: httpx.Client) -> None:
    assert client.post("/v2/models/linear/infer", json=tensors(0)).json()["outputs"][0]["data"] == []


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
        (tensors(datatype=["INT32"]), 400, "datatype ['INT32'], must be 'INT32'"),
        (tensors(shape=[2]), 400, "shape [2], must be [rows, 5]"),
        (tensors(shape=[2, 5.0]), 400, "must be [rows, 5]"),
        (tensors(shape=[-2, -5]), 400, "must be [rows, 5]"),
        (tensors(shape=[10**4000, 5]), 400, "must be [rows, 5]"),
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
        ({"inputs": [*tensors(2)["inputs"][:1], *tensors(3)["inputs"][1:]]}, 400, "ids have 2 rows and numbers 3"),
        ({**tensors(), "outputs": [{"name": "logits"}]}, 400, "unknown output 'logits'. Did you mean 'logit'?"),
        ({**tensors(), "outputs": "logit"}, 400, '"outputs" must be a list of objects'),
        ({**tensors(), "outputs": ["logit"]}, 400, '"outputs" must be a list of objects'),
        (tensors(parameters={"binary_data_size": 40}), 400, "input 'ids': has both \"data\" and a binary_data_size"),
        (tensors(parameters={"binary_data_size": -1}), 400, "binary_data_size is -1, must be a number of bytes"),
        (tensors(parameters={"binary_data_size": "40"}), 400, "binary_data_size is '40', must be a number of bytes"),
    ],
)
def test_requests_that_are_wrong(client: httpx.Client, request_: Any, status: int, message: str) -> None:
    answer = client.post("/v2/models/linear/infer", json=request_)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]


def test_numbers_beyond_any_float_are_refused(client: httpx.Client) -> None:
    request = tensors()
    request["inputs"][1]["data"] = [1e300, 0.5]
    answer = client.post("/v2/models/linear/infer", json=request)
    assert answer.status_code == 400
    assert "field 'price' (column 0 of numbers): 0 NaN and 1 infinite" in answer.json()["error"]


@pytest.mark.parametrize("timeout", [10**400, -1, 0, 1.5, "soon", None, True])
def test_a_timeout_of_any_size_or_type_harms_nothing(client: httpx.Client, timeout: Any) -> None:
    request = {**tensors(), "parameters": {"timeout": timeout}}
    status = client.post("/v2/models/linear/infer", json=request).status_code
    assert status == (504 if timeout is True else 200) or status == 200


MINE = [
    {"name": "user", "shape": [2], "datatype": "INT64", "data": [3, 19]},
    {"name": "numbers", "shape": [2, 2], "datatype": "FP32", "data": [1, 0, 0.5, -2]},
]


@pytest.fixture(scope="module")
def mine(asked_by_tensors: Path, serve_once: Any) -> httpx.Client:
    """A module of one's own, served."""
    client: httpx.Client = serve_once({"mine": asked_by_tensors}).http
    return client


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
    answer = mine.post("/v2/models/mine/rank", json={"candidates": [{"user": 3}]})
    assert answer.status_code == 400
    assert "'mine' is asked by tensors, not by rows: POST /v2/models/mine/infer" in answer.json()["error"]
