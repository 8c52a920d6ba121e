"""Files that would damage an artifact, and an artifact that is replaced while it is read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slimrank.artifact import open_artifact
from slimrank.config import InputError
from slimrank.shipping.delta import apply, delta
from slimrank.shipping.packing import pack

TABLE = np.arange(4000).astype(np.uint8).reshape(500, 8)


@pytest.fixture
def pair(made: Callable[..., Path]) -> tuple[Path, Path]:
    return made("old", {"t": TABLE}), made("new", {"t": TABLE + 1})


def test_no_file_is_written_into_an_artifact(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    (tmp_path / "link").symlink_to(old)
    for folder in (old, new, tmp_path / "link", new / ".." / "old"):
        for name in ("d", "README.md"):
            with pytest.raises(InputError, match=f"{name}: is in the artifact itself"):
                delta(old, new, folder / name)
    with pytest.raises(InputError, match="is in the artifact itself"):
        pack(old, old / "old.slim")
    delta(old, new, tmp_path / "d")
    for folder in pair:
        open_artifact(folder)


def test_a_symlink_to_an_artifact_may_be_old_and_is_not_replaced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    delta(old, new, tmp_path / "d")
    (tmp_path / "current").symlink_to(old)
    with pytest.raises(InputError, match="current: is a symlink and no directory of its own; it is not replaced"):
        apply(tmp_path / "current", tmp_path / "d", tmp_path / "current")
    out = apply(tmp_path / "current", tmp_path / "d", tmp_path / "out")
    assert open_artifact(out).digest == open_artifact(new).digest
    assert sorted(os.listdir(tmp_path)) == ["current", "d", "new", "old", "out"]


REPLACED = """
import sys
from pathlib import Path
from slimrank.artifact import SEALED_KEYS, open_artifact, write_artifact
from slimrank.config import InputError
from slimrank.shipping.delta import apply

old, new, file, out = map(Path, sys.argv[1:])
done = []


def hook(event, details):  # once the first file of what is made is there, another process is through with it
    if event == "open" and str(details[0]).startswith(f"{out}.partial-") and not done:
        done.append(event)
        after = open_artifact(new)
        write_artifact(old, after.files, {k: v for k, v in after.manifest.items() if k not in SEALED_KEYS})


sys.addaudithook(hook)
try:
    apply(old, file, out)
except InputError as error:
    print(error)
"""


def test_an_old_that_is_replaced_meanwhile_is_no_fault_of_the_delta(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    delta(old, new, tmp_path / "d")
    words = [sys.executable, "-c", REPLACED, *(str(each) for each in (old, new, tmp_path / "d", tmp_path / "out"))]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == f"{old}: was replaced while it was read; try again\n"
    assert open_artifact(old).digest == open_artifact(new).digest
    assert sorted(os.listdir(tmp_path)) == ["d", "new", "old"]


TIDIED = """
import os, shutil, sys
from pathlib import Path
from slimrank.shipping.delta import apply

old, file = map(Path, sys.argv[1:])
done = []


def hook(event, details):  # as `clear_stale` of another writer does, after the one artifact has replaced the other
    if event == "shutil.rmtree" and str(details[0]).startswith(f"{old}.partial-") and not done:
        done.append(event)
        shutil.rmtree(details[0])


sys.addaudithook(hook)
apply(old, file, old)
print(*done)
"""


def test_an_old_that_another_writer_tidies_up_is_no_fault(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    delta(old, new, tmp_path / "d")
    words = [sys.executable, "-c", TIDIED, str(old), str(tmp_path / "d")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "shutil.rmtree\n"
    assert open_artifact(old).digest == open_artifact(new).digest
    assert sorted(os.listdir(tmp_path)) == ["d", "new", "old"]
