"""What stands before the application: a bearer token, compared in constant time, and the gate; health is open."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from slimrank.config import InputError
from slimrank.serving.gate import Gate

PAGE = ("/", "/page.css", "/page.js", "/figures.js")  # which asks for the token itself
OPEN = ("/v2/health/live", "/v2/health/ready", *PAGE)
SHORTEST = 16  # bytes of a token: what is shorter can be guessed
ASKING = (b"/infer", b"/rank")  # what the paths of requests that are bounded end with


def read_token(path: Path) -> bytes:
    """The token in a file, without the white space around it.

    Raises:
        InputError: it cannot be read, or holds no token of at least 16 printable characters.
    """
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if len(token) < SHORTEST or not all(32 < each < 127 for each in token):
        raise InputError(f"{path}: holds no token; a token has at least {SHORTEST} printable characters and no spaces")
    return token


def allowed(header: bytes, token: bytes) -> bool:
    """Whether an Authorization header bears the token."""
    scheme, _, given = header.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), token)


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    """The first header of that name."""
    return next((bytes(value) for name, value in scope["headers"] if name == wanted), None)


class Access:
    """An application before which everyone shows the token, where there is one."""

    def __init__(self, app: ASGIApp, token_file: Path | None) -> None:
        self.app = app
        self.token = None if token_file is None else read_token(token_file)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if self.token is None or scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        if allowed(_header(scope, b"authorization") or b"", self.token):
            await self.app(scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": to_json({"error": "a bearer token is needed"})})


class SameOrigin:
    """An application that takes no requests that change something from the pages of others.

    A browser sends a simple POST to any address, the loopback too, and says in `Origin` whose page asked for it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] == "http" and scope["method"] == "POST":
            origin = _header(scope, b"origin")
            if origin is not None and origin.partition(b"://")[2] != _header(scope, b"host"):
                told = {"error": f"asked by a page of {origin[:80].decode('latin-1')}, which is not this service's"}
                await Response(to_json(told), 403, media_type="application/json")(scope, receive, send)
                return
        await self.app(scope, receive, send)


class Shedding:
    """An application before which requests that find no room are told so, with as little work as can be.

    Args:
        told: the answer to them, status, headers and body.
        count: called for each.
    """

    def __init__(self, app: ASGIApp, gate: Gate, told: Response, count: Callable[[], None]) -> None:
        self.app, self.gate, self.told, self.count = app, gate, told, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] == "http" and self.gate.full and scope["raw_path"].endswith(ASKING):
            self.count()
            await self.told(scope, receive, send)
            return
        await self.app(scope, receive, send)
