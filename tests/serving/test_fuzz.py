"""Requests with faults in them, drawn by seed, over both codecs and through a real server: they are refused, no more.

What is changed was right before: the text of JSON, a value in it, the bytes of tensors, the lengths that lie of them.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.requests import Request

from slimrank.config import InputError
from slimrank.serving.body import HEADER_LENGTH, as_json, parted
from slimrank.serving.protocol import asked_outputs, bytes_of, read_request, reply
from slimrank.serving.ranking import read_ranking
from slimrank.serving.served import Served, open_served
from slimrank.serving.settings import Limits

DIRECT, THROUGH_HTTP, RANKINGS = 3000, 1000, 500  # requests for each model
LONGEST_ERROR = 1000  # characters: what a request says does not come back at length
LIMITS = Limits(max_rows=50, max_text=1000, max_body_bytes=200_000, max_wait_ms=60_000)
VALUES = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        3,
        2**31,
        2**32,
        2**53 + 1,
        2**63,
        -(2**63),
        2**64,
        10**400,
        1e308,
        -1e308,
        1e39,
        0.5,
    ),
    *("", "ids", "INT32", "FP32", "BYTES", "tea", "nan", "0", "\x00", "\ud800", "é" * 400, [], {}, [[]], [None], [{}]),
    *({"name": "ids"}, {"binary_data_size": 8}, [[1, 2], [3]], [2, 5], [2**31, 2**31], [0, 5], [-1, 5], [1] * 300),
)
WORDS = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-0", "1E400", "null", "true", "[]", "{}", '""', '"\\ud800"', ","),
    *('"inputs":', '"data":', '"shape":', "\x00", "\xff", "]", "}", '"', "\\", "9" * 5000, "[" * 3000, '{"a":' * 3000),
)
LENGTHS = ("", "-1", "0", "1", "1e3", "99999999999999999999999", "0x10", "+4", "4.0", "\xb2")


@dataclass
class Body:
    """What is sent: JSON, the bytes behind it, and what the header says of them."""

    text: bytes
    behind: bytes = b""
    said: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.said is None else {HEADER_LENGTH: self.said}

    @property
    def whole(self) -> bytes:
        return self.text + self.behind


def requests_of(served: Served) -> tuple[dict[str, Any], Body]:
    """A request that is right, as JSON and with its tensors as bytes."""
    sizes = {
        name: [each if isinstance(each, int) else 2 for each in spec.shape] for name, spec in served.inputs.items()
    }
    arrays = {name: np.ones(sizes[name], spec.dtype) for name, spec in served.inputs.items()}
    kinds = {"int32": "INT32", "int64": "INT64", "float32": "FP32"}
    told = [{"name": k, "shape": list(a.shape), "datatype": kinds[a.dtype.name]} for k, a in arrays.items()]
    names = [{"name": name} for name in served.outputs]
    listed = [{**each, "data": arrays[each["name"]].ravel().tolist()} for each in told]
    behind = {name: bytes_of(array) for name, array in arrays.items()}
    sized = [{**each, "parameters": {"binary_data_size": len(behind[each["name"]])}} for each in told]
    text = json.dumps({"inputs": sized, "parameters": {"binary_data_output": True}}).encode()
    body = Body(text, b"".join(behind.values()), str(len(text)))
    return {"id": "a", "inputs": listed, "outputs": names, "parameters": {"timeout": 10**6}}, body


def places(part: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a plain structure."""
    yield way
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, each in items:
        yield from places(each, (*way, key))


def with_fault(request: Any, draw: random.Random) -> Any:
    """The same with a value, a key or an element changed."""
    changed = copy.deepcopy(request)
    way = draw.choice(list(places(request)))
    if not way:
        return draw.choice(VALUES)
    holder = changed
    for key in way[:-1]:
        holder = holder[key]
    what = draw.randrange(5)
    if what == 0:
        del holder[way[-1]]
    elif what == 1 and isinstance(holder, dict):
        holder[f"{way[-1]}x"] = holder.pop(way[-1])
    elif what == 2 and isinstance(holder, list):
        holder.insert(draw.randrange(len(holder) + 1), copy.deepcopy(holder[way[-1]]))
    else:
        holder[way[-1]] = draw.choice(VALUES)
    return changed


