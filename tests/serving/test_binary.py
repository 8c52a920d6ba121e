"""Tensor requests whose numbers stand behind the JSON as bytes (Triton's binary extension), and packed bodies."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from slimrank.artifact import BY_TENSORS, write_artifact
from slimrank.runtime import load_graph

LENGTH = "inference-header-content-length"


@pytest.fixture(scope="module")
def client(linear_served: Any) -> httpx.Client:
    found: httpx.Client = linear_served[0].http
    return found


def in_binary(arrays: dict[str, Any], told: dict[str, Any] | None = None, **request: Any) -> tuple[bytes, bytes]:
    """The JSON of a request and the tensors behind it; `told` are changes to the first tensor."""
    names = {"int32": "INT32", "int64": "INT64", "float32": "FP32", "float16": "FP16", "bool": "BOOL"}
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": names[array.dtype.name],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    inputs[0] |= told or {}
    return json.dumps({"inputs": inputs, **request}).encode(), b"".join(each.tobytes() for each in arrays.values())


def post(client: httpx.Client, head: bytes, behind: bytes, length: Any = None, name: str = "linear") -> httpx.Response:
    headers = {LENGTH: str(len(head) if length is None else length)}
    return client.post(f"/v2/models/{name}/infer", content=head + behind, headers=headers)


IDS = np.array([[1, 2, 1, 0, 0], [2, 1, 3, 1, 0]], np.int32)
NUMBERS = np.array([[0.5], [-2.0]], np.float32)
ARRAYS = {"ids": IDS, "numbers": NUMBERS}
LISTED = {
    "inputs": [
        {"name": "ids", "shape": [2, 5], "datatype": "INT32", "data": IDS.tolist()},
        {"name": "numbers", "shape": [2, 1], "datatype": "FP32", "data": NUMBERS.tolist()},
    ]
}


def read_outputs(answer: httpx.Response, dtypes: dict[str, Any]) -> dict[str, Any]:
    """The outputs of an answer, from its JSON or from behind it."""
    assert answer.status_code == 200, answer.text
    head = int(answer.headers.get(LENGTH, len(answer.content)))
    start, found = head, {}
    for each in json.loads(answer.content[:head])["outputs"]:
        if "data" in each:
            found[each["name"]] = np.array(each["data"], dtypes[each["name"]]).reshape(each["shape"])
            continue
        stop = start + each["parameters"]["binary_data_size"]
        array = np.frombuffer(answer.content[start:stop], dtypes[each["name"]])
        found[each["name"]], start = array.reshape(each["shape"]), stop
    assert start == len(answer.content)
    return found


def test_tensors_behind_the_json_are_answered_as_those_in_it(client: httpx.Client, linear_served: Any) -> None:
    from slimrank.data.encoding import Inputs

    expected = linear_served[1].logits(Inputs(IDS, NUMBERS))
    for request, as_bytes in [
        ({}, False),
        ({"parameters": {"binary_data_output": True}}, True),
        ({"outputs": [{"name": "logit", "parameters": {"binary_data": True}}]}, True),
        ({"parameters": {"binary_data_output": True}, "outputs": [{"name": "logit"}]}, True),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "logit", "parameters": {"binary_data": False}}],
            },
            False,
        ),
    ]:
        answer = post(client, *in_binary(ARRAYS, **request))
        np.testing.assert_allclose(read_outputs(answer, {"logit": np.float32})["logit"], expected, rtol=1e-6)
        assert (LENGTH in answer.headers) == as_bytes
    mixed = json.loads(in_binary(ARRAYS)[0])
    mixed["inputs"][1] = {"name": "numbers", "shape": [2, 1], "datatype": "FP32", "data": [0.5, -2]}
    answer = post(client, json.dumps(mixed).encode(), IDS.tobytes())
    np.testing.assert_allclose(read_outputs(answer, {"logit": np.float32})["logit"], expected, rtol=1e-6)


HEAD, BEHIND = in_binary(ARRAYS)


@pytest.mark.parametrize(
    ("head", "behind", "length", "message"),
    [
        (HEAD, BEHIND, len(HEAD) - 1, "the body is not JSON"),
        (HEAD, BEHIND, len(HEAD) + 1, "the body is not JSON"),
        (HEAD, BEHIND, 0, "the body is not JSON"),
        (HEAD, BEHIND, len(HEAD) + len(BEHIND) + 1, f"{LENGTH} is '{len(HEAD) + len(BEHIND) + 1}', the body has"),
        (HEAD, BEHIND, -1, f"{LENGTH} is '-1', the body has {len(HEAD) + len(BEHIND)} bytes"),
        (HEAD, BEHIND, "9" * 30, f"{LENGTH} is '{'9' * 20}', the body has"),
        (HEAD, BEHIND, "1e2", f"{LENGTH} is '1e2', the body has"),
        (HEAD, BEHIND[:-1], None, "input 'numbers': 7 bytes for the shape [2, 1], must be 8"),
        (HEAD, b"", None, "input 'ids': 0 bytes for the shape [2, 5], must be 40"),
        (HEAD, BEHIND + b"x", None, "49 bytes stand behind the JSON, its tensors say 48"),
        (*in_binary(ARRAYS, {"shape": [3, 5]}), None, "input 'ids': 40 bytes for the shape [3, 5], must be 60"),
        (*in_binary(ARRAYS, {"parameters": {"binary_data_size": 44}}), None, "44 bytes for the shape [2, 5]"),
        (*in_binary(ARRAYS, {"parameters": {"binary_data_size": 10**30}}), None, "48 bytes for the shape [2, 5]"),
        (*in_binary({**ARRAYS, "ids": IDS + 7}), None, "is out of range, allowed 0..3"),
        (*in_binary({**ARRAYS, "numbers": NUMBERS * np.float32("nan")}), None, "field 'price'"),
    ],
)
def test_lengths_that_lie(client: httpx.Client, head: bytes, behind: bytes, length: Any, message: str) -> None:
    answer = post(client, head, behind, length)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]


PACKED: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("how", PACKED)
def test_packed_bodies_are_unpacked(client: httpx.Client, how: str) -> None:
    plain = client.post("/v2/models/linear/infer", json=LISTED).json()
    body = json.dumps(LISTED).encode()
    for name in (how, how.upper()):
        headers = {"content-encoding": name}
        answer = client.post("/v2/models/linear/infer", content=PACKED[how](body), headers=headers)
        assert answer.json() == plain
    packed = PACKED[how](HEAD + BEHIND)
    headers = {"content-encoding": how, LENGTH: str(len(HEAD))}
    assert client.post("/v2/models/linear/infer", content=packed, headers=headers).status_code == 200


@pytest.mark.parametrize("how", PACKED)
def test_packed_bodies_that_are_wrong(client: httpx.Client, how: str) -> None:
    body = PACKED[how](json.dumps(LISTED).encode())
    bomb = PACKED[how](b" " * 10_000_000)
    for content, encoding, status, message in [
        (body[:-1], how, 400, f"the body is not {how}: it ends too early"),
        (b"", how, 400, f"the body is not {how}: it ends too early"),
        (body + b"{}", how, 400, f"the body is not {how}: 2 bytes stand behind its end"),
        (b"{}" + body, how, 400, f"the body is not {how}: "),
        (bomb, how, 413, "a body of more than 20000 bytes unpacked, at most 20000 are allowed"),
        (body, "br", 400, "unknown content-encoding 'br'. Allowed: deflate, gzip, identity."),
    ]:
        answer = client.post("/v2/models/linear/infer", content=content, headers={"content-encoding": encoding})
        assert answer.status_code == status, answer.text
        assert message in answer.json()["error"]


def test_outputs_of_a_module_one_by_one(asked_by_tensors: Path, serve_once: Any) -> None:
    arrays = {"user": np.array([3, 19]), "numbers": np.array([[1, 0], [0.5, -2]], np.float32)}
    expected = load_graph(asked_by_tensors).run(arrays)
    outputs = [{"name": "pair", "parameters": {"binary_data": True}}, {"name": "score"}]
    client = serve_once({"mine": asked_by_tensors}).http
    found = read_outputs(post(client, *in_binary(arrays, outputs=outputs), name="mine"), dict.fromkeys(expected, "f4"))
    assert list(found) == ["pair", "score"]
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-6)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory, serve_once: Any) -> httpx.Client:
    """A graph of halves and truth values over two sizes that vary: where(mask, x, 2 x), and not mask."""
    value_info = helper.make_tensor_value_info
    ends = [
        ("x", TensorProto.FLOAT16),
        ("mask", TensorProto.BOOL),
        ("y", TensorProto.FLOAT16),
        ("not", TensorProto.BOOL),
    ]
    x, mask, y, negated = (value_info(name, kind, ["N", "M"]) for name, kind in ends)
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Where", ["mask", "x", "twice"], ["y"]),
        helper.make_node("Not", ["mask"], ["not"]),
    ]
    graph = helper.make_graph(nodes, "halves", [x, mask], [y, negated])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path_factory.mktemp("halves") / "halves"
    manifest = {"graph": {"operators": {"Add": 1, "Where": 1, "Not": 1}, "tensors": []}, **BY_TENSORS}
    write_artifact(path, {"model.onnx": model.SerializeToString(), "README.md": b"# Halves\n"}, manifest)
    onnx.checker.check_model(model)
    client: httpx.Client = serve_once(path).http
    return client


def test_halves_and_truth_values(halves: httpx.Client) -> None:
    x = np.array([[1.5, -2.25], [0.0, 6.0]], np.float16)
    mask = np.array([[True, False], [False, True]])
    request = {"parameters": {"binary_data_output": True}}
    answer = post(halves, *in_binary({"x": x, "mask": mask}, **request), name="halves")
    found = read_outputs(answer, {"y": np.float16, "not": np.bool_})
    np.testing.assert_array_equal(found["y"], np.where(mask, x, 2 * x))
    np.testing.assert_array_equal(found["not"], ~mask)
    inputs = [
        {"name": "x", "shape": [2, 2], "datatype": "FP16", "data": x.tolist()},
        {"name": "mask", "shape": [2, 2], "datatype": "BOOL", "data": mask.tolist()},
    ]
    listed = halves.post("/v2/models/halves/infer", json={"inputs": inputs})
    np.testing.assert_array_equal(read_outputs(listed, {"y": np.float16, "not": np.bool_})["y"], found["y"])


def test_bytes_that_are_no_truth_values_and_shapes_that_are_too_large(halves: httpx.Client) -> None:
    x, mask = np.zeros((1, 2), np.float16), np.array([[2, 1]], np.uint8).view(np.bool_)
    answer = post(halves, *in_binary({"x": x, "mask": mask}), name="halves")
    assert (answer.status_code, answer.json()["error"]) == (400, "input 'mask': a truth value is a byte 0 or 1")
    largest = 2**31 - 1
    for shape in ([0, largest], [1, largest], [4096, largest], [largest, 0]):
        told = {"shape": shape, "parameters": {"binary_data_size": 0}}
        head, _ = in_binary({"x": x[:0], "mask": mask[:0]}, told)
        assert post(halves, head, b"", name="halves").status_code in (400, 413)
        inputs = [{"name": "x", "shape": shape, "datatype": "FP16", "data": []}]
        assert halves.post("/v2/models/halves/infer", json={"inputs": inputs}).status_code in (400, 413)
