"""Answers beside what they must be: a body that was found right once is right wherever it comes again.

So every answer is checked, and most of them by comparing bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from bench.load.requests import HEADER_LENGTH, Request

TOLERANCE = 1e-5  # in probability
KNOWN_BODIES = 8  # of one request: as many versions, and then some
WRONG_TOLD = 5
UNCHECKED, RIGHT, WRONG = 0, 1, 2
Scores = tuple[str, NDArray[Any]]


class Checker:
    """Verdicts on answers.

    Attributes:
        wrong: the first wrong ones: which request, why, the beginning of the body.
    """

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self.wrong: list[dict[str, Any]] = []
        self._known: list[set[bytes]] = [set() for _ in requests]

    def verdict(self, place: int, status: int, head: bytes, body: bytes) -> int:
        """`RIGHT` or `WRONG` where the request has expected scores and was answered 200, else `UNCHECKED`."""
        request = self.requests[place]
        if status != 200 or not request.expected:
            return UNCHECKED
        known = self._known[place]
        if body in known:
            return RIGHT
        fault = fault_of(request, head, body)
        if fault:
            if len(self.wrong) < WRONG_TOLD:
                self.wrong.append({"request": place, "fault": fault, "body": repr(body[:300])})
            return WRONG
        if len(known) < KNOWN_BODIES:
            known.add(body)
        return RIGHT


def fault_of(request: Request, head: bytes, body: bytes) -> str:
    """What is wrong with the scores in an answer; "" where nothing is."""
    try:
        version, scores = FORMS[request.form](head, body)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return f"unreadable: {type(error).__name__}: {error}"
    expected = _of_version(request.expected, version)
    if expected is None:
        return f"version {version!r}, known: {', '.join(request.expected)}"
    if scores.shape != expected.shape:
        return f"{scores.shape} scores, expected {expected.shape}"
    gap = float(np.abs(scores - expected).max(initial=0.0))
    return "" if gap <= TOLERANCE else f"a probability is off by {gap:.3g}"


def _of_version(expected: Mapping[str, NDArray[Any]], version: str) -> NDArray[Any] | None:
    """What a version must answer; a version is told by the beginning of its digest, or any may answer."""
    if "" in expected:
        return expected[""]
    return next((scores for digest, scores in expected.items() if version and digest.startswith(version)), None)


def _rank(head: bytes, body: bytes) -> Scores:
    said = from_json(body)
    return str(said["model_version"]), np.array(said["probability"], np.float64)


def _infer_json(head: bytes, body: bytes) -> Scores:
    said = from_json(body)
    return str(said.get("model_version")), _probability(np.array(said["outputs"][0]["data"], np.float64))


def _infer_binary(head: bytes, body: bytes) -> Scores:
    length = int(header(head, HEADER_LENGTH) or len(body))
    said = from_json(body[:length])
    (output,) = said["outputs"]
    if "data" in output:
        raise ValueError("the tensor came as JSON, and was asked for in binary form")
    if output["datatype"] != "FP32" or output["parameters"]["binary_data_size"] != len(body) - length:
        raise ValueError(f"output {output!r:.200} with {len(body) - length} bytes")
    return str(said.get("model_version")), _probability(np.frombuffer(body[length:], "<f4").astype(np.float64))


def _raw(head: bytes, body: bytes) -> Scores:
    return "", _probability(np.frombuffer(body, "<f4").astype(np.float64))


FORMS: dict[str, Callable[[bytes, bytes], Scores]] = {
    "rank": _rank,
    "infer-json": _infer_json,
    "infer-binary": _infer_binary,
    "raw": _raw,
}
"""By name: head and body of an answer to the version that it names and its probabilities, flat."""


def header(head: bytes, name: str) -> str | None:
    """The value of a header in the head of an answer."""
    lowered = head.lower()
    start = lowered.find(b"\r\n" + name.lower().encode() + b":")
    if start < 0:
        return None
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : None if end < 0 else end].strip().decode("latin-1")


def _probability(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(logits, -80.0, 80.0)))
    return found
