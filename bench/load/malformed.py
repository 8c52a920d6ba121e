"""Requests that are good HTTP and bad otherwise, each with the statuses that are a right answer to it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.load.requests import HEADER_LENGTH, Request, infer_binary, post

REFUSED = (400, 413, 415, 422)
DEEP = 100_000


def malformed(name: str, ids: NDArray[np.int32], ranking: dict[str, Any], weight: float) -> list[Request]:
    """Wrong in every way that a client gets it wrong; `ids` and `ranking` are of a good request, `weight` of all."""
    infer, rank = f"/v2/models/{name}/infer", f"/v2/models/{name}/rank"
    good = {"name": "ids", "datatype": "INT32", "shape": list(ids.shape), "data": ids.ravel().tolist()}
    field = next(iter(ranking["candidates"]))
    values = ranking["candidates"][field]
    bodies: list[tuple[str, Any]] = [
        (infer, b""),
        (infer, b"{"),
        (infer, b"[" * DEEP),
        (infer, b"\xff\xfe" * 50),
        (infer, []),
        (infer, {"inputs": []}),
        (infer, {"inputs": [good, good]}),
        (infer, {"inputs": [{**good, "name": "idz"}]}),
        (infer, {"inputs": [{**good, "datatype": "FP64"}]}),
        (infer, {"inputs": [{**good, "shape": [-1, 2**40]}]}),
        (infer, {"inputs": [{**good, "data": good["data"][:-1]}]}),
        (infer, {"inputs": [{**good, "data": [2**31 - 1] * ids.size}]}),
        (infer, {"inputs": [{**good, "data": [-1] * ids.size}]}),
        (infer, {"inputs": [{**good, "data": [1e999] * ids.size}]}),
        (infer, {"inputs": [{**good, "data": ["a"] * ids.size}]}),
        (infer, {"inputs": [good], "outputs": [{"name": "nothing"}]}),
        (rank, {"candidates": 7}),
        (rank, {**ranking, "k": 0}),
        (rank, {**ranking, "unknown": 1}),
        (rank, {**ranking, "candidates": {**ranking["candidates"], field: values[:-1]}}),
        (rank, {**ranking, "candidates": {**ranking["candidates"], field: [{}] * len(values)}}),
        (rank, {**ranking, "candidates": {**ranking["candidates"], field: [[1]] * len(values)}}),
    ]
    data = [post(path, body if isinstance(body, bytes) else json.dumps(body).encode()) for path, body in bodies]
    binary = infer_binary(infer, {"ids": ids})
    head, _, body = binary.partition(b"\r\n\r\n")
    length = next(line for line in head.decode().split("\r\n") if line.startswith(HEADER_LENGTH))
    for lie in ("-1", "99999999", "3", "NaN"):
        data.append(head.replace(length.encode(), f"{HEADER_LENGTH}: {lie}".encode()) + b"\r\n\r\n" + body)
    each = weight / (len(data) + 1)
    unknown = Request(post("/v2/models/nobody/infer", json.dumps({"inputs": [good]}).encode()), (404,), weight=each)
    return [unknown, *(Request(one, REFUSED, weight=each) for one in data)]
