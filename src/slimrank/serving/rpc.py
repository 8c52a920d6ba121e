"""The same service over gRPC: the Open Inference Protocol with Triton's extensions, by the official client's stubs.

Tensors come as `raw_input_contents` or as typed `contents`, and go as raw ones, as Triton's do. Left out: shared
memory, tracing and log settings, which are answered with UNIMPLEMENTED.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.json_format import ParseDict
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server

from slimrank.config import InputError
from slimrank.data.tensors import TensorSpec
from slimrank.serving.access import allowed, read_token
from slimrank.serving.batching import TooLate
from slimrank.serving.bounds import TooMany
from slimrank.serving.describing import config_of, index_of, statistics_of
from slimrank.serving.gate import Overloaded, Stopwatch
from slimrank.serving.protocol import (
    DATATYPES,
    bytes_of,
    check_whole,
    checked_shape,
    input_named,
    model_metadata,
    named_outputs,
    reshaped,
    server_metadata,
    tensor_of,
)
from slimrank.serving.repository import Unavailable, Unknown, Version
from slimrank.serving.served import Arrays
from slimrank.serving.service import Asked, Failed, Service
from slimrank.serving.settings import Settings

CODES = {
    Unknown: grpc.StatusCode.NOT_FOUND,
    TooMany: grpc.StatusCode.RESOURCE_EXHAUSTED,
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    TooLate: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Overloaded: grpc.StatusCode.UNAVAILABLE,
    Failed: grpc.StatusCode.INTERNAL,
}
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
OPEN = {"/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady"}
Answer = TypeVar("Answer")


class Calls(GRPCInferenceServiceServicer):  # type: ignore[misc]
    """What every call answers, over one service."""

    def __init__(self, service: Service) -> None:
        self.service, self.repository = service, service.repository

    async def ServerLive(self, request: Any, context: Any) -> Any:
        """Whether the process answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        """Whether all models that are wanted answer."""
        return pb.ServerReadyResponse(ready=self.repository.ready and not self.service.gate.closed)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Whether a model answers."""
        return await _answered(context, self._model_ready(request))

    async def _model_ready(self, request: Any) -> Any:
        try:
            self.repository.version(request.name, request.version)
        except Unavailable:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        """What this is."""
        return ParseDict(server_metadata(), pb.ServerMetadataResponse())

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """A model's tensors."""
        return await _answered(context, self._metadata(request))

    async def _metadata(self, request: Any) -> Any:
        version = self.repository.version(request.name, request.version)
        versions = [each.name for each in self.repository.model(request.name).versions]
        return ParseDict(model_metadata(request.name, versions, version.served), pb.ModelMetadataResponse())

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        """A model's configuration."""
        return await _answered(context, self._config(request))

    async def _config(self, request: Any) -> Any:
        version = self.repository.version(request.name, request.version)
        told = config_of(request.name, version.served)
        return ParseDict({"config": told}, pb.ModelConfigResponse())

    async def ModelStatistics(self, request: Any, context: Any) -> Any:
        """What a model, or every model, has answered."""
        return await _answered(context, self._statistics(request))

    async def _statistics(self, request: Any) -> Any:
        if request.name:
            self.repository.version(request.name, request.version)
        told = statistics_of(self.service, request.name, request.version)
        return ParseDict({"model_stats": told}, pb.ModelStatisticsResponse())

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        """All models, loaded or not."""
        return ParseDict({"models": index_of(self.repository, only_ready=request.ready)}, pb.RepositoryIndexResponse())

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        """Load what stands at a model's paths now, in all workers."""
        return await _answered(context, self._load(request))

    async def _load(self, request: Any) -> Any:
        if request.parameters:
            raise InputError("a model is loaded from its own paths: no config and no files are taken")
        await self.service.control.ask(request.model_name, load=True)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        """Answer no more for a model, in all workers."""
        return await _answered(context, self._unload(request))

    async def _unload(self, request: Any) -> Any:
        await self.service.control.ask(request.model_name, load=False)
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """Tensors to tensors."""
        return await _answered(context, self._infer(request, context))

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """The same over a stream: answers in the order of requests, errors as messages, so that the stream goes on."""
        async for request in requests:
            try:
                yield pb.ModelStreamInferResponse(infer_response=await self._infer(request, context))
            except tuple(CODES) as error:
                yield pb.ModelStreamInferResponse(
                    error_message=_told(error), infer_response=pb.ModelInferResponse(id=request.id)
                )

    async def _infer(self, request: Any, context: Any) -> Any:
        watch, headers = Stopwatch(), {name: str(value) for name, value in context.invocation_metadata() or ()}
        async with self.service.request("infer", request.model_name, watch, headers) as told:
            timeout = request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0
            left = [context.time_remaining(), timeout / 1e6 if timeout > 0 else None]
            seconds = min((each for each in left if each is not None), default=None)

            def decode(version: Version) -> tuple[Arrays, list[str]]:
                outputs = named_outputs([each.name for each in request.outputs], version.served)
                return _arrays(request, version, self.service.settings.limits.max_rows), outputs

            until = self.service.until(watch, seconds)
            asked = Asked(request.model_name, request.model_version, request.id or None, until)
            version, answers, outputs = await self.service.infer(asked, decode, watch, told)
            answer = _reply(request, version, answers, outputs)
            watch.lap("reply")
        return answer


