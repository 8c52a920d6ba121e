"""The HTTP application over a service: routes, what is read and written, errors as JSON.

GET  /  the page, with /page.css and /page.js    /openapi.json    /metrics    /v2    /v2/health/live    /v2/health/ready
GET  /v2/models/{name}[/versions/{version}]    and its /ready, /config, /stats    /v2/models/stats
GET  /v2/models/{name}/schema    the fields of a ranking request, with values to try
POST /v2/models/{name}[/versions/{version}]/infer    tensors to tensors (Open Inference Protocol)
POST /v2/models/{name}/rank                          candidates of raw rows to scores, or the first k
POST /v2/repository/index    /v2/repository/models/{name}/load    .../unload
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan

from slimrank.config import InputError
from slimrank.serving.access import Access, SameOrigin, Shedding
from slimrank.serving.batching import TooLate
from slimrank.serving.body import HEADER_LENGTH, as_json, parted, read_body
from slimrank.serving.bounds import TooMany
from slimrank.serving.describing import config_of, index_of, statistics_of
from slimrank.serving.form import form_of
from slimrank.serving.gate import Overloaded, Stopwatch
from slimrank.serving.openapi import description
from slimrank.serving.page import FILES, HEADERS, page_file
from slimrank.serving.protocol import (
    Unsayable,
    asked_outputs,
    model_metadata,
    parameter,
    read_request,
    reply,
    server_metadata,
)
from slimrank.serving.ranking import read_ranking
from slimrank.serving.repository import Unavailable, Unknown, Version
from slimrank.serving.served import Arrays
from slimrank.serving.service import Asked, Failed, Service

STATUS = {
    **{Unknown: 404, TooMany: 413, InputError: 400, Unsayable: 422},
    **{TooLate: 504, Unavailable: 503, Overloaded: 503},
}
REPOSITORY_BYTES = 1 << 16  # of a request that is about models
AGAIN = {"retry-after": "1"}  # seconds after which a request that found no room may be tried again


class Json(Response):
    """An answer of JSON, written by a faster library than Python's own."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """As bytes."""
        return to_json(content)


