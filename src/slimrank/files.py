"""Files and directories that are written whole or not at all, and directories that one process works in at a time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from slimrank.config import InputError


def replace_file(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write `content`, at once or in pieces, beside `path`, sync it, and rename.

    `path` is the old file, the new one or absent, never half.

    Raises:
        InputError: the disk is full or fails; an old file is untouched and nothing is left beside it.
    """
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path}: could not be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


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
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(folder))
        except BlockingIOError:
            raise InputError(f"{folder}: another run is working in this directory; choose another --out") from None
        except OSError as error:
            raise InputError(f"{folder}: cannot be used as a run directory: {error.strerror}") from error
        yield


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def sync(folder: Path) -> None:
    """Make the names in a directory durable; Windows has no such call and needs none."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        with closing(descriptor):
            os.fsync(descriptor)


@contextlib.contextmanager
def locked_folder(partial: Path) -> Iterator[None]:
    """A new directory that is locked while we write and gone afterwards, whatever is then in it.

    The lock dies with the process, which is how the next writer tells a leftover from one at work.
    """
    os.mkdir(partial)
    try:
        with lock(partial):
            yield
    finally:
        with contextlib.suppress(FileNotFoundError):  # after `publish` another writer may tidy the old one up as well
            shutil.rmtree(partial)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the lock on a directory, or raise BlockingIOError when someone has it."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    with closing(descriptor):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def clear_stale(path: Path) -> None:
    """Tidy up after writers that were killed: bring an old artifact back, remove what nobody is writing."""
    for old in _siblings(path, "old"):
        if path.exists():
            shutil.rmtree(old)
        else:
            os.rename(old, path)
    for partial in _siblings(path, "partial"):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), lock(partial):
            shutil.rmtree(partial)


def _siblings(path: Path, word: str) -> list[Path]:
    pattern = re.compile(re.escape(path.name) + rf"\.{word}-\d+\Z")
    return [entry for entry in path.parent.iterdir() if pattern.match(entry.name) and entry.is_dir()]


def publish(partial: Path, path: Path) -> None:
    """Put the finished directory in its place; an old artifact ends up at `partial`, to be removed."""
    if not path.exists():
        os.rename(partial, path)
    elif not _exchange(partial, path):
        _replace_in_two_steps(partial, path)
    sync(path.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two directories in one atomic step: renameat2(2) with RENAME_EXCHANGE. False where that is missing."""
    if sys.platform != "linux":
        return False
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _replace_in_two_steps(partial: Path, path: Path) -> None:
    old = path.with_name(f"{path.name}.old-{os.getpid()}")
    os.rename(path, old)
    try:
        os.rename(partial, path)
    except OSError:
        os.rename(old, path)
        raise
    shutil.rmtree(old)
