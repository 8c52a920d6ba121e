"""A service process: checks what it is to serve, takes the ports, starts workers, answers until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimrank.config import InputError
from slimrank.serving.settings import Settings

if TYPE_CHECKING:
    import uvicorn
    from uvicorn.supervisors.multiprocess import Multiprocess

    from slimrank.serving.repository import OpenedByPath
    from slimrank.serving.worker import Worker

LOG = logging.getLogger("slimrank.serving")
MEMORY = "/dev/shm"  # a file system in memory, on Linux
ROOM = 16 << 20  # bytes that are to be free there


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; then take no more requests and answer those there are.

    With one worker this process answers; with several it starts them and one in the place of each that dies.

    Raises:
        InputError: an artifact cannot be loaded, a port cannot be taken, a token or certificate cannot be read, or the
            server is not installed.
    """
    try:
        import uvicorn
        import uvicorn.supervisors

        from slimrank.serving import access
        from slimrank.serving.worker import Worker
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'slimrank[serve]'") from None
    if settings.token_file is not None:
        access.read_token(settings.token_file)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_shared_folder()) if settings.workers > 1 else None
        opened = _opened(settings)
        if folder is not None:
            opened = {}  # sessions cannot be sent to new processes, which open artifacts themselves
        door = stack.enter_context(listening(settings.host, settings.port))
        grpc_port = stack.enter_context(_grpc_port(settings))
        config = _configured(Worker(settings, folder, grpc_port, opened))
        _tell(settings, door.getsockname()[1])
        with contextlib.suppress(KeyboardInterrupt):  # after the requests are done
            if settings.workers > 1:
                _supervise(uvicorn.supervisors.Multiprocess(config, [door]))
            else:
                with contextlib.suppress(ValueError):  # outside of the main thread there are no signals
                    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was asked for is no failure
                uvicorn.Server(config).run(sockets=[door])


def _supervise(supervisor: Multiprocess) -> None:
    """Run the workers.

    Raises:
        InputError: one could not start, which ends them all.
    """
    from uvicorn.config import STARTUP_FAILURE

    ending = supervisor.terminate_all

    def close_and_end() -> None:
        for door in supervisor.sockets:  # who comes now is refused, and does not wait at a door that nobody opens
            door.close()
        ending()

    supervisor.terminate_all = close_and_end  # type: ignore[method-assign]
    supervisor.run()
    if any(each.exitcode == STARTUP_FAILURE for each in supervisor.processes):
        raise InputError("a worker could not start; the lines above say why")


def _opened(settings: Settings) -> OpenedByPath:
    """Every artifact that is to be loaded, open, so that what is wrong is told here and not by a worker."""
    from slimrank.serving.repository import opened

    found = {}
    for model in settings.models:
        if model.load:
            for path in [each.path for each in model.versions] + ([model.shadow] if model.shadow else []):
                try:
                    found[path] = opened(path, settings)
                except InputError:
                    raise
                except Exception as error:  # a manifest may be consistent and say what no release of ours writes
                    raise InputError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from error
    return found


def _configured(worker: Worker) -> uvicorn.Config:
    import uvicorn

    from slimrank.serving.worker import PatientProtocol

    settings = worker.settings
    _check_certificate(settings)
    return uvicorn.Config(
        worker,
        factory=True,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        workers=settings.workers,
        access_log=False,
        server_header=False,
        log_config=logging_of(settings.log),
        limit_concurrency=settings.limits.max_connections,
        timeout_keep_alive=max(1, settings.limits.idle_ms // 1000),
        timeout_graceful_shutdown=max(1, settings.drain_ms // 1000),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )


def _check_certificate(settings: Settings) -> None:
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"{settings.tls_certificate}, {settings.tls_key}: no certificate and key: {error}") from None


def logging_of(form: str) -> dict[str, Any]:
    """Where log lines go and what they look like, for `logging.config.dictConfig`."""
    formatter = (
        {"()": "slimrank.serving.logs.JsonLines"} if form == "json" else {"format": "%(levelname)s: %(message)s"}
    )
    handler = {"class": "logging.StreamHandler", "formatter": "lines", "stream": "ext://sys.stderr"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": formatter},
        "handlers": {"lines": handler},
        "loggers": {
            name: {"handlers": ["lines"], "level": "INFO", "propagate": False}
            for name in ("slimrank", "asyncio", "uvicorn")
        },
    }


def _tell(settings: Settings, port: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls_certificate is None else "https"
    names = ", ".join(each.name for each in settings.models)
    LOG.info("serving %s on %s://%s:%d", names, scheme, host, port)
    if settings.open_to_all:
        loads = ", and load and unload models" if settings.may_load else ""
        LOG.warning("there is no token: everyone who reaches the port may ask%s", loads)


@contextlib.contextmanager
def _shared_folder() -> Iterator[Path]:
    """A folder for what workers count and are told, gone with the service.

    It is in memory where there is room for it: counts are written to mapped files, and a process that writes to a
    mapped file on a full disk is killed. A worker takes some hundred kilobytes, one that died too.
    """
    memory = Path(MEMORY)
    fits = os.access(memory, os.W_OK | os.X_OK) and shutil.disk_usage(memory).free >= ROOM
    with tempfile.TemporaryDirectory(prefix="slimrank-serving-", dir=memory if fits else None) as folder:
        counted = Path(folder) / "metrics"
        counted.mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(counted)  # read when the library is imported, by workers too
        try:
            yield Path(folder)
        finally:
            del os.environ["PROMETHEUS_MULTIPROC_DIR"]


@contextlib.contextmanager
def _grpc_port(settings: Settings) -> Iterator[int | None]:
    """The port of gRPC, held so that nobody else takes it before the workers, which share it, do."""
    if settings.grpc_port is None:
        yield None
        return
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        _check_taken(settings.host, settings.grpc_port)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            held.bind((settings.host, settings.grpc_port))
        except OSError as error:
            raise InputError(f"cannot listen on {settings.host} port {settings.grpc_port}: {error}") from None
        yield int(held.getsockname()[1])


def _check_taken(host: str, port: int) -> None:
    """Raises `InputError` where a port is somebody's: one that is shared would be taken without a word."""
    with listening(host, port):
        pass


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes any free one.

    Raises:
        InputError: the port is taken or not allowed, or there is no such address here.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"cannot listen on port {port}; allowed: 0..65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        door = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(f"cannot listen on {host} port {port}: {error}") from None
    # Connections have it from here. asyncio does not set it on those of a socket that was made without a protocol's
    # number, and then every answer that is written in two parts waits 40 ms for the client's delayed acknowledgement.
    door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return door
