"""The verbs `delta` and `apply`: what changed between two artifacts, and the new one of the old one and that.

    "slimdlt" 1 | digest of OLD | digest of NEW | length of the plan | plan | text | streams ... | sha256 of all of it

A file that is the same is not there. Text, and what a graph is beside its numbers, is one frame of zstd with OLD's as
its dictionary; numbers are taken from those of the same constant, row by row of the same value (`differences`, `rows`);
a vocabulary is built again from its values (`vocabularies`). The plan says which file is what, and where frames end.
What both sides work out for themselves (which constants there are, which row goes on from which) hangs on this code: a
change of it is another version of the format.

Whatever it is made of, the result has the digest that the delta names, or there is none. It is made in memory, some
five times the artifact, and applied in four. Left out: deltas of deployed directories, which are written anew from an
artifact, and who made one, which a signature of NEW says.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from slimrank.artifact import Artifact, open_artifact, placing, store
from slimrank.config import InputError
from slimrank.files import replace_file
from slimrank.shipping.archive import archived
from slimrank.shipping.packing import Counted, check_place, check_same, opened_file, total_bytes, verify
from slimrank.shipping.patching import patch_of, patched

MAGIC = b"slimdlt\x01"
DIGEST = 32
HEAD = len(MAGIC) + 2 * DIGEST


@dataclass(frozen=True)
class Delta:
    """Bytes of a delta, and of what it stands for: NEW's files together, and NEW in one file of `pack`."""

    bytes: int
    artifact_bytes: int
    packed_bytes: int


def delta(old: str | Path, new: str | Path, out: Path, *, portable: bool = False) -> Delta:
    """Write what makes the artifact in `new` of the one in `old` to the file `out`.

    It is applied before it is written, so that a delta that was written is one that gives NEW, bit for bit.

    Args:
        old: what is there.
        new: what is to be there.
        out: the file.
        portable: for those who apply it with another release of polars: a vocabulary that changed is sent as it is, and
            not as its values, since releases write other bytes of the same values (1.20, 1.33 and 2.1 all do).

    Raises:
        InputError: an artifact is damaged or changes meanwhile; both are the same; `out` cannot be written; zstandard
            is missing.
    """
    before, after = open_artifact(old), open_artifact(new)
    check_place(out, before, after)
    if before.digest == after.digest:
        raise InputError(f"{new}: is the same artifact as {old}, to the byte; there is nothing to send")
    content = (
        MAGIC + bytes.fromhex(before.digest) + bytes.fromhex(after.digest) + patch_of(before, after, portable=portable)
    )
    content += hashlib.sha256(content).digest()
    with tempfile.TemporaryDirectory() as work:
        _apply(before, content, Path(work) / "new", str(out))
    packed = Counted(archived(after))
    for _ in packed:
        pass
    for artifact in (before, after):
        check_same(artifact)
    replace_file(out, content)
    return Delta(len(content), total_bytes(after), packed.bytes)


def apply(old: str | Path, file: Path, out: str | Path) -> Path:
    """Write the artifact that a delta makes of the one in `old` to the directory `out`, which may be `old` itself.

    It is verified before it is in its place; an artifact that is there is replaced in one step, so that an application
    that is interrupted, wherever, leaves it as it was.

    Raises:
        InputError: `old` is damaged, or not what the delta was made from; the delta is damaged, cut short or none; its
            result is not the one that it names, as where another release of polars writes the vocabulary otherwise; or
            `out` cannot be written. Nothing of the result is then left.
    """
    before = open_artifact(old)
    with opened_file(file) as source:
        content = source.read()
    return _apply(before, content, Path(os.path.abspath(out)), str(file))


def _apply(before: Artifact, content: bytes, out: Path, name: str) -> Path:
    base, result = _digests(content, name)
    if before.digest != base:
        already = "; that is what the delta makes, already" if before.digest == result else ""
        raise InputError(f"{name}: is a delta of {base[:12]}..., and {before.path} is {before.digest[:12]}...{already}")
    with placing(out) as partial:
        try:
            _make(before, content[HEAD:-DIGEST], partial, name)
            found = verify(partial, name).digest
        except InputError:
            check_same(before)  # else the delta would be blamed for what was made of two artifacts
            raise
        if found != result:
            raise InputError(f"{name}: makes {found[:12]}..., and should make {result[:12]}...; nothing was written")
        check_same(before)
    return out


def _make(before: Artifact, body: bytes, partial: Path, name: str) -> None:
    """Write the files of the new artifact."""
    try:
        for file, made in patched(before, body, partial):
            store(made, partial / file)
    except InputError as error:
        raise InputError(f"{name}: {error}".replace(f"{partial}/", "")) from None


def _digests(content: bytes, name: str) -> tuple[str, str]:
    """The digests of OLD and NEW, of a delta that arrived whole."""
    if not content.startswith(MAGIC[:-1]):
        raise InputError(f"{name}: is no delta")
    if content[len(MAGIC) - 1 : len(MAGIC)] != MAGIC[-1:]:
        raise InputError(f"{name}: is a delta of another version of the format; this release applies {MAGIC[-1]}")
    if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:] or len(content) <= HEAD + DIGEST:
        raise InputError(f"{name}: damaged, or cut short")
    start = len(MAGIC)
    return content[start : start + DIGEST].hex(), content[start + DIGEST : HEAD].hex()
