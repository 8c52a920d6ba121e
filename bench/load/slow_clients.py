"""Clients that misbehave below HTTP, each of a kind over and over.

`python -m bench.load.slow_clients PORT SECONDS FILE`: FILE holds a good request. Nobody here waits for scores; what is
told is how connections ended, by kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

HOST = "127.0.0.1"
DRIP_SECONDS, PATIENCE_SECONDS = 0.2, 30.0
PIPED = 40  # requests of a client that does not read their answers
CLIENTS = 4  # of each kind at once
Kind = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[str]]


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    """A byte of the head now and then."""
    return await _drip(reader, writer, request[: request.index(b"\r\n\r\n")], 1)


async def slow_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    """The head at once, a few bytes of the body now and then."""
    end = request.index(b"\r\n\r\n") + 4
    writer.write(request[:end])
    return await _drip(reader, writer, request[end:], 4)


async def slow_reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    """Many requests at once, their answers read a few bytes at a time."""
    writer.write(request * PIPED)
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if not await reader.read(64):
            return "closed by the server"
        await asyncio.sleep(DRIP_SECONDS)
    return "open to the end"


async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    """Half a request, and gone."""
    writer.write(request[: len(request) // 2])
    await writer.drain()
    return "gone"


async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    """A whole request, and gone before the answer."""
    writer.write(request)
    await writer.drain()
    return "gone"


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    """Bytes that are no HTTP."""
    writer.write(os.urandom(512) + b"\r\n\r\n")
    return await _end(reader, PATIENCE_SECONDS)


KINDS: tuple[Kind, ...] = (slow_head, slow_body, slow_reader, cut_off, impatient, garbage)


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes, size: int) -> str:
    """Send `data` in pieces until the server has had enough."""
    until = time.monotonic() + PATIENCE_SECONDS
    ended = asyncio.ensure_future(_end(reader, PATIENCE_SECONDS))
    for start in range(0, len(data), size):
        writer.write(data[start : start + size])
        done, _ = await asyncio.wait({ended}, timeout=DRIP_SECONDS)
        if done or time.monotonic() > until:
            break
    return await ended


async def _end(reader: asyncio.StreamReader, seconds: float) -> str:
    """What the server says or does."""
    with contextlib.suppress(TimeoutError):
        line = await asyncio.wait_for(reader.readline(), seconds)
        return line.split()[1].decode() if line.startswith(b"HTTP/1.") else "closed by the server"
    return "open to the end"


async def _client(kind: Kind, port: int, until: float, request: bytes, ends: Counter[str]) -> None:
    while time.monotonic() < until:
        door = socket.socket()
        door.setblocking(False)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        writer = None
        try:
            await asyncio.get_running_loop().sock_connect(door, (HOST, port))
            reader, writer = await asyncio.open_connection(sock=door)
            end = await asyncio.wait_for(kind(reader, writer, request), max(1.0, until - time.monotonic()))
        except TimeoutError:
            end = "open to the end"
        except OSError as error:
            end = "closed by the server" if isinstance(error, ConnectionError) else type(error).__name__
        finally:
            if writer is not None:
                writer.transport.abort()
            door.close()
        ends[f"{kind.__name__}: {end}"] += 1
        await asyncio.sleep(0.5)


async def run(port: int, seconds: float, request: bytes) -> dict[str, int]:
    """All kinds beside each other; how often a connection ended how."""
    ends: Counter[str] = Counter()
    until = time.monotonic() + seconds
    await asyncio.gather(*(_client(kind, port, until, request, ends) for kind in KINDS for _ in range(CLIENTS)))
    return dict(sorted(ends.items()))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]).read_bytes()))))