def with_wrong_bytes(text: bytes, draw: random.Random) -> bytes:
    """The same text with some bytes changed, cut out, cut off, doubled or put in."""
    start, stop = sorted(draw.randrange(len(text) + 1) for _ in range(2))
    word = draw.choice(WORDS).encode("latin-1")
    spot = bytearray(text)
    if text:
        spot[min(start, len(text) - 1)] ^= 1 << draw.randrange(8)
    changed = (text[:start] + word + text[start:], text[:start] + text[stop:], text[:start], text[start:stop] + text)
    return draw.choice((*changed, text[:start] + word + text[stop:], bytes(spot)))


def as_text(request: Any) -> bytes:
    """As JSON; single surrogates as they are escaped."""
    return json.dumps(request).encode()


def faulty(listed: dict[str, Any], binary: Body, draw: random.Random) -> Body:
    """One of both requests with a fault or two."""
    what = draw.randrange(6)
    if what == 0:
        return Body(as_text(with_fault(with_fault(listed, draw), draw)))
    if what == 1:
        return Body(with_wrong_bytes(as_text(listed), draw))
    if what == 2:
        return Body(binary.text, with_wrong_bytes(binary.behind, draw), binary.said)
    if what == 3:
        return Body(binary.text, binary.behind, draw.choice((*LENGTHS, str(draw.randrange(400)))))
    text = as_text(with_fault(json.loads(binary.text), draw)) if what == 4 else with_wrong_bytes(binary.text, draw)
    return Body(text, binary.behind, str(len(text)))


