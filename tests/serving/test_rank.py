"""Ranking requests: answers equal the runtime's, whichever way the candidates come; everything else is a 4xx."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import polars
import pytest

from slimrank.runtime import Model

ROW = {"user": 7, "item": "tea", "price": 1.5, "history": ["tea"]}
SHARED = {"user": 7, "history": ["tea"]}
NEAR = 1e-6  # of a probability: what is shared is added in another order


def rank(client: httpx.Client, request: Any, name: str = "linear") -> httpx.Response:
    return client.post(f"/v2/models/{name}/rank", json=request)


def test_candidates_are_scored_as_the_runtime_scores_rows(
    client: httpx.Client, model: Model, linear_rows: polars.DataFrame
) -> None:
    rows = [*linear_rows.drop("label").to_dicts(), {**ROW, "user": "nobody", "history": ["ale", "gin"]}]
    columns = {name: [each[name] for each in rows] for name in ROW}
    expected = model.predict(rows)
    for candidates in (rows, columns):
        answer = rank(client, {"candidates": candidates}).json()
        assert answer == {
            "model_name": "linear",
            "model_version": model.artifact.digest[:12],
            "probability": expected.probability.tolist(),
            "unknown": {"user": 1, "item": 0, "history": 2},
            "shortened": expected.shortened,
        }


@pytest.mark.parametrize("shared", [["user"], ["user", "history"], ["price"], ["item", "history"], ["user", "price"]])
@pytest.mark.parametrize("as_columns", [False, True])
def test_what_candidates_share_is_said_once(
    client: httpx.Client, model: Model, shared: list[str], as_columns: bool
) -> None:
    values = {
        "user": [7, 9, "?"],
        "item": ["tea", "jam", "?"],
        "price": [1.0, -2.5, 3.0],
        "history": [["tea"], [], ["rye", "jam"]],
    }
    rows = [{name: column[place] for name, column in values.items()} for place in (0, 1, 2, 1)]
    same = {name: values[name][1] for name in shared}
    own = [{name: value for name, value in each.items() if name not in shared} for each in rows]
    candidates = {name: [each[name] for each in own] for name in own[0]} if as_columns else own
    answer = rank(client, {"shared": same, "candidates": candidates}).json()
    expected = model.predict([{**each, **same} for each in own])
    np.testing.assert_allclose(answer["probability"], expected.probability, rtol=0, atol=NEAR)
    assert {name: answer["unknown"][name] for name in own[0] if name != "price"} == {
        name: expected.unknown[name] for name in own[0] if name != "price"
    }


def test_all_fields_may_be_shared_by_one_candidate_that_has_none_of_its_own(client: httpx.Client, model: Model) -> None:
    answer = rank(client, {"shared": ROW, "candidates": [{}]}).json()
    np.testing.assert_allclose(answer["probability"], model.predict([ROW]).probability, rtol=0, atol=NEAR)


def test_unknown_values_that_are_shared_are_counted_once(client: httpx.Client) -> None:
    request = {"shared": {"user": "nobody", "history": []}, "candidates": {"item": ["tea", "?"], "price": [1, 2]}}
    assert rank(client, request).json()["unknown"] == {"user": 1, "history": 0, "item": 1}


@pytest.mark.parametrize("shared", [{}, {"user": 7}])
def test_the_first_k_are_the_best_and_of_equal_ones_the_earlier(
    client: httpx.Client, model: Model, shared: dict[str, Any]
) -> None:
    prices = [1.0, 5.0, -1.0, 5.0, 2.0]
    rows = [{**{k: v for k, v in ROW.items() if k not in shared}, "price": price} for price in prices]
    for k, top in ((1, [1]), (3, [1, 3, 4]), (5, [1, 3, 4, 0, 2]), (10**30, [1, 3, 4, 0, 2])):
        answer = rank(client, {"shared": shared, "candidates": rows, "k": k}).json()
        assert answer["top"] == top
        expected = model.predict([{**rows[place], **shared} for place in top]).probability
        np.testing.assert_allclose(answer["probability"], expected, rtol=0, atol=NEAR)


def test_no_candidates_are_answered_with_no_scores(client: httpx.Client) -> None:
    for shared in ({}, {"user": 7}):
        for candidates in ([], {"item": [], "price": [], "history": [], **({} if shared else {"user": []})}):
            answer = rank(client, {"shared": shared, "candidates": candidates})
            assert answer.status_code == 200, answer.text
            assert answer.json()["probability"] == []
            assert rank(client, {"shared": shared, "candidates": candidates, "k": 3}).json()["top"] == []


def test_a_request_has_its_id_and_may_name_a_version(client: httpx.Client, model: Model) -> None:
    version = model.artifact.digest[:12]
    answer = rank(client, {"candidates": [ROW], "id": "mine", "version": version}).json()
    assert (answer["id"], answer["model_version"]) == ("mine", version)
    wrong = rank(client, {"candidates": [ROW], "version": f"{version[:-1]}x"})
    assert wrong.status_code == 404
    assert (
        wrong.json()["error"]
        == f"unknown version '{version[:-1]}x' of 'linear'. Did you mean '{version}'? Allowed: {version}."
    )


def test_requests_at_once_do_not_mix(client: httpx.Client, model: Model) -> None:
    requests = [[{**ROW, "price": price, "user": user}] * (1 + price) for price in range(20) for user in (7, 9)]
    requests[5] = [{**ROW, "price": "dear"}]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda rows: rank(client, {"candidates": rows}), requests))
    assert answers[5].status_code == 400
    for place, (rows, answer) in enumerate(zip(requests, answers, strict=True)):
        if place != 5:
            assert answer.json()["probability"] == model.predict(rows).probability.tolist()


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ([ROW], 400, 'the request must be an object with "candidates", and what they share in "shared"'),
        ({}, 400, '"candidates" is missing: a list of rows, or an object of columns'),
        ({"candidates": 7}, 400, '"candidates" must be a list of rows, or an object of columns'),
        ({"candidates": "tea"}, 400, '"candidates" must be a list of rows, or an object of columns'),
        ({"candidates": ROW}, 400, "column 'user' is a int, must hold a value for every row"),
        ({"candidates": {"user": [7], "item": []}}, 400, "columns differ in length: user 1, item 0"),
        ({"candidates": [], "candidate": []}, 400, "unknown key 'candidate'. Did you mean 'candidates'?"),
        ({"candidates": [ROW], "shared": [7]}, 400, '"shared" must be an object: a value for each field'),
        ({"candidates": [ROW], "k": 0}, 400, '"k": got 0, allowed 1 or more'),
        ({"candidates": [ROW], "k": -(10**4000)}, 400, '"k": got -1000'),
        ({"candidates": [ROW], "k": 1.5}, 400, '"k": got 1.5, allowed 1 or more'),
        ({"candidates": [ROW], "k": True}, 400, '"k": got True, allowed 1 or more'),
        ({"candidates": [ROW], "id": 7}, 400, '"id" must be text, got 7'),
        ({"candidates": [ROW], "version": None}, 400, '"version" must be text, got None'),
        ({"candidates": [7]}, 400, "row 0 is a int"),
        ({"candidates": [ROW, None]}, 400, "row 1 is a NoneType"),
        ({"candidates": [{"usr": 7}]}, 400, "missing column 'user'. Did you mean 'usr'?"),
        ({"candidates": [{**ROW, "price": 10**400}]}, 400, "column 'price'"),
        ({"candidates": [{**ROW, "price": -1e308}]}, 400, "column 'price'"),
        ({"candidates": [{**ROW, "price": "1"}]}, 400, "column 'price'"),
        ({"candidates": [{**ROW, "price": [1]}]}, 400, "column 'price'"),
        ({"candidates": [{**ROW, "user": {"a": 1}}]}, 400, "an id is an integer or text"),
        ({"candidates": [{**ROW, "history": {"a": 1}}]}, 400, "must be a list"),
        ({"candidates": [ROW] * 51}, 413, "51 rows in one request, at most 50 are allowed"),
        ({"candidates": {"user": [7] * 51}}, 413, "51 rows in one request, at most 50 are allowed"),
        ({"candidates": [{str(key): 0 for key in range(1000)}]}, 400, "missing column 'user'"),
        ({"shared": {"user": 7}, "candidates": [ROW]}, 400, "column 'user' is both shared and the candidates'"),
        ({"shared": {"usr": 7}, "candidates": [{"item": 1}]}, 400, "missing column 'user'. Did you mean 'usr'?"),
        ({"shared": SHARED, "candidates": [{"item": "tea", "price": "1"}]}, 400, "column 'price'"),
        ({"shared": SHARED, "candidates": [{"item": "tea", "price": 1e308}]}, 400, "column 'price'"),
        ({"shared": {**SHARED, "price": [1]}, "candidates": [{"item": "tea"}]}, 400, "column 'price'"),
        ({"shared": {**SHARED, "user": {"a": 1}}, "candidates": [{"item": "tea", "price": 1}]}, 400, "an id is"),
        ({"shared": SHARED, "candidates": [7]}, 400, "missing column 'item'"),
    ],
)
def test_requests_that_are_wrong(client: httpx.Client, request_: Any, status: int, message: str) -> None:
    answer = rank(client, request_)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"candidates": [NaN]}', b"[" * 10_000, b"\xff\xfe", b'"\\ud800"', b'{"candidates": [Infinity]}'],
)
def test_bodies_that_are_not_json(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v2/models/linear/rank", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("the body is not JSON: ")


def test_numbers_beyond_any_float_are_refused(client: httpx.Client) -> None:
    for request in ({"candidates": [ROW]}, {"shared": {"price": 1.5}, "candidates": [{**SHARED, "item": "tea"}]}):
        answer = client.post("/v2/models/linear/rank", content=json.dumps(request).replace("1.5", "1e999"))
        assert answer.status_code == 400
        assert "1 infinite of 1 values" in answer.json()["error"]


def test_ids_of_any_size_and_shape_are_unknown_and_no_error(client: httpx.Client) -> None:
    users = [2**63, -(2**64), 10**300, "x" * 5000, "", "\x00", "\N{GRINNING FACE}", -0.0, 1e308]
    answer = rank(client, {"candidates": [{**ROW, "user": user} for user in users]})
    assert answer.json()["unknown"]["user"] == len(users)
    own = {key: value for key, value in ROW.items() if key != "user"}
    for user in users:
        answer = rank(client, {"shared": {"user": user}, "candidates": [own]})
        assert answer.json()["unknown"]["user"] == 1, answer.text


def test_paths_and_methods_that_are_not_there(client: httpx.Client) -> None:
    for method, path, status, message in [
        ("GET", "/v2/models/liner", 404, "unknown model 'liner'. Did you mean 'linear'?"),
        ("POST", "/v2/models/other/infer", 404, "unknown model 'other'"),
        ("POST", "/v2/models/other/rank", 404, "unknown model 'other'"),
        ("GET", "/nowhere", 404, "Not Found"),
        ("GET", "/v2/models/linear/rank", 405, "Method Not Allowed"),
        ("DELETE", "/v2/models/linear", 405, "Method Not Allowed"),
    ]:
        answer = client.request(
            method, path, json={"inputs": [], "candidates": []} if "rank" not in path else {"candidates": []}
        )
        assert answer.status_code == status, answer.text
        assert message in answer.json()["error"]


def test_large_bodies_are_refused_declared_or_not(client: httpx.Client) -> None:
    large = json.dumps({"candidates": [], "padding": "x" * 30_000}).encode()
    declared = client.post("/v2/models/linear/rank", content=large)
    assert declared.status_code == 413
    assert "at most 20000 are allowed" in declared.json()["error"]

    def chunks() -> Iterator[bytes]:
        yield from (large[start : start + 1000] for start in range(0, len(large), 1000))

    assert client.post("/v2/models/linear/rank", content=chunks()).status_code == 413


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /v2/models/linear/rank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v2/models/linear/rank HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /v2/models/linear/rank HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
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
    assert rank(client, {"candidates": [ROW]}).status_code == 200
