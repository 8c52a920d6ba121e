"""The verb: an artifact, verified and asked its golden rows, to the directory of a deployment target."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slimrank import runtime
from slimrank.artifact import PLAIN_NAME, Artifact
from slimrank.config import Config, InputError, as_config, runner
from slimrank.files import clear_stale, locked_folder, publish, read_json, sync, write_json
from slimrank.runtime.golden import check_golden
from slimrank.runtime.opened import Opened, answers_with_items, asked_by_tensors, when_still

RECORD = "slimrank.json"  # beside what a target writes: where it comes from, and which files are ours to replace


def deploy(artifact: str | Path, out: Path, target: str | Config) -> Path:
    """Write what `target` makes of the artifact to `out`/NAME, where NAME is the model's.

    The directory has a `slimrank.json` beside what the target writes: the artifact's digest, the target, and the files
    with their sha256. One that is there is replaced in one step where it is ours alone.

    Returns:
        The directory.

    Raises:
        InputError: the target is unknown; the artifact is damaged, or does not answer its golden rows; the directory
            holds something else, or cannot be written. Nothing of it is then left, and an old one is untouched.
    """
    config: Config = as_config("deployment target", target)
    return when_still(artifact, 1, lambda found, threads: _deploy(_load(found, threads), Path(out), config))


def name_of(artifact: Artifact) -> str:
    """What a model is called where it is deployed: as its manifest says, else as its directory."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(artifact.manifest.get("name") or artifact.path.name)).strip("-._")
    return name if PLAIN_NAME.match(name) else "model"


def _load(artifact: Artifact, threads: int) -> Opened | runtime.Graph:
    if asked_by_tensors(artifact):
        return runtime.load_graph(artifact.path, threads=threads)
    return (runtime.load_retriever if answers_with_items(artifact) else runtime.load)(artifact.path, threads=threads)


def _deploy(opened: Opened | runtime.Graph, out: Path, config: Config) -> Path:
    check_golden(opened)
    name = name_of(opened.artifact)
    path = Path(os.path.abspath(out)) / name
    _check_replaceable(path)
    partial = path.with_name(f"{name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_stale(path)
        with locked_folder(partial):
            runner("deployment target", config)(config, opened, name, partial)
            written = {str(file.relative_to(partial)): _sealed(file) for file in _files(partial)}
            facts = {"artifact": opened.artifact.digest, "target": config.model_dump(mode="json"), "files": written}
            write_json(partial / RECORD, facts)
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


def _check_replaceable(path: Path) -> None:
    """Refuse to replace a directory that holds anything but what a record of ours names."""
    if path.parent.exists() and not path.parent.is_dir():
        raise InputError(f"{path.parent}: is no directory, and models of a repository stand in one")
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{path}: exists and is no directory; it is not replaced")
    if not path.is_dir():
        return
    try:
        record: Any = read_json(path / RECORD)
        ours = {RECORD, *record["files"]} if "artifact" in record else set()
    except (OSError, ValueError, TypeError, KeyError):
        ours = set()
    foreign = {str(file.relative_to(path)) for file in _files(path)} - ours
    if foreign or not ours:
        raise InputError(
            f"{path}: holds {min(foreign, default='nothing')!r}, which is not of a deployment; not replaced"
        )


def _files(folder: Path) -> Iterator[Path]:
    return (each for each in sorted(folder.rglob("*")) if not each.is_dir() or each.is_symlink())


def _sealed(file: Path) -> str:
    """sha256 of a file that is through to the disk."""
    with open(file, "rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
        os.fsync(content.fileno())
    return found
