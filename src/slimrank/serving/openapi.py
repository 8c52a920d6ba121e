"""The service described in OpenAPI 3.1: every route with what it takes and what it answers, in every case.

Each thing is said once, in `components`, and referred to. Bounds are those of the service's own settings, so that a
client that is made from the description knows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slimrank import __version__
from slimrank.serving.access import OPEN
from slimrank.serving.protocol import DATATYPES
from slimrank.serving.ranking import KEYS as RANKING_KEYS
from slimrank.serving.settings import MODEL_NAME, Limits, Settings

Schema = dict[str, Any]
JSON, BINARY, PLAIN = "application/json", "application/octet-stream", "text/plain"

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TRUTH: Schema = {"type": "boolean"}
SIZES: Schema = {"type": "array", "items": {"type": "integer", "minimum": -1}}
ANYTHING: Schema = {"type": "object"}
EMPTY: Schema = {"type": "object", "maxProperties": 0}
LOADED: Schema = {"type": "object", "properties": {"parameters": EMPTY}}
SCALAR: Schema = {"type": ["string", "number", "boolean", "null"]}
VALUE: Schema = {"anyOf": [SCALAR, {"type": "array", "items": SCALAR}]}

TAGS = {
    "health": "Whether it answers.",
    "models": "What is served, and what it has answered.",
    "ranking": "Candidates of raw rows.",
    "inference": "Tensors, by the Open Inference Protocol.",
    "repository": "Models loaded and unloaded.",
    "service": "The service itself.",
}
ERRORS = {
    400: "The request is not what it must be; the error says what, got and allowed.",
    401: "The bearer token is missing or another one.",
    404: "There is no such model or version.",
    413: "More bytes, rows or characters than the service takes at once.",
    422: "The answer is NaN or infinite, which JSON cannot say: numbers are too large, or the model is at fault.",
    500: "Something that nobody foresaw; the log says more.",
    503: "The model is not loaded, or there is no room: try again after `Retry-After` seconds.",
    504: "The request ran out of time.",
}
ASKED = (400, 404, 413, 422, 500, 503, 504)  # what a request with a body may end in
NAMED = (404, 500, 503)  # what one for a model may


def description(settings: Settings) -> dict[str, Any]:
    """The whole description of a service with these settings, as JSON has it."""
    paths = _paths()
    secured = settings.token_file is not None
    if secured:
        _secure(paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": "slimrank", "version": __version__, "description": "Models of search and recommendation."},
        "tags": [{"name": name, "description": told} for name, told in TAGS.items()],
        **({"security": [{"bearer": []}]} if secured else {}),
        "paths": paths,
        "components": {
            "schemas": _schemas(settings.limits),
            "parameters": _parameters([each.name for each in settings.models]),
            "responses": {str(status): _error(status) for status in ERRORS},
            **({"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}} if secured else {}),
        },
    }


def _secure(paths: dict[str, Any]) -> None:
    """Say of each operation whether it needs the token."""
    for path, item in paths.items():
        for operation in (item[method] for method in ("get", "post") if method in item):
            if path in OPEN:
                operation["security"] = []
            else:
                operation["responses"]["401"] = _ref("401", "responses")


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/": _get("page", "The page", "service", TEXT, media="text/html"),
        "/page.css": _get("style", "Its style", "service", TEXT, media="text/css"),
        "/page.js": _get("script", "Its script", "service", TEXT, media="text/javascript"),
        "/figures.js": _get("figures", "The same", "service", TEXT, media="text/javascript"),
        "/openapi.json": _get("openapi", "This description", "service", ANYTHING),
        "/metrics": _get("metrics", "Figures for Prometheus", "service", TEXT, (500,), media=PLAIN),
        "/v2": _get("server", "What this is", "service", _ref("Server")),
        "/v2/health/live": _get("live", "Whether it lives", "health", _ref("Live")),
        "/v2/health/ready": _ready("ready", "Whether all models answer", "Ready", ()),
        "/v2/models/stats": _get("all_stats", "What all models have answered", "models", _ref("Statistics"), (500,)),
        "/v2/models/{name}/schema": _get("schema", "Its fields, for a ranking request", "ranking", _ref("Form"), NAMED),
        "/v2/models/{name}/rank": _rank(),
        "/v2/repository/index": _index(),
        "/v2/repository/models/{name}/load": _changes("load", "Load what stands at its paths", LOADED),
        "/v2/repository/models/{name}/unload": _changes("unload", "Answer no more for it", {}),
        **_model("/v2/models/{name}", ""),
        **_model("/v2/models/{name}/versions/{version}", "version_"),
    }
    for path, item in paths.items():
        names = [name for name in ("name", "version") if f"{{{name}}}" in path]
        if names:
            item["parameters"] = [_ref(name, "parameters") for name in names]
    return paths


def _model(path: str, prefix: str) -> dict[str, Any]:
    """The routes of a model, or of one version of it."""
    return {
        path: _get(f"{prefix}metadata", "Its tensors", "models", _ref("Metadata"), NAMED),
        f"{path}/config": _get(f"{prefix}config", "Its configuration", "models", _ref("Configuration"), NAMED),
        f"{path}/stats": _get(f"{prefix}stats", "What it has answered", "models", _ref("Statistics"), NAMED),
        f"{path}/ready": _ready(f"{prefix}model_ready", "Whether it answers", "ModelReady", (404, 500)),
        f"{path}/infer": _infer(f"{prefix}infer"),
    }


def _operation(name: str, told: str, tag: str, answer: Schema, errors: Sequence[int], **others: Any) -> Schema:
    responses = {"200": answer, **{str(status): _ref(str(status), "responses") for status in errors}}
    return {"operationId": name, "summary": told, "tags": [tag], "responses": responses, **others}


def _get(name: str, told: str, tag: str, schema: Schema, errors: Sequence[int] = (), media: str = JSON) -> Schema:
    return {"get": _operation(name, told, tag, _told(schema, media), errors)}


def _ready(name: str, told: str, schema: str, errors: Sequence[int]) -> Schema:
    item = _get(name, told, "health", _ref(schema), errors)
    item["get"]["responses"]["503"] = _told(_ref(schema), told="It does not answer, or not yet.")
    return item


def _index() -> Schema:
    body = _body({JSON: {"schema": _ref("IndexRequest"), "example": {"ready": True}}}, required=False)
    answer = _told(_ref("Index"))
    return {"post": _operation("index", "All models", "repository", answer, (400, 413, 500), requestBody=body)}


def _changes(verb: str, told: str, body: Schema) -> Schema:
    answer = _told(EMPTY, told="All workers have done it.")
    taken = _body({JSON: {"schema": body, "example": {}}}, required=False)
    return {"post": _operation(verb, told, "repository", answer, (400, 404, 413, 500), requestBody=taken)}


def _rank() -> Schema:
    example = {"shared": {"user": 7}, "candidates": {"item": [1, 2, 3]}, "k": 2}
    body = _body({JSON: {"schema": _ref("Ranking"), "example": example}})
    answer = _told(_ref("Ranked"))
    return {"post": _operation("rank", "Candidates to scores", "ranking", answer, ASKED, requestBody=body)}


def _infer(name: str) -> Schema:
    tensor = {"name": "ids", "datatype": "INT32", "shape": [1, 3], "data": [1, 2, 3]}
    example = {"id": "a request", "inputs": [tensor], "outputs": [{"name": "logit"}]}
    body = _body({JSON: {"schema": _ref("Inference"), "example": example}, BINARY: {"schema": {}}})
    body["description"] = "JSON; or JSON and the bytes of tensors behind it, and a header that says where they begin."
    answer = _told(_ref("Inferred"))
    answer["content"][BINARY] = {"schema": {}}
    answer["headers"] = {"Inference-Header-Content-Length": {"schema": TEXT, "description": "Bytes of JSON in front."}}
    others = {"requestBody": body, "parameters": [_ref("json_bytes", "parameters")]}
    return {"post": _operation(name, "Tensors to tensors", "inference", answer, ASKED, **others)}


def _body(content: Schema, *, required: bool = True) -> Schema:
    return {"required": required, "content": content}


def _told(schema: Schema, media: str = JSON, told: str = "The answer.") -> Schema:
    return {"description": told, "content": {media: {"schema": schema}}}


def _error(status: int) -> Schema:
    found = _told(_ref("Error"), told=ERRORS[status])
    if status == 503:
        found["headers"] = {"Retry-After": {"schema": TEXT, "description": "Seconds."}}
        found["content"][PLAIN] = {"schema": TEXT}  # more connections than are taken: told before anything is read
    if status == 401:
        found["headers"] = {"WWW-Authenticate": {"schema": TEXT, "required": True}}
    return found


def _ref(name: str, kind: str = "schemas") -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _parameters(models: Sequence[str]) -> dict[str, Schema]:
    def in_path(name: str, told: str, schema: Schema, **others: Any) -> Schema:
        return {"name": name, "in": "path", "required": True, "description": told, "schema": schema, **others}

    served = {each: {"value": each} for each in models}
    return {
        "name": in_path("name", "A model.", {"type": "string", "pattern": MODEL_NAME}, examples=served),
        "version": in_path("version", "A version of it.", {"type": "string", "pattern": "^[0-9a-f]{12}$"}),
        "json_bytes": {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "description": "How many bytes of the body are JSON; the rest are tensors. All where it is not given.",
            "schema": {"type": "string", "pattern": "^[0-9]{1,20}$"},
        },
    }


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, **others: Any) -> Schema:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required), **others}


def _list(items: Schema, **others: Any) -> Schema:
    return {"type": "array", "items": items, **others}


def _schemas(limits: Limits) -> dict[str, Schema]:
    """Every schema by its name."""
    datatype: Schema = {"type": "string", "enum": list(DATATYPES.values())}
    tensor = {"name": TEXT, "datatype": datatype, "shape": SIZES}
    named = {"model_name": TEXT, "model_version": TEXT}
    timed = _object({"count": COUNT, "ns": COUNT})
    parts = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    return {
        "Error": _object({"error": TEXT}),
        "Live": _object({"live": TRUTH}),
        "Ready": _object({"ready": TRUTH}),
        "ModelReady": _object({"name": TEXT, "ready": TRUTH}),
        "Server": _object({"name": TEXT, "version": TEXT, "extensions": _list(TEXT)}),
        "TensorMetadata": _object(tensor),
        "Metadata": _object(
            {"name": TEXT, "versions": _list(TEXT), "platform": TEXT}
            | dict.fromkeys(("inputs", "outputs"), _list(_ref("TensorMetadata")))
        ),
        "Configuration": _object(
            {"name": TEXT, "platform": TEXT, "backend": TEXT, "max_batch_size": COUNT}
            | dict.fromkeys(("input", "output"), _list(_object({"name": TEXT, "data_type": TEXT, "dims": SIZES}))),
            {"dynamic_batching": ANYTHING},
        ),
        "Statistics": _object({"model_stats": _list(_ref("ModelStatistics"))}),
        "ModelStatistics": _object(
            {"name": TEXT, "version": TEXT, "inference_count": COUNT, "execution_count": COUNT}
            | {"inference_stats": _object(dict.fromkeys(parts, timed)), "batch_stats": _list(ANYTHING)}
        ),
        "IndexRequest": _object({}, {"ready": TRUTH}),
        "Index": _list(_object({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT})),
        **_ranking(limits, named),
        **_inference(limits, named, tensor),
    }


def _ranking(limits: Limits, named: Mapping[str, Schema]) -> dict[str, Schema]:
    row: Schema = {"type": "object", "additionalProperties": VALUE}
    columns: Schema = {"type": "object", "additionalProperties": _list(VALUE, maxItems=limits.max_rows)}
    keys = {
        "shared": {**row, "description": "Values of fields that all candidates have."},
        "candidates": {"anyOf": [_list(row, maxItems=limits.max_rows), columns, {"type": "null"}]},
        "k": {"type": ["integer", "null"], "minimum": 1, "description": "How many of the best; all by default."},
        "id": {"type": "string", "description": "The same is answered by the same version, where there are several."},
        "version": TEXT,
    }
    assert tuple(keys) == RANKING_KEYS
    counts: Schema = {"type": "object", "additionalProperties": COUNT}
    field = _object({"name": TEXT, "kind": TEXT, "examples": _list(VALUE)})
    answers: Schema = {"type": "string", "enum": ["scores", "items", "vectors", "tensors"]}
    return {
        "Form": _object({**named, "golden": TEXT, "answers": answers, "group": TEXT, "fields": _list(field)}),
        "Ranking": _object({}, keys, additionalProperties=False),
        "Ranked": _object(
            {**named, "unknown": {**counts, "description": "By field, values that the vocabulary does not hold."}},
            {
                "id": TEXT,
                "probability": _list({"type": "number", "minimum": 0, "maximum": 1}),
                "score": _list({"type": ["number", "null"], "description": "null: the item is unknown."}),
                "top": _list({**COUNT, "description": "The place of a candidate."}),
                "items": _list({"type": ["string", "integer"]}),
                "shortened": {**counts, "description": "By field, histories and texts longer than is read."},
            },
        ),
    }


def _inference(limits: Limits, named: Mapping[str, Schema], tensor: Mapping[str, Schema]) -> dict[str, Schema]:
    sized = _object({}, {"binary_data_size": COUNT})
    shape = _list({"type": "integer", "minimum": 0, "maximum": 2**31 - 1})
    timeout = {**COUNT, "description": f"Microseconds; the service's own limit is {limits.timeout_ms} ms."}
    asked = _object({"name": TEXT}, {"parameters": _object({}, {"binary_data": TRUTH})})
    data = _list({}, description="Numbers, flat or nested like the shape.")
    numbers = _list({"type": ["number", "boolean"]})
    return {
        "InputTensor": _object({**tensor, "shape": shape}, {"data": data, "parameters": sized}),
        "OutputTensor": _object({**tensor, "shape": shape}, {"data": numbers, "parameters": sized}),
        "Inference": _object(
            {"inputs": _list(_ref("InputTensor"))},
            {
                "id": TEXT,
                "outputs": _list(asked),
                "parameters": _object({}, {"binary_data_output": TRUTH, "timeout": timeout}),
            },
        ),
        "Inferred": _object({**named, "outputs": _list(_ref("OutputTensor"))}, {"id": TEXT}),
    }
