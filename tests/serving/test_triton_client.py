"""The official client of Triton's protocol, as it comes, over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as by_grpc
import tritonclient.grpc.aio as by_grpc_aio
import tritonclient.http as by_http
import tritonclient.http.aio as by_http_aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from slimrank.artifact import open_artifact
from slimrank.data.encoding import Inputs
from slimrank.runtime import load_graph

IDS = np.array([[1, 2, 1, 0, 0], [2, 1, 3, 1, 0]], np.int32)
NUMBERS = np.array([[0.5], [-2.0]], np.float32)
KINDS = {"int32": "INT32", "int64": "INT64", "float32": "FP32"}


@pytest.fixture(scope="module")
def linear_there(write_linear_at: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_linear_at(tmp_path_factory.mktemp("triton") / "linear")


@pytest.fixture(scope="module")
def started(start_once: Any, linear_there: Any, asked_by_tensors: Path) -> Any:
    """A service of the linear model and of a module of one's own."""
    limits = ("--set", "limits.max_rows=50", "--set", "limits.max_wait_ms=60000")
    return start_once(linear_there.path, asked_by_tensors, "--port", 0, "--grpc-port", 0, *limits)


@pytest.fixture(scope="module", params=["http", "grpc"])
def client(request: pytest.FixtureRequest, started: Any) -> Iterator[Any]:
    if request.param == "http":
        found: Any = by_http.InferenceServerClient(started.url.removeprefix("http://"))
    else:
        found = by_grpc.InferenceServerClient(started.grpc)
    with found:
        yield found


def module_of(client: Any) -> Any:
    return by_http if isinstance(client, by_http.InferenceServerClient | by_http_aio.InferenceServerClient) else by_grpc


def as_dict(client: Any, answer: Any) -> Any:
    """What HTTP gives; of gRPC the message as the same."""
    from google.protobuf.json_format import MessageToDict

    return answer if module_of(client) is by_http else MessageToDict(answer, preserving_proto_field_name=True)


def inputs_of(client: Any, arrays: dict[str, Any], **options: Any) -> list[Any]:
    found = []
    for name, array in arrays.items():
        found.append(module_of(client).InferInput(name, list(array.shape), KINDS[array.dtype.name]))
        found[-1].set_data_from_numpy(array, **options)
    return found


ARRAYS = {"ids": IDS, "numbers": NUMBERS}


def test_health_and_what_is_served(client: Any, linear_there: Any) -> None:
    version = open_artifact(linear_there.path).digest[:12]
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", version)
    server = as_dict(client, client.get_server_metadata())
    assert server["name"] == "slimrank"
    assert "statistics" in server["extensions"]
    told = as_dict(client, client.get_model_metadata("linear"))
    assert (told["name"], told["versions"], told["platform"]) == ("linear", [version], "onnxruntime_onnx")
    assert [(each["name"], each["datatype"]) for each in told["inputs"]] == [("ids", "INT32"), ("numbers", "FP32")]
    assert [list(map(int, each["shape"])) for each in told["inputs"]] == [[-1, 5], [-1, 1]]
    config = as_dict(client, client.get_model_config("linear"))
    config = config.get("config", config)
    assert (config["name"], config["backend"]) == ("linear", "onnxruntime")
    assert [(each["name"], each["data_type"]) for each in config["output"]] == [("logit", "TYPE_FP32")]
    assert [list(map(int, each["dims"])) for each in config["input"]] == [[-1, 5], [-1, 1]]


def test_inference_gives_what_the_model_gives(client: Any, linear_there: Any) -> None:
    named = module_of(client).InferRequestedOutput
    cases: list[tuple[dict[str, bool], Any]] = [({}, None), ({}, [named("logit")])]
    if module_of(client) is by_http:
        sides = ({"binary_data": True}, {"binary_data": False})
        cases += [(options, [named("logit", **other)]) for options in sides for other in sides]
    for options, outputs in cases:
        result = client.infer("linear", inputs_of(client, ARRAYS, **options), outputs=outputs, request_id="me")
        expected = linear_there.logits(Inputs(IDS, NUMBERS))
        np.testing.assert_allclose(result.as_numpy("logit"), expected, rtol=1e-6)
        answer = as_dict(client, result.get_response())
        assert (answer["id"], answer["model_name"]) == ("me", "linear")
        assert answer["model_version"] == open_artifact(linear_there.path).digest[:12]


