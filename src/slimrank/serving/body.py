"""The body of a request: read no further than is allowed, unpacked no further either, and parsed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from slimrank.config import InputError, nearest
from slimrank.serving.bounds import TooMany

HEADER_LENGTH = "inference-header-content-length"  # how much of the body is JSON; what is behind it are tensors
WINDOWS = {"gzip": 31, "deflate": 15}  # zlib's: with 16 more there is gzip's header, else its own


async def read_body(request: Request, max_bytes: int, hold: Callable[[int], None] = lambda count: None) -> memoryview:
    """The body, unpacked where its header says that it is packed; `hold` is told of the bytes that come.

    Raises:
        TooMany: it is longer than `max_bytes`, as sent or as unpacked.
        InputError: it ended too early, or is packed in a way that is not known.
    """
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > max_bytes:
        raise TooMany(f"a body of {declared[:20]} bytes, at most {max_bytes} are allowed")
    body = bytearray()
    try:
        async for chunk in request.stream():
            hold(len(chunk))
            body += chunk
            if len(body) > max_bytes:
                raise TooMany(f"a body of more than {max_bytes} bytes, at most {max_bytes} are allowed")
    except ClientDisconnect:
        raise InputError("the body ended before its length") from None
    packed = request.headers.get("content-encoding", "identity").lower()
    return memoryview(body if packed == "identity" else _unpacked(body, packed, max_bytes))


def _unpacked(body: bytearray, packed: str, max_bytes: int) -> bytes:
    if packed not in WINDOWS:
        raise InputError(f"unknown content-encoding {packed[:80]!r}. {nearest(packed[:80], [*WINDOWS, 'identity'])}")
    unpacker = zlib.decompressobj(WINDOWS[packed])
    try:
        found = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InputError(f"the body is not {packed}: {error}") from None
    if len(found) > max_bytes:
        raise TooMany(f"a body of more than {max_bytes} bytes unpacked, at most {max_bytes} are allowed")
    if not unpacker.eof:
        raise InputError(f"the body is not {packed}: it ends too early")
    if unpacker.unused_data:
        raise InputError(f"the body is not {packed}: {len(unpacker.unused_data)} bytes stand behind its end")
    return found


def parted(request: Request, body: memoryview) -> tuple[Any, memoryview]:
    """The JSON of a body, and the bytes of tensors behind it.

    Raises:
        InputError: the header says more than there is, or the JSON is none; NaN and infinity are not JSON.
    """
    said = request.headers.get(HEADER_LENGTH)
    length = len(body)
    if said is not None:
        if not said.isdecimal() or len(said) > 20 or int(said) > len(body):
            raise InputError(f"{HEADER_LENGTH} is {said[:20]!r}, the body has {len(body)} bytes")
        length = int(said)
    return as_json(body[:length]), body[length:]


def as_json(body: memoryview) -> Any:
    """Raises `InputError` where it is not JSON."""
    try:
        return from_json(bytes(body), allow_inf_nan=False)
    except ValueError as error:
        raise InputError(f"the body is not JSON: {error}") from None
