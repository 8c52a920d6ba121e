"""Stages of a run: each works in a directory of its own, and is not done again while its inputs are the same.

A stage's inputs are written down before it starts and marked done when it has ended. A stage that was killed finds its
own checkpoints on the next start; one whose inputs have changed starts from an empty directory.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slimrank import __version__
from slimrank.files import read_json, write_json

RECORD = "stage.json"
PARTIAL = re.compile(r"\.partial-\d+$")
CHECKPOINT = "checkpoint.safetensors"


def stage(folder: Path, inputs: Mapping[str, Any], work: Callable[[Path], None]) -> str:
    """Do `work(folder)` unless it was done with the same `inputs`; returns the key that later stages depend on."""
    key = key_of(inputs)
    record = folder / RECORD
    before = read_json(record) if record.exists() else {}
    if before.get("key") == key and before["done"]:
        return key
    if before.get("key") != key:
        record.unlink(missing_ok=True)  # first: a folder that is half gone must not say that it is done
        if folder.exists():
            shutil.rmtree(folder)
        write_json(record, {"key": key, "done": False, "inputs": dict(inputs)})
    work(folder)
    write_json(record, {"key": key, "done": True, "inputs": dict(inputs)})
    (folder / CHECKPOINT).unlink(missing_ok=True)  # last: a stage that is killed before it is done needs it
    return key


def clear_partial(folder: Path) -> None:
    """Remove the files that a process which was killed had begun to write; for whoever holds the directory alone."""
    places = [folder, *folder.glob("teacher-*"), *folder.glob("seed-*/*")]
    for file in (file for place in places if place.is_dir() for file in place.iterdir()):
        if file.is_file() and PARTIAL.search(file.name):
            file.unlink()


def key_of(inputs: Mapping[str, Any]) -> str:
    """sha256 of the inputs and of slimrank's version, in hexadecimal."""
    text = json.dumps({"slimrank": __version__, **inputs}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