class Endpoints:
    """What every route answers, over one service."""

    def __init__(self, service: Service) -> None:
        self.service, self.repository = service, service.repository
        self.limits = service.settings.limits

    def routes(self) -> list[Route]:
        """All of them."""
        versioned = [
            Route(f"/v2/models/{{name}}{version}{path}", endpoint)
            for version in ("", "/versions/{version}")
            for path, endpoint in [
                ("", self.metadata),
                ("/ready", self.model_ready),
                ("/config", self.config),
                ("/stats", self.statistics),
            ]
        ]
        return [
            Route("/v2/models/{name}/rank", self.rank, methods=["POST"]),  # what is asked most is tried first
            Route("/v2/models/{name}/infer", self.infer, methods=["POST"]),
            Route("/v2/models/{name}/versions/{version}/infer", self.infer, methods=["POST"]),
            Route("/", self.page),
            *(Route(f"/{name}", self.page) for name in FILES if name != "page.html"),
            Route("/openapi.json", self.openapi),
            Route("/metrics", self.metrics),
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/models/stats", self.statistics),
            *versioned,
            Route("/v2/models/{name}/schema", self.schema),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            Route("/v2/repository/models/{name}/load", self.load, methods=["POST"]),
            Route("/v2/repository/models/{name}/unload", self.unload, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """The page and what belongs to it, which asks the same routes as every client."""
        name = request.url.path.removeprefix("/") or "page.html"
        return Response(page_file(name), media_type=FILES[name], headers=HEADERS)

    async def openapi(self, request: Request) -> Response:
        """The description of all this."""
        return Json(description(self.service.settings))

    async def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(self.service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def server(self, request: Request) -> Response:
        """What this is."""
        return Json(server_metadata())

    async def live(self, request: Request) -> Response:
        """Whether the process answers."""
        return Json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether all models that are wanted answer."""
        ready = self.repository.ready and not self.service.gate.closed
        return Json({"ready": ready}, 200 if ready else 503)

    async def model_ready(self, request: Request) -> Response:
        """Whether a model answers."""
        name = request.path_params["name"]
        try:
            self.repository.version(name, request.path_params.get("version", ""))
        except Unavailable:
            return Json({"name": name, "ready": False}, 503)
        return Json({"name": name, "ready": True})

    def _version(self, request: Request) -> tuple[str, Version]:
        name = request.path_params["name"]
        return name, self.repository.version(name, request.path_params.get("version", ""))

    async def metadata(self, request: Request) -> Response:
        """A model's tensors."""
        name, version = self._version(request)
        versions = [each.name for each in self.repository.model(name).versions]
        return Json(model_metadata(name, versions, version.served))

    async def schema(self, request: Request) -> Response:
        """What a ranking request of a model may hold."""
        return Json(form_of(*self._version(request)))

    async def config(self, request: Request) -> Response:
        """A model's configuration, as Triton's protocol has it."""
        name, version = self._version(request)
        return Json(config_of(name, version.served))

    async def statistics(self, request: Request) -> Response:
        """What a model, or every model, has answered."""
        name, version = request.path_params.get("name", ""), request.path_params.get("version", "")
        if name:
            self.repository.version(name, version)
        return Json({"model_stats": statistics_of(self.service, name, version)})

    async def index(self, request: Request) -> Response:
        """All models, loaded or not."""
        body = as_json(await read_body(request, REPOSITORY_BYTES) or memoryview(b"{}"))
        ready = body.get("ready", False) if isinstance(body, dict) else None
        if not isinstance(ready, bool):
            raise InputError('the request must be an object, where "ready" is true or false')
        return Json(index_of(self.repository, only_ready=ready))

    async def load(self, request: Request) -> Response:
        """Load what stands at a model's paths now, in all workers."""
        body = as_json(await read_body(request, REPOSITORY_BYTES) or memoryview(b"{}"))
        if not isinstance(body, dict) or body.get("parameters", {}) != {}:
            raise InputError("a model is loaded from its own paths: no config and no files are taken")
        await self.service.control.ask(request.path_params["name"], load=True)
        return Json({})

    async def unload(self, request: Request) -> Response:
        """Answer no more for a model, in all workers."""
        await read_body(request, REPOSITORY_BYTES)
        await self.service.control.ask(request.path_params["name"], load=False)
        return Json({})

    @asynccontextmanager
    async def _request(
        self, kind: str, request: Request
    ) -> AsyncIterator[tuple[Stopwatch, dict[str, str], memoryview]]:
        """Around one request for a model's answer: its stopwatch, what is told of it, and its body, which is read."""
        watch, name = Stopwatch(), request.path_params["name"]
        async with self.service.request(kind, name, watch, request.headers) as told:
            with self.service.gate.aside(name) as hold:
                body = await read_body(request, self.limits.max_body_bytes, hold)
            watch.lap("read")
            yield watch, told, body
            watch.lap("reply")

    async def infer(self, request: Request) -> Response:
        """Tensors to tensors."""
        name = request.path_params["name"]
        async with self._request("infer", request) as (watch, told, body):
            asked, binary = parted(request, body)

            def decode(version: Version) -> tuple[Arrays, list[str]]:
                outputs = asked_outputs(asked, version.served)
                return read_request(asked, version.served, self.limits.max_rows, binary), outputs

            question = self._asked(request, name, asked, watch)
            version, answers, outputs = await self.service.infer(question, decode, watch, told)
            content, behind = reply(asked, name, version.name, answers, outputs)
            return _with_tensors(to_json(content), behind)

    def _asked(self, request: Request, name: str, body: Any, watch: Stopwatch) -> Asked:
        """A request's names, and when it is given up: in so many microseconds, where it has a `timeout`."""
        identity = body.get("id") if isinstance(body, dict) else None
        timeout = parameter(body, "timeout")
        limit = 1000 * self.limits.timeout_ms  # a larger one may be an integer that no float holds
        seconds = min(timeout, limit) / 1e6 if type(timeout) is int and timeout > 0 else None
        version = request.path_params.get("version", "")
        return Asked(name, version, identity if isinstance(identity, str) else None, self.service.until(watch, seconds))

    async def rank(self, request: Request) -> Response:
        """Candidates to scores."""
        name = request.path_params["name"]
        async with self._request("rank", request) as (watch, told, body):
            ranking = read_ranking(as_json(body), self.limits, len(body))
            watch.lap("parse")
            asked = Asked(name, ranking.version, ranking.id, self.service.until(watch))
            version, found = await self.service.rank(asked, ranking, watch, told)
            identity = {} if ranking.id is None else {"id": ranking.id}
            return Json({"model_name": name, "model_version": version.name, **identity, **found})


def create_app(service: Service, lifespan: Lifespan[Starlette] | None = None) -> ASGIApp:
    """What serves a service over HTTP. `lifespan` starts and stops what it needs beside."""
    kinds = (HTTPException, InputError, Unsayable, Unavailable, TooLate, Overloaded, Failed, Exception)
    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = dict.fromkeys(kinds, _error)
    app = Starlette(routes=Endpoints(service).routes(), exception_handlers=handlers, lifespan=lifespan)
    shedding = Shedding(app, service.gate, _answer_to(Overloaded()), service.metrics.shed.inc)
    return SameOrigin(Access(shedding, service.settings.token_file))


def _with_tensors(content: bytes, behind: list[bytes]) -> Response:
    """An answer with the bytes of tensors behind its JSON, where there are any."""
    if not behind:
        return Response(content, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(content))}
    return Response(b"".join([content, *behind]), media_type="application/octet-stream", headers=headers)


async def _error(request: Request, error: Exception) -> Response:
    return _answer_to(error)


def _answer_to(error: Exception) -> Response:
    """Every error as {"error": what, got, allowed}. One that nobody foresaw tells the client nothing of our inside."""
    if isinstance(error, HTTPException):
        return Json({"error": error.detail}, error.status_code, headers=error.headers)
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    if status < 500 or isinstance(error, Unavailable):
        told = str(error)
    elif status == 500:
        told = "internal error"
    else:
        told = "the request ran out of time" if status == 504 else "too many requests; try again"
    return Json({"error": told}, status, headers=AGAIN if status == 503 else None)
