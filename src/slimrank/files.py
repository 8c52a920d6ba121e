"""Files that are written whole or not at all, and directories that one process works in at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slimrank.config import InputError


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, sync it, and rename: `path` is the old file, the new one or absent, never half.

    Raises:
        InputError: the disk is full or fails; an old file is untouched and nothing is left beside it.
    """
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise InputError(f"{path}: could not be written: {error.strerror}") from error


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, written whole or not at all."""
    replace_file(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if need be) for this process; the kernel lets go when the process ends, however it ends.

    Raises:
        InputError: another process holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise InputError(f"{folder}: cannot be used as a run directory: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another run is working in this directory; choose another --out") from None
        yield
