"""Servers under load, each in processes of its own on a processor of its own: ours, and those of others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from slimrank.config import InputError

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
READY_SECONDS, DRAIN_SECONDS = 90, 20
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}


@dataclass(frozen=True)
class Server:
    """A server that is ready. `log` is what it wrote on its standard error."""

    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int
    log: Path

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET."""
        connection = HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    doors = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [door.getsockname()[1] for door in doors]
    for door in doors:
        door.close()
    return ports


def ours(artifacts: Sequence[Path], port: int, grpc_port: int = 0, workers: int = 1) -> list[str]:
    """The command of our service; with gRPC where it has a port."""
    given = ["--host", HOST, "--port", str(port), "--workers", str(workers)]
    rpc = ["--grpc-port", str(grpc_port)] if grpc_port else []
    return [str(Path(sys.executable).parent / "slimrank"), "serve", *map(str, artifacts), *given, *rpc]


def peer(name: str, graph: Path, model: str, port: int, *more: str) -> list[str]:
    """The command of another's server.

    Raises:
        InputError: its environment is not there.
    """
    python = ROOT / f".venv-serving-{name}" / "bin" / "python"
    if not python.exists():
        raise InputError(f"{python} is missing: sh bench/peers/serving.sh makes it")
    # -P: what lies beside the script has names of libraries, and must not be imported in their place.
    return [
        str(python),
        "-P",
        str(ROOT / "bench" / "peers" / f"serving_{name}.py"),
        str(graph),
        model,
        str(port),
        *more,
    ]


@contextmanager
def served(
    command: Sequence[str],
    port: int,
    grpc_port: int = 0,
    *,
    cores: set[int] | None = None,
    ready: str = "/v2/health/ready",
) -> Iterator[Server]:
    """Start a server, wait until it is ready, and end it by SIGTERM.

    Args:
        cores: the processors that it and its children run on.
        ready: what answers 200 when it is.

    Raises:
        InputError: it is not ready in time, or ended; with its last words.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as words:
            process = subprocess.Popen(
                list(command),
                cwd=ROOT,
                env={**os.environ, **ONE_THREAD},
                stdout=words,
                stderr=subprocess.STDOUT,
                preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
                start_new_session=True,
            )
        server = Server(process, port, grpc_port, log)
        try:
            _wait(server, ready)
            yield server
        finally:
            _end(process)


def _wait(server: Server, path: str) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and server.process.poll() is None:
        try:
            if server.get(path)[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise InputError(f"the server is not ready: {server.log.read_text(errors='replace').strip()[-1000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for what is left of its session after a while."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(DRAIN_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def cores() -> tuple[set[int], int | None]:
    """Processors for servers, and one for the generator where there is more than one."""
    usable = sorted(os.sched_getaffinity(0))
    return ({usable[0]}, usable[1]) if len(usable) > 1 else (set(usable), None)


def machine_of_load() -> dict[str, Any]:
    """Where servers and generators ran that had processors of their own."""
    servers, generator = cores()
    return {"server_cores": sorted(servers), "generator_core": generator, "load_average": os.getloadavg()[0]}