def _arrays(request: Any, version: Version, max_rows: int) -> Arrays:
    """The arrays of a request, raw or typed.

    Raises:
        TooMany, InputError: as `read_request`.
    """
    served, raw = version.served, request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InputError(f"{len(raw)} raw contents for {len(request.inputs)} inputs")
    arrays: Arrays = {}
    for place, tensor in enumerate(request.inputs):
        spec = input_named(tensor.name, served, arrays)
        shape = checked_shape(spec, tensor.datatype, list(tensor.shape), served.rows, max_rows)
        if raw:
            arrays[spec.name] = tensor_of(raw[place], spec, shape, len(raw[place]))
        else:
            arrays[spec.name] = _typed(tensor, spec, shape)
    check_whole(arrays, served)
    return arrays


def _typed(tensor: Any, spec: TensorSpec, shape: list[int]) -> NDArray[Any]:
    """A tensor from its typed contents."""
    kind = DATATYPES[spec.dtype.name]
    if kind not in CONTENTS:
        raise InputError(f"input {spec.name!r}: {kind} has no typed contents; send raw_input_contents")
    values = np.array(getattr(tensor.contents, CONTENTS[kind]))
    if values.size != math.prod(shape):
        raise InputError(f"input {spec.name!r}: {values.size} values for the shape {shape}")
    if spec.dtype.kind in "iu" and values.size:
        limits = np.iinfo(spec.dtype)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            raise InputError(f"input {spec.name!r}: a value does not fit {kind}")
    return reshaped(values.astype(spec.dtype), spec, shape)


def _reply(request: Any, version: Version, answers: Arrays, outputs: list[str]) -> Any:
    answer = pb.ModelInferResponse(model_name=request.model_name, model_version=version.name, id=request.id)
    for name in outputs:
        array = answers[name]
        answer.outputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        answer.raw_output_contents.append(bytes_of(array))
    return answer


async def _answered(context: Any, answer: Awaitable[Answer]) -> Answer:
    """The answer, or its error as a status."""
    try:
        return await answer
    except tuple(CODES) as error:
        code = next(code for kind, code in CODES.items() if isinstance(error, kind))
        await context.abort(code, _told(error))
        raise


def _told(error: Exception) -> str:
    texts = {
        Overloaded: "too many requests; try again",
        TooLate: "the request ran out of time",
        Failed: "internal error",
    }
    return texts.get(type(error), str(error))


class Bearer(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without the token, but for health."""

    def __init__(self, token: bytes) -> None:
        async def refuse(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed")

        self.token, self.refused = token, grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """As grpc says."""
        given = next((value for name, value in details.invocation_metadata if name == "authorization"), "")
        if details.method in OPEN or allowed(given.encode(), self.token):
            return await continuation(details)
        return self.refused


async def start_rpc(service: Service, host: str, port: int) -> tuple[grpc.aio.Server, int]:
    """A server on that port, which workers share.

    Returns:
        The server and its port.

    Raises:
        InputError: the port cannot be taken, or the token or the certificate cannot be read.
    """
    settings = service.settings
    options = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.limits.max_body_bytes),
        ("grpc.max_concurrent_streams", settings.limits.max_requests),
        ("grpc.max_connection_idle_ms", 60 * settings.limits.idle_ms),
    ]
    interceptors = [] if settings.token_file is None else [Bearer(read_token(settings.token_file))]
    most = settings.limits.max_connections
    server = grpc.aio.server(interceptors=interceptors, options=options, maximum_concurrent_rpcs=most)
    add_GRPCInferenceServiceServicer_to_server(Calls(service), server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        secured = _credentials(settings)
        taken = server.add_insecure_port(address) if secured is None else server.add_secure_port(address, secured)
    except RuntimeError as error:
        raise InputError(f"cannot listen on {host} port {port}: {error}") from None
    await server.start()
    return server, int(taken)


def _credentials(settings: Settings) -> Any:
    """The certificate, None where there is none."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    pair = (_read(settings.tls_key), _read(settings.tls_certificate))
    return grpc.ssl_server_credentials([pair])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
