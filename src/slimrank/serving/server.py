"""A server process: loads and verifies the artifact, takes the port, answers until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import socket
from pathlib import Path

from pydantic import PositiveInt

from slimrank.config import Config, InputError


class Limits(Config):
    """What one request may ask for.

    Attributes:
        max_body_bytes: of the body as sent; more is answered with 413.
        max_rows: rows, or candidates, of one request; more is answered with 413.
    """

    max_body_bytes: PositiveInt = 4 << 20
    max_rows: PositiveInt = 4096


def serve(
    path: str | Path,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int = 1,
    limits: Limits | None = None,
) -> None:
    """Serve the artifact in `path` as model `name` (by default its directory's name) until SIGINT or SIGTERM.

    There is no authentication: a host other than loopback opens the model to whoever reaches it.

    Raises:
        InputError: the artifact cannot be loaded, the port cannot be taken, or the server is not installed.
    """
    try:
        import uvicorn

        from slimrank.serving.app import create_app
        from slimrank.serving.served import open_served
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'slimrank[serve]'") from None
    served = open_served(path, threads)
    name = name or served.artifact.path.name
    app = create_app(served, name, limits or Limits())
    config = uvicorn.Config(app, timeout_keep_alive=5, server_header=False, ws="none", lifespan="off")
    with listening(host, port) as door:
        address = f"[{host}]" if ":" in host else host
        logging.getLogger("uvicorn.error").info("serving %s on http://%s:%d", name, address, door.getsockname()[1])
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C, after the requests are done
            uvicorn.Server(config).run(sockets=[door])


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes any free one.

    Raises:
        InputError: the port is taken or not allowed, or there is no such address here.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"cannot listen on port {port}; allowed: 0..65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(f"cannot listen on {host} port {port}: {error}") from None
