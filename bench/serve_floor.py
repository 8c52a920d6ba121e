"""An application of no more than an answer: what uvicorn, the loop and the client take of a ranking request's time.

`uvicorn bench.serve_floor:answer` reads a body and answers with as many bytes as 256 probabilities are.
"""

from __future__ import annotations

from typing import Any

BODY = b'{"probability":[' + b",".join([b"0.12345678359270096"] * 256) + b"]}"
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]


async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer one request."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


async def _live(receive: Any, send: Any) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