@pytest.fixture(scope="module")
def started(
    start_once: Callable[..., Any], artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The service of all three."""
    limits = "\n".join(f"{name} = {value}" for name, value in LIMITS.model_dump().items())
    config = tmp_path_factory.mktemp("config") / "serve.toml"
    config.write_text(f"[limits]\n{limits}\n")
    return start_once(*artifacts.values(), "--config", config, "--port", 0)


@pytest.fixture(scope="module")
def client(started: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=started.url, timeout=60) as found:
        yield found


NAMES = ("linear", "vectors", "mine")


@pytest.mark.parametrize("name", NAMES)
def test_both_codecs_read_or_refuse(artifacts: dict[str, Path], name: str) -> None:
    draw, served, read = random.Random(0), open_served(artifacts[name], 1), 0
    told: list[str] = []
    listed, binary = requests_of(served)
    for _ in range(DIRECT):
        body = faulty(listed, binary, draw)
        headers = [(key.encode(), value.encode("latin-1")) for key, value in body.headers.items()]
        try:
            asked, behind = parted(Request({"type": "http", "headers": headers}), memoryview(body.whole))
            outputs = asked_outputs(asked, served)
            arrays = read_request(asked, served, LIMITS.max_rows, behind)
            served.check(arrays)
        except InputError as error:
            told.append(str(error))
            continue
        read += 1
        assert {key: (each.dtype, each.ndim) for key, each in arrays.items()} == {
            key: (spec.dtype, len(spec.shape)) for key, spec in served.inputs.items()
        }
        rows = served.count(arrays)
        assert 0 <= rows <= LIMITS.max_rows
        made = {key: np.zeros((rows, 1), np.float32) for key in served.outputs}
        assert reply(asked, name, "v", made, outputs)[0]["outputs"]
    assert DIRECT / 50 < read < DIRECT / 2  # some faults are none; most are
    assert max(map(len, told)) < LONGEST_ERROR


@pytest.mark.parametrize("name", ["linear", "vectors"])
def test_rankings_are_read_or_refused(name: str) -> None:
    draw, told = random.Random(0), list[str]()
    for _ in range(DIRECT):
        request = as_text(with_fault(RANKED[name][draw.randrange(2)], draw))
        text = request if draw.randrange(2) else with_wrong_bytes(request, draw)
        try:
            ranking = read_ranking(as_json(memoryview(text)), LIMITS, len(text))
        except InputError as error:
            told.append(str(error))
        else:
            assert 0 <= ranking.count <= LIMITS.max_rows
    assert max(map(len, told)) < LONGEST_ERROR


RANKED: dict[str, list[dict[str, Any]]] = {
    "linear": [
        {"shared": {"user": 7, "history": ["tea"]}, "candidates": [{"item": "tea", "price": 1.0}, {"item": "jam"}]},
        {"candidates": {"user": [7, 9], "item": ["tea", "rye"], "price": [1, 2.5], "history": [["tea"], []]}, "k": 1},
    ],
    "vectors": [
        {"shared": {"history": ["item 3", "item 4"]}, "k": 3, "id": "a"},
        {"shared": {"history": ["item 3"]}, "candidates": [{"item": "item 1"}, {"item": "no item"}]},
    ],
}


def refused_or_answered(response: httpx.Response, started: Any, sent: bytes) -> bool:
    """Whether it was answered; fails where that was anything but an answer or a refusal."""
    assert response.status_code < 500, (response.status_code, response.text[:300], sent[:600], started.told[-3000:])
    if response.status_code == 200:
        return True
    assert list(response.json()) == ["error"]
    return False


@pytest.mark.parametrize("name", NAMES)
def test_a_server_answers_or_refuses(artifacts: dict[str, Path], client: httpx.Client, started: Any, name: str) -> None:
    draw = random.Random(1)
    listed, binary = requests_of(open_served(artifacts[name], 1))
    path = f"/v2/models/{name}/infer"
    right = client.post(path, json=listed)
    assert right.status_code == 200
    for _ in range(THROUGH_HTTP):
        body = faulty(listed, binary, draw)
        headers = [(key.encode(), value.encode("latin-1")) for key, value in body.headers.items()]
        refused_or_answered(client.post(path, content=body.whole, headers=headers), started, body.whole)
    assert client.post(path, json=listed).content == right.content  # and is none the worse for it


def test_numbers_that_overflow_within_a_model_are_no_fault_of_the_server(client: httpx.Client) -> None:
    numbers = {"name": "numbers", "datatype": "FP32", "shape": [4, 2], "data": [3e38] * 8}
    user = {"name": "user", "datatype": "INT64", "shape": [4], "data": [0, 1, 2, 3]}
    answer = client.post("/v2/models/mine/infer", json={"inputs": [user, numbers]})
    assert (answer.status_code, answer.json()) == (
        422,
        {"error": "output 'score' is NaN or infinite, which JSON cannot say"},
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_server_ranks_or_refuses(client: httpx.Client, started: Any, name: str) -> None:
    draw, path = random.Random(2), f"/v2/models/{name}/rank"
    rankings = RANKED.get(name, RANKED["linear"])
    right = [client.post(path, json=each).json() for each in rankings]
    answered = 0
    for _ in range(RANKINGS):
        sent = as_text(with_fault(draw.choice(rankings), draw))
        sent = with_wrong_bytes(sent, draw) if draw.randrange(4) == 0 else sent
        answered += refused_or_answered(client.post(path, content=sent), started, sent)
    assert (answered > 0) == (name != "mine")
    for each, before in zip(rankings, right, strict=True):
        now = client.post(path, json=each).json()
        for scores in ("probability", "score"):  # by the split graph now, which adds floats in another order
            assert now.pop(scores, None) == pytest.approx(before.pop(scores, None), abs=1e-6)
        assert now == before


@pytest.mark.parametrize("packed", ["gzip", "deflate", "br", "gzip, gzip", "identity", ""])
def test_what_is_said_to_be_packed_and_is_not(client: httpx.Client, started: Any, packed: str) -> None:
    sent = as_text(RANKED["linear"][0])
    headers = {"content-encoding": packed}
    answered = refused_or_answered(client.post("/v2/models/linear/rank", content=sent, headers=headers), started, sent)
    assert answered == (packed == "identity")
