"""Deltas of someone who knows the format: nothing is written beside the target, and no fault is no more than said."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimrank.artifact import MANIFEST, manifest_digest, open_artifact, render_manifest
from slimrank.config import InputError
from slimrank.shipping.codec import compressed
from slimrank.shipping.delta import MAGIC, apply
from slimrank.shipping.patching import ROOM, TIMES, _dictionary

NO_SHA = "0" * 64
Files = Mapping[str, Mapping[str, Any]]


@pytest.fixture
def old(made: Callable[..., Path]) -> Path:
    return made("old", {"t": np.arange(400).astype(np.uint8).reshape(50, 8)})


def hostile(
    old: Path, files: Files, text: bytes, plan: Sequence[Sequence[Any]], frames: object = None, **said: Any
) -> Path:
    """A delta whose NEW has `files` beside those of `old`, with a plan for these, the others being the same."""
    before = open_artifact(old)
    manifest = {**before.manifest, **said, "files": {**before.manifest["files"], **files}}
    manifest["digest"] = manifest_digest(manifest)
    told = render_manifest(manifest)
    frame = compressed([told + text], _dictionary(before))
    rest = [[name, "same"] for name in manifest["files"] if name not in {each[0] for each in plan}]
    content = {"manifest": len(told), "files": [*rest, *plan], "frames": frames or [["text", len(frame)]]}
    opening = compressed([json.dumps(content).encode()])
    digests = bytes.fromhex(before.digest) + bytes.fromhex(str(manifest["digest"]))
    body = MAGIC + digests + len(opening).to_bytes(4, "little") + opening + frame
    (old.parent / "d").write_bytes(body + hashlib.sha256(body).digest())
    return old.parent / "d"


def refused(old: Path, delta: Path, message: str) -> None:
    with pytest.raises(InputError, match=f"d: .*{message}"):
        apply(old, delta, old.parent / "out")
    assert sorted(os.listdir(old.parent)) == ["d", "old"]
    open_artifact(old)


def test_what_is_no_more_than_other_files_is_applied(old: Path) -> None:
    sha = hashlib.sha256(b"more").hexdigest()
    out = apply(old, hostile(old, {"more": {"bytes": 4, "sha256": sha}}, b"more", [["more", "text"]]), old)
    assert (out / "more").read_bytes() == b"more"


@pytest.mark.parametrize("name", ["../beside", "deeper/file", "..", ".hidden", MANIFEST])
def test_no_name_leads_out_of_the_directory(old: Path, name: str) -> None:
    delta = hostile(old, {name: {"bytes": 4, "sha256": NO_SHA}}, b"evil", [[name, "text"]])
    refused(old, delta, r"manifest\.json: file name '.*' is not allowed")


def test_an_absolute_name_is_refused(old: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = str(tmp_path_factory.mktemp("elsewhere") / "file")
    refused(old, hostile(old, {name: {"bytes": 4, "sha256": NO_SHA}}, b"evil", [[name, "text"]]), "is not allowed")
    assert not Path(name).exists()


def test_files_of_the_plan_are_those_of_the_manifest_once(old: Path) -> None:
    for plan in ([["README.md", "same"], ["README.md", "same"]], [["none", "text"]]):
        refused(old, hostile(old, {}, b"", plan), "its files are not those of its manifest")


@pytest.mark.parametrize(
    ("size", "message"), [(1 << 62, "by the size of OLD"), (ROOM * TIMES, "by the size of OLD"), (-4, "makes files of")]
)
def test_files_are_let_be_no_larger_than_there_is_room(old: Path, size: int, message: str) -> None:
    """An array of zeros, as many as a manifest says, is asked for nowhere."""
    record, array = {"bytes": size, "sha256": NO_SHA}, {"v": {"dtype": "uint8", "shape": [size, 1]}}
    refused(
        old, hostile(old, {"index.v.bin": record}, b"", [["index.v.bin", "numbers", 0, ["="]]], index=array), message
    )


@pytest.mark.parametrize("dtype", ["a,(", "V9999999999999", "M8[", {"a": 1}, 7, "S"])
@pytest.mark.parametrize("shape", [[4, 2], [-4, 2], "ab", [0.5], [None], 5])
def test_arrays_of_no_known_type_are_refused(old: Path, dtype: object, shape: object) -> None:
    said = {"arrays": {"v": {"dtype": dtype, "shape": shape}}}
    plan = [["index.v.bin", "numbers", 0, ["="]]]
    refused(old, hostile(old, {"index.v.bin": {"bytes": 8, "sha256": NO_SHA}}, b"", plan, index=said), "")


@pytest.mark.parametrize("frames", [[["text", float("inf")]], [["text", "9"]], [9], {"text": 9}])
def test_frames_of_another_form_are_refused(old: Path, frames: object) -> None:
    refused(old, hostile(old, {}, b"", [], frames), "a delta of another form")


@pytest.mark.parametrize(
    "told",
    [
        '{"user":["int",[["new",[1180591620717411303424]]]]}',
        '{"user":["str",[["new",["\\ud800"]]]]}',
        '{"\\ud800":["int",[["new",[1]]]]}',
        '{"user":["int",[["new",[Infinity]]]]}',
        '{"user":["int",[["new",[null]]]]}',
        '{"user":["int",[[Infinity,Infinity]]]}',
        '{"user":["int",' + "[" * 5000,
    ],
)
def test_values_of_another_form_are_refused(old: Path, told: str) -> None:
    name = "vocabulary.parquet"
    record = {"bytes": 9, "sha256": NO_SHA}
    refused(old, hostile(old, {name: record}, told.encode(), [[name, "values", len(told)]]), "of another form")
