"""Requests as bytes that are made once, with what their answers must be.

They travel to the generator in one `.npz` file of plain arrays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_LENGTH = "Inference-Header-Content-Length"
DATATYPES = {"int32": "INT32", "float32": "FP32"}


@dataclass(frozen=True, eq=False)
class Request:
    """One request over HTTP/1.1.

    Attributes:
        data: head and body as they are sent.
        allowed: statuses that are right for it, beside 503.
        form: how scores stand in its answer, a key of `bench.load.answers.FORMS`; "" where nothing is read.
        expected: by version of the model, the probabilities that it must answer with; under "" for any version.
        weight: how often it is sent, beside the others.
    """

    data: bytes
    allowed: tuple[int, ...] = (200,)
    form: str = ""
    expected: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    weight: float = 1.0


def post(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a POST with that body, as JSON where the headers say nothing else."""
    told = {"Host": "localhost", "Content-Type": "application/json", **(headers or {}), "Content-Length": len(body)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def infer_json(path: str, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """An inference request of the Open Inference Protocol, tensors as JSON."""
    inputs = [{**_told(name, array), "data": array.ravel().tolist()} for name, array in tensors.items()]
    return post(path, json_bytes({"id": "1", "inputs": inputs}))


def infer_binary(path: str, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The same with tensors behind the JSON, as the binary tensor extension has them; the answer as well."""
    sizes = {name: {"parameters": {"binary_data_size": array.nbytes}} for name, array in tensors.items()}
    inputs = [{**_told(name, array), **sizes[name]} for name, array in tensors.items()]
    head = json_bytes({"id": "1", "inputs": inputs, "parameters": {"binary_data_output": True}})
    body = head + b"".join(np.ascontiguousarray(array).tobytes() for array in tensors.values())
    return post(path, body, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))})


def write_requests(path: Path, requests: Sequence[Request]) -> None:
    """All of them in one `.npz` file; nothing in it is pickled."""
    arrays: dict[str, Any] = {
        "told": np.array(
            [
                json.dumps(
                    {
                        "allowed": each.allowed,
                        "form": each.form,
                        "weight": each.weight,
                        "versions": list(each.expected),
                    }
                )
                for each in requests
            ]
        )
    }
    for place, each in enumerate(requests):
        arrays[f"data.{place}"] = np.frombuffer(each.data, np.uint8)
        for version, expected in each.expected.items():
            arrays[f"expected.{place}.{version}"] = np.asarray(expected, np.float32)
    np.savez(path, **arrays)


def read_requests(path: Path) -> list[Request]:
    """What `write_requests` wrote."""
    with np.load(path) as arrays:
        found = []
        for place, text in enumerate(arrays["told"].tolist()):
            told = json.loads(text)
            expected = {version: arrays[f"expected.{place}.{version}"] for version in told["versions"]}
            data = arrays[f"data.{place}"].tobytes()
            found.append(Request(data, tuple(told["allowed"]), told["form"], expected, told["weight"]))
    return found


def _told(name: str, array: NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape)}


def json_bytes(value: Any) -> bytes:
    """A value as JSON without blanks."""
    return json.dumps(value, separators=(",", ":")).encode()
