"""The HTTP application over one model: routes, limits on what comes in, errors as JSON.

GET  /v2  /v2/health/live  /v2/health/ready  /v2/models/{name}  /v2/models/{name}/ready
POST /v2/models/{name}/infer      tensors to tensors (Open Inference Protocol)
POST /rank                        {"rows": [{...}, ...]} to probabilities and unknown counts, of a model of rows
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from slimrank.config import InputError, nearest
from slimrank.serving.protocol import (
    TooManyRows,
    Unsayable,
    asked_outputs,
    check_rows,
    model_metadata,
    read_request,
    reply,
    server_metadata,
)
from slimrank.serving.served import Served
from slimrank.serving.server import Limits


def create_app(served: Served, name: str, limits: Limits) -> Starlette:
    """What serves an artifact under `name`. Scoring runs in threads, so that health is answered meanwhile."""

    async def infer(request: Request) -> Response:
        _check_name(request, name)
        body = await _json_body(request, limits.max_body_bytes)
        return JSONResponse(await run_in_threadpool(_infer, body, name, served, limits))

    async def rank(request: Request) -> Response:
        body = await _json_body(request, limits.max_body_bytes)
        return JSONResponse(await run_in_threadpool(_rank, body, name, served, limits))

    def of_model(answer: dict[str, Any]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            _check_name(request, name)
            return JSONResponse(answer)

        return endpoint

    routes = [
        Route("/v2", _always(server_metadata())),
        Route("/v2/health/live", _always({"live": True})),
        Route("/v2/health/ready", _always({"ready": True})),
        Route("/v2/models/{name}", of_model(model_metadata(name, served))),
        Route("/v2/models/{name}/ready", of_model({"name": name, "ready": True})),
        Route("/v2/models/{name}/infer", infer, methods=["POST"]),
        Route("/rank", rank, methods=["POST"]),
    ]
    return Starlette(
        routes=routes, exception_handlers=dict.fromkeys((HTTPException, InputError, Unsayable, Exception), _error)
    )


def _infer(body: Any, name: str, served: Served, limits: Limits) -> dict[str, Any]:
    asked = asked_outputs(body, served)
    return reply(body, name, served, served.run(read_request(body, served, limits.max_rows)), asked)


def _rank(body: Any, name: str, served: Served, limits: Limits) -> dict[str, Any]:
    if served.predict is None:
        raise InputError(f"{name!r} is asked by tensors, not by rows: POST /v2/models/{name}/infer")
    if not isinstance(body, dict) or not isinstance(body.get("rows"), list):
        raise InputError('the request must be an object with a list "rows"')
    unknown = [key for key in body if key != "rows"]
    if unknown:
        raise InputError(f"unknown key {unknown[0][:80]!r}. {nearest(unknown[0][:80], ['rows'])}")
    check_rows(len(body["rows"]), limits.max_rows)
    predictions = served.predict(body["rows"])
    return {
        "model_name": name,
        "model_version": served.version,
        "probability": predictions.probability.tolist(),
        "unknown": predictions.unknown,
    }


async def _json_body(request: Request, max_bytes: int) -> Any:
    """The body as JSON, read no further than `max_bytes`; NaN and infinity are not JSON."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:20]) > max_bytes:
        raise HTTPException(413, f"a body of {declared[:20]} bytes, at most {max_bytes} are allowed")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise HTTPException(413, f"a body of more than {max_bytes} bytes, at most {max_bytes} are allowed")
        return from_json(bytes(body), allow_inf_nan=False)
    except ClientDisconnect:
        raise HTTPException(400, "the body ended before its length") from None
    except ValueError as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from None


def _check_name(request: Request, name: str) -> None:
    asked = request.path_params["name"]
    if asked != name:
        raise HTTPException(404, f"unknown model {asked[:80]!r}. {nearest(asked[:80], [name])}")


def _always(answer: dict[str, Any]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(answer)

    return endpoint


async def _error(request: Request, error: Exception) -> Response:
    """Every error as {"error": what, got, allowed}. One that nobody foresaw tells the client nothing of our inside."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
    if isinstance(error, InputError):
        return JSONResponse({"error": str(error)}, 413 if isinstance(error, TooManyRows) else 400)
    return JSONResponse({"error": str(error) if isinstance(error, Unsayable) else "internal error"}, 500)