def test_several_outputs_of_a_module(client: Any, asked_by_tensors: Path) -> None:
    arrays = {"user": np.array([3, 19]), "numbers": np.array([[1, 0], [0.5, -2]], np.float32)}
    expected = load_graph(asked_by_tensors).run(arrays)
    result = client.infer("mine", inputs_of(client, arrays))
    for name, array in expected.items():
        np.testing.assert_allclose(result.as_numpy(name), array, rtol=1e-6)
    one = client.infer("mine", inputs_of(client, arrays), outputs=[module_of(client).InferRequestedOutput("pair")])
    np.testing.assert_allclose(one.as_numpy("pair"), expected["pair"], rtol=1e-6)
    assert one.as_numpy("score") is None


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_packed_requests_and_answers(client: Any, linear_there: Any, how: str) -> None:
    if module_of(client) is by_http:
        options = {"request_compression_algorithm": how, "response_compression_algorithm": how}
    else:
        options = {"compression_algorithm": how}
    result = client.infer("linear", inputs_of(client, ARRAYS), **options)
    np.testing.assert_allclose(result.as_numpy("logit"), linear_there.logits(Inputs(IDS, NUMBERS)), rtol=1e-6)


def refused(client: Any, status: int, code: grpc.StatusCode, message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert message in caught.value.message()
    told = str(status) if module_of(client) is by_http else str(code)
    assert caught.value.status() == told


def test_what_is_wrong_has_its_code_and_says_why(client: Any) -> None:
    wrong, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    module = module_of(client)
    right = inputs_of(client, ARRAYS)
    for status, code, message, call in [
        (404, missing, "unknown model 'liner'. Did you mean 'linear'?", lambda: client.infer("liner", right)),
        (404, missing, "unknown version '1' of 'linear'", lambda: client.infer("linear", right, model_version="1")),
        (404, missing, "unknown model 'liner'", lambda: client.get_model_metadata("liner")),
        (404, missing, "unknown model 'liner'", lambda: client.get_model_config("liner")),
        (404, missing, "unknown model 'liner'", lambda: client.get_inference_statistics("liner")),
        (404, missing, "unknown model 'liner'", lambda: client.load_model("liner")),
        (400, wrong, "inputs are missing: numbers", lambda: client.infer("linear", right[:1])),
        (400, wrong, "input 'ids' is given twice", lambda: client.infer("linear", [*right, right[0]])),
        (
            400,
            wrong,
            "unknown output 'logits'. Did you mean 'logit'?",
            lambda: client.infer("linear", right, outputs=[module.InferRequestedOutput("logits")]),
        ),
        (
            400,
            wrong,
            "input 'ids': datatype 'INT64', must be 'INT32'",
            lambda: client.infer("linear", inputs_of(client, {**ARRAYS, "ids": IDS.astype(np.int64)})),
        ),
        (
            400,
            wrong,
            "id 9 in row 0 is out of range, allowed 0..3",
            lambda: client.infer("linear", inputs_of(client, {**ARRAYS, "ids": np.full_like(IDS, 9)})),
        ),
        (
            413,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "51 rows in one request, at most 50 are allowed",
            lambda: client.infer("linear", inputs_of(client, {**ARRAYS, "ids": np.zeros((51, 5), np.int32)})),
        ),
        (
            400,
            wrong,
            "a model is loaded from its own paths: no config and no files are taken",
            lambda: client.load_model("linear", config="{}"),
        ),
    ]:
        refused(client, status, code, message, call)


def test_models_are_unloaded_and_loaded(client: Any) -> None:
    def index() -> dict[str, str]:
        found = as_dict(client, client.get_model_repository_index())
        return {each["name"]: each["state"] for each in (found if isinstance(found, list) else found["models"])}

    assert index() == {"linear": "READY", "mine": "READY"}
    client.unload_model("mine")
    assert index() == {"linear": "READY", "mine": "UNAVAILABLE"}
    assert not client.is_model_ready("mine")
    assert client.is_server_ready()
    unavailable = grpc.StatusCode.UNAVAILABLE
    arrays = inputs_of(client, {"user": np.array([3]), "numbers": np.zeros((1, 2), np.float32)})
    refused(client, 503, unavailable, "model 'mine' is not loaded: unloaded", lambda: client.infer("mine", arrays))
    client.load_model("mine")
    assert index()["mine"] == "READY"
    assert client.infer("mine", arrays).as_numpy("pair").shape == (1, 2)


def test_statistics_count_what_was_asked(client: Any) -> None:
    def counts() -> tuple[int, int, int, int]:
        told = as_dict(client, client.get_inference_statistics("linear"))["model_stats"][0]
        stats = told["inference_stats"]
        found = (told["inference_count"], told["execution_count"], stats["success"]["count"])
        return (*map(int, found), int(stats["fail"].get("count", 0)))

    client.infer("linear", inputs_of(client, ARRAYS))
    before = counts()
    for _ in range(4):
        client.infer("linear", inputs_of(client, ARRAYS))
    with pytest.raises(InferenceServerException):
        client.infer("linear", inputs_of(client, ARRAYS)[:1])
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [8, 4, 4, 1]
    every = as_dict(client, client.get_inference_statistics())["model_stats"]
    assert {each["name"] for each in every} == {"linear", "mine"}


@pytest.mark.parametrize("module", [by_http_aio, by_grpc_aio])
def test_clients_that_wait_for_many_at_once(started: Any, linear_there: Any, module: Any) -> None:
    address = started.grpc if module is by_grpc_aio else started.url.removeprefix("http://")

    async def ask() -> list[Any]:
        async with module.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            assert await client.get_model_metadata("linear")
            arrays = [{"ids": IDS[:rows], "numbers": NUMBERS[:rows] + rows} for rows in (1, 2) * 3]
            asked = [client.infer("linear", inputs_of(client, each)) for each in arrays]
            found = await asyncio.gather(*asked)
            expected = [linear_there.logits(Inputs(each["ids"], each["numbers"])) for each in arrays]
            return list(zip(found, expected, strict=True))

    for result, expected in asyncio.run(ask()):
        np.testing.assert_allclose(result.as_numpy("logit"), expected, rtol=1e-6)


def test_a_stream_goes_on_after_a_request_that_is_wrong(started: Any, linear_there: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with by_grpc.InferenceServerClient(started.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for name, request_id in (("linear", "a"), ("liner", "b"), ("linear", "c")):
            client.async_stream_infer(name, inputs_of(client, ARRAYS), request_id=request_id)
        found = [answers.get(timeout=60) for _ in range(3)]
        client.stop_stream()
    assert "unknown model 'liner'" in str(found[1][1])
    for place, identity in ((0, "a"), (2, "c")):
        result, error = found[place]
        assert error is None
        assert result.get_response().id == identity
        np.testing.assert_allclose(result.as_numpy("logit"), linear_there.logits(Inputs(IDS, NUMBERS)), rtol=1e-6)


@pytest.fixture(scope="module")
def stub(started: Any) -> Iterator[Any]:
    with grpc.insecure_channel(started.grpc) as channel:
        yield GRPCInferenceServiceStub(channel)


def typed(ids: list[int], numbers: list[float], rows: int = 2) -> Any:
    """A request whose numbers stand in the message's own fields."""
    tensor = pb.ModelInferRequest.InferInputTensor
    contents = pb.InferTensorContents
    inputs = [
        tensor(name="ids", datatype="INT32", shape=[rows, 5], contents=contents(int_contents=ids)),
        tensor(name="numbers", datatype="FP32", shape=[rows, 1], contents=contents(fp32_contents=numbers)),
    ]
    return pb.ModelInferRequest(model_name="linear", inputs=inputs)


def test_typed_contents(stub: Any, linear_there: Any) -> None:
    answer = stub.ModelInfer(typed(IDS.ravel().tolist(), NUMBERS.ravel().tolist()))
    found = np.frombuffer(answer.raw_output_contents[0], np.float32)
    np.testing.assert_allclose(found, linear_there.logits(Inputs(IDS, NUMBERS)), rtol=1e-6)
    assert stub.ModelInfer(typed([], [], rows=0)).outputs[0].shape == [0]


def without(request: Any, **changes: Any) -> Any:
    for name, value in changes.items():
        getattr(request, name).extend(value)
    return request


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (typed([1] * 9, [0, 0]), "input 'ids': 9 values for the shape [2, 5]"),
        (typed([1] * 10, []), "input 'numbers': 0 values for the shape [2, 1]"),
        (typed([9] * 10, [0, 0]), "is out of range, allowed 0..3"),
        (typed([1] * 10, [0, float("nan")]), "field 'price'"),
        (typed([1] * 10, [0, 0], rows=-1), "shape [-1, 5], must be [rows, 5]"),
        (without(typed([1] * 10, [0, 0]), raw_input_contents=[b"x"]), "1 raw contents for 2 inputs"),
        (without(typed([], []), raw_input_contents=[b"x", b""]), "input 'ids': 1 bytes for the shape [2, 5]"),
        (without(pb.ModelInferRequest(model_name="linear"), raw_input_contents=[b"x"]), "1 raw contents for 0 inputs"),
        (pb.ModelInferRequest(), "unknown model ''"),
    ],
)
def test_messages_that_are_wrong(stub: Any, request_: Any, message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request_)
    assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert message in caught.value.details()


def test_a_deadline_that_is_over_and_calls_that_are_left_out(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(typed([1] * 10, [0, 0]), timeout=1e-6)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    for call, request in [(stub.TraceSetting, pb.TraceSettingRequest()), (stub.LogSettings, pb.LogSettingsRequest())]:
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
