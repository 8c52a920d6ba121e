"""The verb: an artifact, verified and asked its golden rows, to the directory of a deployment target."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slimrank import runtime
from slimrank.artifact import PLAIN_NAME, Artifact, named
from slimrank.config import Config, InputError, as_config, runner
from slimrank.files import clear_stale, locked_folder, publish, read_json, sync, write_json
from slimrank.runtime.golden import check_golden
from slimrank.runtime.loading import open_any
from slimrank.runtime.opened import Opened, when_still

RECORD = "slimrank.json"  # beside what a target writes: where it comes from, and which files are ours to replace


def deploy(artifact: str | Path, out: Path, target: str | Mapping[str, Any] | Config) -> Path:
    """Write what `target` makes of the artifact at PATH, or NAME=PATH, to `out`/NAME, named as the service names it.

    The directory has a `slimrank.json` beside what the target writes: the artifact's directory and digest, the target,
    and the files with their sha256. One that is there is replaced in one step, where nothing in it was added or
    changed, and it came from the same directory or NAME= says that it is the same model.

    Returns:
        The directory.

    Raises:
        InputError: the target is unknown, or the name not allowed; the artifact is damaged, or does not answer its
            golden rows; the directory holds something else, or cannot be written. Nothing of it is then left, and an
            old one is untouched.
    """
    config: Config = as_config("deployment target", target)
    name, source = named(artifact)
    if not PLAIN_NAME.match(name):
        raise InputError(f"{name!r}: no name of a model, which has letters, digits and ._-; say NAME={source}")
    path = Path(os.path.abspath(out)) / name
    origin, is_named = os.path.abspath(source), isinstance(artifact, str) and "=" in artifact

    def write(found: Artifact, threads: int) -> Path:
        opened = open_any(found, threads)
        check_golden(opened)
        facts = {"source": origin, "artifact": found.digest, "target": config.model_dump(mode="json")}
        return _deploy(opened, path, config, facts, is_named=is_named)

    return when_still(source, 1, write)


def _deploy(
    opened: Opened | runtime.Graph, path: Path, config: Config, facts: Mapping[str, Any], *, is_named: bool
) -> Path:
    try:
        _check_replaceable(path, facts["source"], is_named=is_named)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = _beside(path)
        clear_stale(path)
        clear_stale(beside)
        partial = beside.with_name(f"{beside.name}.partial-{os.getpid()}")
        with locked_folder(partial):
            runner("deployment target", config)(config, opened, path.name, partial)
            written = {str(file.relative_to(partial)): _sum(file, durable=True) for file in _files(partial)}
            write_json(partial / RECORD, {**facts, "files": written})
            for folder in {file.parent for file in _files(partial)}:
                sync(folder)
            if not opened.artifact.unchanged():
                raise InputError(f"{opened.artifact.path}: was replaced while it was read; try again")
            publish(partial, path)
    except FileExistsError as error:
        raise InputError(f"{path}: is being written by someone else ({error.filename})") from None
    except OSError as error:
        raise InputError(f"{path}: could not be written: {error.strerror or error}") from error
    return path


def _beside(path: Path) -> Path:
    """What the directory at `path` is called while it is written: outside of the repository that it is to stand in.

    A server that polls a repository takes every directory there for a model. Where the repository is a file system of
    its own, or nothing else may be written, it is written there all the same, since it has to be renamed.
    """
    repository = path.parent
    folder = repository.parent
    outside = folder.stat().st_dev == repository.stat().st_dev and os.access(folder, os.W_OK)
    return (folder if outside else repository) / f".{repository.name}.{path.name}"


def _check_replaceable(path: Path, origin: str, *, is_named: bool) -> None:
    """Refuse to replace a directory unless it is as a record of ours says, and from `origin` if nothing names it."""
    if path.parent.exists() and not path.parent.is_dir():
        raise InputError(f"{path.parent}: is no directory, and models of a repository stand in one")
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{path}: exists and is no directory; it is not replaced")
    if not path.is_dir():
        return
    try:
        record: Any = read_json(path / RECORD)
        sums, came = dict(record["files"]), str(record["source"])
    except (OSError, ValueError, TypeError, KeyError):
        sums, came = {}, ""
    there = {str(file.relative_to(path)): file for file in _files(path)}
    foreign = set(there) - ({RECORD, *sums} if sums else set())
    if foreign or not sums:
        raise InputError(
            f"{path}: holds {min(foreign, default='nothing')!r}, which is not of a deployment; not replaced"
        )
    changed = [
        name for name, file in there.items() if name != RECORD and (file.is_symlink() or _sum(file) != sums[name])
    ]
    if changed:
        raise InputError(f"{path}: {changed[0]!r} was changed since it was deployed; not replaced, move it away first")
    if came != origin and not is_named:
        raise InputError(f"{path}: was deployed from {came}; not replaced, say {path.name}={origin} if that is meant")


def _files(folder: Path) -> Iterator[Path]:
    return (each for each in sorted(folder.rglob("*")) if not each.is_dir() or each.is_symlink())


def _sum(file: Path, *, durable: bool = False) -> str:
    """sha256 of a file; of one that is `durable` when it is through to the disk."""
    with open(file, "rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
        if durable:
            os.fsync(content.fileno())
    return found
