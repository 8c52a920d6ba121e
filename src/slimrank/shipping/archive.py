"""The files of an artifact in one stream: a tar of plain files, the manifest first, which zstd compresses.

`tar --zstd -xf FILE` reads it. The same content gives the same bytes: names in order, and no times, owners or modes.
What is read has to be what is written here, header for header, so that there is no link, device, path or second file of
a name to guard against; and how large it may get is known from the manifest before anything else is looked at.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from slimrank.artifact import MANIFEST, MAX_MANIFEST_BYTES, PLAIN_NAME, Artifact
from slimrank.config import InputError
from slimrank.shipping.codec import LARGE, compressed_pieces, decompressed_pieces, own_blocks
from slimrank.shipping.layout import GRAPH, Layout

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
CHUNK = 1 << 20
LONGEST_NAME = 100  # in a tar's header; a longer name takes a second one
KINDS = {
    tarfile.SYMTYPE: "a symlink",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.DIRTYPE: "a directory",
}
Sizes = Callable[[Mapping[str, int]], None]


def archived(artifact: Artifact) -> Iterator[bytes]:
    """The bytes of the archive.

    Raises:
        InputError: a name is longer than 100 characters, or a file is no longer as it was when it was verified.
    """
    files = {MANIFEST: artifact.path / MANIFEST, **{name: artifact.files[name] for name in sorted(artifact.files)}}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    long = [name for name in files if len(name) > LONGEST_NAME]
    if long:
        raise InputError(f"{artifact.path}: the name {long[0]!r} is longer than {LONGEST_NAME} characters")
    whole = sum(BLOCK + size + -size % BLOCK for size in sizes.values()) + len(END)
    yield from compressed_pieces(_tar(files, sizes), whole)


def _tar(files: Mapping[str, Path], sizes: Mapping[str, int]) -> Iterator[bytes]:
    """The tar in pieces; an empty one where what follows has other statistics."""
    for name, path in files.items():
        yield _header(name, sizes[name])
        yield b""
        left = sizes[name]
        with open(path, "rb") as file:
            for piece in _by_constant(file.read()) if name == GRAPH and left < LARGE else _chunks(file):
                left -= len(piece)
                yield piece
        if left:
            raise InputError(f"{path}: changes while it is read")
        yield b""
        yield bytes(-sizes[name] % BLOCK)
    yield END


def _chunks(file: BufferedReader) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _by_constant(graph: bytes) -> Iterator[bytes]:
    """A graph in pieces, each larger constant by itself between empty ones."""
    at = 0
    for each in Layout({"files": {GRAPH: {"bytes": len(graph)}}}, graph).ranges(GRAPH):
        yield graph[at : each.start]
        at = each.start + each.length
        yield from own_blocks([graph[each.start : at]])
    yield graph[at:]


def _header(name: str, size: int) -> bytes:
    """The header of a plain file, which has this one form."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def members(file: BufferedReader, check: Sizes) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Name and content, in pieces, of every file of an archive; each has to be read before the next one.

    Args:
        file: an archive.
        check: told name and size of all files, the manifest's own aside, before the first of them; may raise.

    Raises:
        InputError: damaged, cut short, or a member that is not as the manifest says, or no plain file.
    """
    stream = _Stream(decompressed_pieces(file))
    manifest = stream.exactly(_next(stream, {MANIFEST: MAX_MANIFEST_BYTES}, exact=False)[1])
    sizes = _sizes(manifest)
    check(sizes)
    yield MANIFEST, iter([manifest])
    stream.padding(len(manifest))
    for _ in range(len(sizes)):
        name, size = _next(stream, sizes)
        del sizes[name]
        yield name, stream.pieces(size)
        stream.padding(size)
    if stream.exactly(len(END)) != END or not stream.ended():
        raise InputError("holds more than its manifest says")


def _sizes(manifest: bytes) -> dict[str, int]:
    """Bytes by name, as a manifest says that has not been checked otherwise."""
    try:
        found: Any = json.loads(manifest)["files"]
        sizes = {str(name): found[name]["bytes"] for name in found}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise InputError(f"{MANIFEST}: damaged, it does not say what files there are") from None
    wrong = [name for name, size in sizes.items() if type(size) is not int or size < 0 or not PLAIN_NAME.match(name)]
    if wrong or MANIFEST in sizes:
        name = (wrong or [MANIFEST])[0]
        raise InputError(f"{MANIFEST}: says that there is a file {name!r:.200}, which is not allowed")
    return sizes


def _next(stream: _Stream, sizes: Mapping[str, int], *, exact: bool = True) -> tuple[str, int]:
    """Name and size of the next file, which is to be one of `sizes`."""
    raw = stream.exactly(BLOCK)
    try:
        info = tarfile.TarInfo.frombuf(raw, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeError):
        raise InputError("ends before all files of its manifest, or is no file of `pack`") from None
    if info.type != tarfile.REGTYPE:
        kind = KINDS.get(info.type, "no plain file")
        raise InputError(f"holds {info.name!r:.200}, {kind}; only plain files are in one of `pack`")
    if info.name not in sizes:
        raise InputError(f"holds {info.name!r:.200}, which is twice there, not in the manifest, or out of its place")
    least, most = sizes[info.name] if exact else 0, sizes[info.name]
    if not least <= info.size <= most or raw != _header(info.name, info.size):
        raise InputError(f"{info.name}: not as the manifest says, or not written by `pack`")
    return info.name, info.size


class _Stream:
    """Pieces as they come, read in stretches of a known length."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._coming = pieces
        self._left = memoryview(b"")

    def pieces(self, count: int) -> Iterator[bytes]:
        """The next `count` bytes, as they come."""
        while count:
            while not self._left:
                piece = next(self._coming, None)
                if piece is None:
                    raise InputError("ends before all files of its manifest")
                self._left = memoryview(piece)
            taken, self._left = self._left[:count], self._left[count:]
            count -= len(taken)
            yield bytes(taken)

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes."""
        return b"".join(self.pieces(count))

    def padding(self, size: int) -> None:
        """Go past what fills the last block of a file of that size."""
        if any(self.exactly(-size % BLOCK)):
            raise InputError("damaged between two files")

    def ended(self) -> bool:
        """Whether nothing is left."""
        return not self._left and next(self._coming, None) is None
