"""One process that answers: its models, its HTTP application, its gRPC server, and the look-out for new versions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from slimrank.config import InputError
from slimrank.serving.app import create_app
from slimrank.serving.repository import OpenedByPath
from slimrank.serving.service import Service
from slimrank.serving.settings import Settings

LOG = logging.getLogger("slimrank.serving")


@dataclass(frozen=True)
class Worker:
    """What a process makes its application of; plain data, so that it can be sent to a new process.

    Attributes:
        folder: what workers share, None where there is one.
        grpc_port: the port that was taken for all of them.
        opened: artifacts that this process has opened; of a new process none.
    """

    settings: Settings
    folder: Path | None = None
    grpc_port: int | None = None
    opened: OpenedByPath | None = None

    def __call__(self) -> ASGIApp:
        """The application."""
        service = Service(self.settings, self.folder, self.opened)

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            async with running(service, self.grpc_port):
                yield

        return create_app(service, lifespan)


@contextlib.asynccontextmanager
async def running(service: Service, grpc_port: int | None) -> AsyncIterator[None]:
    """Around the life of a worker: models are loaded before, and gone after."""
    settings = service.settings
    await service.repository.look()
    with contextlib.suppress(InputError):  # of a full disk; the next look may go well, and requests can be answered
        await service.control.look()
    server = None
    if grpc_port is not None:
        from slimrank.serving.rpc import start_rpc

        server, taken = await start_rpc(service, settings.host, grpc_port)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        LOG.info("serving %s by gRPC on %s:%d", ", ".join(each.name for each in settings.models), host, taken)
    watching = asyncio.get_running_loop().create_task(_watch(service, settings.poll_ms / 1e3))
    try:
        yield
    finally:
        service.gate.closed = True
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        if server is not None:
            await server.stop(settings.drain_ms / 1e3)
        service.repository.close()


async def _watch(service: Service, seconds: float) -> None:
    """Look for new versions, and for what other workers were asked, over and over."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await service.repository.look()
            await service.control.look()
            service.metrics.settle()
        except Exception:  # whatever it is, requests are answered and the next look may go well
            LOG.exception("looking for new versions failed")


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, but for clients that are slow and connections that are too many.

    One that does not send a whole request, or read what it was sent, within its keep-alive time is closed: a client
    that sends or reads a byte now and then would hold it for ever. One that comes when there are enough is answered
    with 503, and not all of them.
    """

    waiting: asyncio.TimerHandle | None = None
    unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client may take so long for its first request."""
        super().connection_made(transport)
        if self.limit_concurrency is not None:
            self.limit_concurrency = 0 if len(self.connections) > self.limit_concurrency else None
        self._wait()

    def on_message_begin(self) -> None:
        """And so long for each that follows."""
        super().on_message_begin()
        self._wait()

    def on_message_complete(self) -> None:
        """Who has sent all of it waits for us."""
        super().on_message_complete()
        self._stop()

    def pause_writing(self) -> None:
        """And so long for reading until there is room for more."""
        super().pause_writing()
        self.unread = self.loop.call_later(self.config.timeout_keep_alive, self._give_up)

    def resume_writing(self) -> None:
        """Who reads may go on."""
        super().resume_writing()
        self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop()
        self._read()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop()
        self.waiting = self.loop.call_later(self.config.timeout_keep_alive, self._give_up)

    def _read(self) -> None:
        if self.unread is not None:
            self.unread.cancel()

    def _stop(self) -> None:
        if self.waiting is not None:
            self.waiting.cancel()

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
