"""A graph to its file, whole or not at all: written in a directory beside it, then renamed.

What lay outside of the model's file lies in one file beside the new one, NAME.data, and is written part by part. An old
model of that name goes before the new data comes, so that at no moment a graph stands beside another one's data.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from slimrank.config import InputError
from slimrank.files import clear_stale, locked_folder, sync

BESIDE_FROM = 1024  # bytes of a tensor from which it lies in the second file, where there is one


def write_graph(model: ir.Model, path: Path, check: Callable[[Path], None], *, beside: bool) -> list[Path]:
    """The files of `model` at `path`, once `check` has let them pass where they were written first.

    With `beside` the content of its tensors lies in a second file.

    Raises:
        InputError: the disk is full or fails. An old file is untouched, and nothing is left beside it.
    """
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    data = f"{path.name}.data" if beside else None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_stale(path)
        with locked_folder(partial):
            ir.save(model, partial / path.name, external_data=data, size_threshold_bytes=BESIDE_FROM)
            check(partial / path.name)
            return _published(partial, path)
    except OSError as error:
        raise InputError(f"{path}: could not be written: {error.strerror or error}") from error


def _published(partial: Path, path: Path) -> list[Path]:
    """Move everything in `partial` to where it belongs, the graph last; the files."""
    names = sorted((each.name for each in partial.iterdir()), key=lambda name: name == path.name)
    for name in names:
        with (partial / name).open("rb") as file:
            os.fsync(file.fileno())
    if len(names) > 1:
        path.unlink(missing_ok=True)
    for name in names:
        os.replace(partial / name, path.with_name(name))
    sync(path.parent)
    return [path.with_name(name) for name in reversed(names)]
