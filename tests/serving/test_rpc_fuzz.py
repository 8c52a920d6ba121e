"""Messages of gRPC with faults in them, drawn by seed: an answer, or a refusal that says why, and no server error.

A message that is none is the library's to refuse. All others are right in form: what they say is changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from slimrank.serving.protocol import DATATYPES, bytes_of
from slimrank.serving.served import Served, open_served

MESSAGES = 500  # of each model
METHOD = "/inference.GRPCInferenceService/ModelInfer"
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
TEXTS = ("", "ids", "logit", "user", "INT32", "INT64", "FP16", "BYTES", "\x00", "é" * 300, "no-such-model")
SIZES = (0, 1, 2, 5, -1, 2**31, 2**62, -(2**63))
CONTENTS = {"INT32": "int_contents", "INT64": "int64_contents", "FP32": "fp32_contents"}


@pytest.fixture(scope="module")
def started(start_once: Callable[..., Any], artifacts: dict[str, Path]) -> Any:
    return start_once(*artifacts.values(), "--port", 0, "--grpc-port", 0)


@pytest.fixture(scope="module")
def channel(started: Any) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(started.grpc) as found:
        grpc.channel_ready_future(found).result(60)  # its address is told before it listens
        yield found


def message_of(name: str, served: Served, *, raw: bool) -> Any:
    """A request that is right, its tensors raw or typed."""
    message = pb.ModelInferRequest(model_name=name, id="a")
    for spec in served.inputs.values():
        array = np.ones([each if isinstance(each, int) else 2 for each in spec.shape], spec.dtype)
        kind = DATATYPES[spec.dtype.name]
        tensor = message.inputs.add(name=spec.name, datatype=kind, shape=array.shape)
        if raw:
            message.raw_input_contents.append(bytes_of(array))
        else:
            getattr(tensor.contents, CONTENTS[kind]).extend(array.ravel().tolist())
    message.outputs.add(name=next(iter(served.outputs)))
    message.parameters["timeout"].int64_param = 10**6
    return message


def change_tensor(message: Any, draw: random.Random) -> None:
    """Another name, type or shape of a tensor, or other contents."""
    tensor = draw.choice(message.inputs)
    what = draw.randrange(5)
    if what == 0:
        tensor.name = draw.choice(TEXTS)
    elif what == 1:
        tensor.datatype = draw.choice(TEXTS)
    elif what == 2:
        tensor.shape[draw.randrange(len(tensor.shape))] = draw.choice(SIZES)
    elif what == 3:
        tensor.shape.append(draw.choice(SIZES))
    else:
        getattr(tensor.contents, draw.choice(list(CONTENTS.values()))).append(draw.choice((0, 1, 7, 10**6)))


def change_message(message: Any, draw: random.Random) -> None:
    """Other names, contents or parameters."""
    what = draw.randrange(7)
    if what == 0:
        message.model_name = draw.choice(TEXTS)
    elif what == 1:
        message.model_version = draw.choice(TEXTS)
    elif what == 2:
        message.outputs.add(name=draw.choice(TEXTS))
    elif what == 3:
        message.parameters["timeout"].int64_param = draw.choice((0, -1, 2**63 - 1))
    elif what == 4:
        message.parameters["timeout"].string_param = "soon"
    elif what == 5:
        message.inputs.add().CopyFrom(draw.choice(message.inputs))
    else:
        message.raw_input_contents.append(draw.randbytes(draw.randrange(40)))


def change_bytes(message: Any, draw: random.Random) -> None:
    """Other bytes of a raw tensor, fewer of them, or more; of a typed one its first value."""
    if not message.raw_input_contents:
        return change_tensor(message, draw)
    place = draw.randrange(len(message.raw_input_contents))
    old = message.raw_input_contents[place]
    cut = draw.randrange(len(old) + 1)
    message.raw_input_contents[place] = draw.choice(
        (old[:cut], old + old[cut:], old[:cut] + draw.randbytes(len(old) - cut))
    )
    return None


def garbled(message: Any, draw: random.Random) -> bytes:
    """The bytes of the message, one of them changed, where that is still a message."""
    sent = bytearray(message.SerializeToString())
    sent[draw.randrange(len(sent))] ^= 1 << draw.randrange(8)
    try:
        pb.ModelInferRequest.FromString(bytes(sent))
    except DecodeError:
        return bytes(message.SerializeToString())
    return bytes(sent)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("name", ["linear", "vectors", "mine"])
def test_messages_are_answered_or_refused(
    artifacts: dict[str, Path], channel: grpc.Channel, started: Any, name: str, raw: bool
) -> None:
    draw, message = random.Random(0), message_of(name, open_served(artifacts[name], 1), raw=raw)
    ask = channel.unary_unary(METHOD, response_deserializer=pb.ModelInferResponse.FromString)
    right = ask(message.SerializeToString())
    answered = 0
    for _ in range(MESSAGES):
        changed = pb.ModelInferRequest.FromString(message.SerializeToString())
        for _ in range(draw.randrange(3)):
            draw.choice((change_tensor, change_message, change_bytes))(changed, draw)
        sent = garbled(changed, draw) if draw.randrange(2) else changed.SerializeToString()
        try:
            ask(sent)
            answered += 1
        except grpc.RpcError as error:
            refused = error
            assert refused.code() in REFUSALS, (refused.code(), refused.details(), changed, started.told[-3000:])
    assert MESSAGES / 10 < answered < MESSAGES * 0.9
    assert ask(message.SerializeToString()) == right


def test_a_stream_goes_on_after_a_fault(artifacts: dict[str, Path], channel: grpc.Channel) -> None:
    message = message_of("linear", open_served(artifacts["linear"], 1), raw=True)
    draw, sent = random.Random(0), []
    for place in range(100):
        changed = pb.ModelInferRequest.FromString(message.SerializeToString())
        if place % 2:
            changed.model_name = draw.choice(("", "no-such-model"))
        changed.id = str(place)
        sent.append(changed)
    answers = list(GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(sent)))
    assert [each.infer_response.id for each in answers] == [each.id for each in sent]
    assert [bool(each.error_message) for each in answers] == [bool(place % 2) for place in range(100)]
