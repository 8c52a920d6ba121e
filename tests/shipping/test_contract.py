"""Every kind of artifact there is: packed, and as a delta to another one of its kind or of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slimrank.artifact import SEALED_KEYS, open_artifact, write_artifact
from slimrank.runtime.golden import check_golden
from slimrank.runtime.loading import load_any
from slimrank.shipping.delta import apply, delta
from slimrank.shipping.packing import pack, unpack

KINDS = ("ranker", "ranker-beside", "vectors", "codes", "scores", "module")
Content = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="session")
def kind(
    tmp_path_factory: Any, write_linear_at: Callable[..., Any], finder: Callable[..., Any], asked_by_tensors: Path
) -> Callable[[str], Path]:
    """Gives the artifact of a kind."""
    folder = tmp_path_factory.mktemp("kinds")

    def give(name: str) -> Path:
        if name == "module":
            return asked_by_tensors
        if not name.startswith("ranker"):
            return Path(finder(name).path)
        if not (folder / name).exists():
            write_linear_at(folder / name, external=name == "ranker-beside")
        return folder / name

    return give


@pytest.mark.parametrize("name", KINDS)
def test_each_is_packed_and_answers_as_before(
    kind: Callable[[str], Path], name: str, tmp_path: Path, content: Content
) -> None:
    pack(kind(name), tmp_path / "a.slim")
    out = unpack(tmp_path / "a.slim", tmp_path / "out")
    assert content(out) == content(kind(name))
    check_golden(load_any(out))


@pytest.mark.parametrize("name", KINDS)
def test_each_is_made_of_one_that_is_said_otherwise(
    kind: Callable[[str], Path], name: str, tmp_path: Path, content: Content
) -> None:
    new = open_artifact(kind(name))
    said = {key: value for key, value in new.manifest.items() if key not in SEALED_KEYS}
    write_artifact(tmp_path / "old", new.files, {**said, "metrics": {"auc": 0.5}})
    made = delta(tmp_path / "old", new.path, tmp_path / "d")
    assert made.bytes < 500
    assert content(apply(tmp_path / "old", tmp_path / "d", tmp_path / "old")) == content(new.path)
    check_golden(load_any(tmp_path / "old"))


@pytest.mark.parametrize(("old", "new"), list(zip(KINDS, [*KINDS[1:], KINDS[0]], strict=True)))
def test_each_is_made_of_another(
    kind: Callable[[str], Path], old: str, new: str, tmp_path: Path, content: Content
) -> None:
    delta(kind(old), kind(new), tmp_path / "d")
    assert content(apply(kind(old), tmp_path / "d", tmp_path / "out")) == content(kind(new))
    load_any(tmp_path / "out")
