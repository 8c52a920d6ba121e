"""One keep-alive connection: sends prepared bytes, and takes one answer at a time out of what comes back."""

from __future__ import annotations

import select
import socket
from typing import NamedTuple

READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT
CHUNK = 1 << 18


class Answer(NamedTuple):
    """A whole answer; `keep` says whether the connection may be used again."""

    status: int
    head: bytes
    body: bytes
    keep: bool


class Connection:
    """A socket that does not block, registered with an epoll.

    Attributes:
        intended, sent: nanoseconds: when its request was due, and when it was sent.
        place: which request; -1 where it is idle.
    """

    __slots__ = ("_address", "_poll", "_received", "_unsent", "_watched", "fd", "intended", "place", "sent", "socket")

    def __init__(self, address: tuple[str, int], poll: select.epoll) -> None:
        self._address, self._poll = address, poll
        self.place, self.intended, self.sent = -1, 0, 0
        self.fd = -1
        self.connect()

    def connect(self) -> None:
        """Begin a new connection in the place of the old one; what is sent before it stands waits for it."""
        self.close()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(self._address)
        self.fd = self.socket.fileno()
        self._received, self._unsent = b"", b""
        self._watched = READABLE
        self._poll.register(self.fd, READABLE)

    def close(self) -> None:
        """Close it, if it is open."""
        if self.fd >= 0:
            self._poll.unregister(self.fd)
            self.socket.close()
            self.fd = -1

    def send(self, data: bytes) -> None:
        """Send as much as goes now; the rest when the socket can be written to."""
        try:
            gone = self.socket.send(data)
        except BlockingIOError:
            gone = 0
        if gone < len(data):
            self._unsent = data[gone:]
            self._watch(READABLE | WRITABLE)

    def flush(self) -> None:
        """Send on what did not go at once."""
        rest, self._unsent = self._unsent, b""
        self._watch(READABLE)
        if rest:
            self.send(rest)

    def _watch(self, events: int) -> None:
        if self._watched != events:
            self._poll.modify(self.fd, events)
            self._watched = events

    def receive(self) -> Answer | None:
        """The answer, if it is whole.

        Raises:
            OSError: the connection was closed or reset before it was.
            ValueError: what came is no answer with a length.
        """
        try:
            data = self.socket.recv(CHUNK)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionResetError("closed by the server")
        if self._received:
            data = self._received + data
        found = parse(data)
        self._received = data if found is None else b""
        return found


def parse(data: bytes) -> Answer | None:
    """The answer that `data` is, None where it goes on.

    Raises:
        ValueError: it is no answer of HTTP/1, has no length, or there is more than one.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end]
    lowered = head.lower()
    at = lowered.find(b"\r\ncontent-length:")
    if not head.startswith(b"HTTP/1."):
        raise ValueError(f"no answer of HTTP/1: {head[:200]!r}")
    if at < 0 and b"\r\ntransfer-encoding: chunked" not in lowered:
        raise ValueError(f"an answer without a length: {head[:200]!r}")
    if at < 0:
        body = _joined(data, end + 4)
    else:
        line = lowered.find(b"\r\n", at + 17)
        body = _exactly(data, end + 4, int(lowered[at + 17 : line if line >= 0 else end]))
    return None if body is None else Answer(int(head[9:12]), head, body, b"connection: close" not in lowered)


def _exactly(data: bytes, start: int, length: int) -> bytes | None:
    """The body that ends with the data, None where it goes on."""
    missing = start + length - len(data)
    if missing < 0:
        raise ValueError(f"{-missing} bytes behind the answer")
    return None if missing else data[start:]


def _joined(data: bytes, start: int) -> bytes | None:
    """The body in chunks that begins at `start`, None where it goes on."""
    parts: list[bytes] = []
    while True:
        line = data.find(b"\r\n", start)
        if line < 0:
            return None
        size = int(data[start:line], 16)
        start = line + 2 + size + 2
        if len(data) < start:
            return None
        if not size:
            _exactly(data, start, 0)
            return b"".join(parts)
        parts.append(data[line + 2 : start - 2])
