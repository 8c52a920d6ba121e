"""The verbs `pack` and `unpack`: an artifact to one compressed file, and back, byte for byte.

Left out: the signature, which stands beside an artifact; it fits what is unpacked, since the digest is the same.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from slimrank.artifact import MANIFEST, Artifact, open_artifact, placing, store
from slimrank.config import InputError
from slimrank.files import replace_file
from slimrank.shipping.archive import archived, members


@dataclass(frozen=True)
class Packed:
    """Bytes of a file that was written, and of the artifact's files together."""

    bytes: int
    artifact_bytes: int


def pack(artifact: str | Path, out: Path) -> Packed:
    """Write the artifact in the directory `artifact` to the one file `out`, compressed.

    The same artifact gives the same bytes: level 19 of zstd, and 9 from 4 MB on, which is as small on tables.

    Raises:
        InputError: the artifact is damaged, or changes meanwhile; `out` cannot be written, or zstandard is missing.
    """
    found = open_artifact(artifact)
    counted = Counted(archived(found))
    check_place(out, found)
    replace_file(out, _while_same(found, counted))
    return Packed(counted.bytes, total_bytes(found))


def unpack(file: Path, out: str | Path) -> Path:
    """Write the artifact in a file of `pack` to the directory `out`, verified before it is in its place.

    An artifact that is there is replaced in one step.

    Raises:
        InputError: the file is damaged, cut short, no file of `pack`, or larger than what is free; or `out` cannot be
            written. What was there is untouched then, and nothing else is left.
    """
    target = Path(os.path.abspath(out))

    def enough(sizes: Mapping[str, int]) -> None:
        free = shutil.disk_usage(target.parent).free
        if sum(sizes.values()) > free:
            raise InputError(f"{sum(sizes.values()):,} bytes when unpacked, and {free:,} are free at {target.parent}")

    with opened_file(file) as source, placing(target) as partial:
        try:
            for name, pieces in members(source, enough):
                store(pieces, partial / name)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        verify(partial, str(file))
    return target


def verify(partial: Path, whose: str) -> Artifact:
    """The artifact that was written to `partial`.

    Raises:
        InputError: it is none; told as a fault of `whose`, since `partial` will be gone.
    """
    try:
        return open_artifact(partial)
    except InputError as error:
        raise InputError(f"{whose}: what it holds is no sound artifact: {error}".replace(f"{partial}/", "")) from None


@contextlib.contextmanager
def opened_file(path: Path) -> Iterator[BufferedReader]:
    """A file, open for reading.

    Raises:
        InputError: it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(path, "rb"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        yield file


def total_bytes(artifact: Artifact) -> int:
    """Bytes of all files of an artifact, with its manifest."""
    return sum(file.stat().st_size for file in (*artifact.files.values(), artifact.path / MANIFEST))


def check_place(out: Path, *artifacts: Artifact) -> None:
    """Raises `InputError` where `out`, a file to write, is a directory, or would be in one of the artifacts."""
    if out.is_dir():
        raise InputError(f"{out}: is a directory; --out is the file to write")
    if any(out.parent.resolve() == artifact.path for artifact in artifacts):
        raise InputError(f"{out}: is in the artifact itself, which would be damaged by it; --out is a file elsewhere")


def check_same(artifact: Artifact) -> None:
    """Raises `InputError` where an artifact is no longer the one that was opened."""
    if not artifact.unchanged():
        raise InputError(f"{artifact.path}: was replaced while it was read; try again")


def _while_same(artifact: Artifact, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """`pieces`, and a fault at their end where the artifact was replaced meanwhile: nothing is then written."""
    yield from pieces
    check_same(artifact)


class Counted:
    """Pieces, and how many bytes of them have been taken."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.bytes += len(piece)
            yield piece
