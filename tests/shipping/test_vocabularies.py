"""A vocabulary as what changed: built again to the byte, or said not to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimrank.config import InputError
from slimrank.data.encoding import Encoding
from slimrank.data.stored import vocabulary_parquet
from slimrank.data.vocabulary import Vocabulary
from slimrank.shipping.vocabularies import changes, rebuilt

Encodings = Callable[..., Encoding]


def written(path: Path, fields: dict[str, list[Any]]) -> Path:
    path.write_bytes(vocabulary_parquet({name: Vocabulary(polars.Series("v", each)) for name, each in fields.items()}))
    return path


def test_values_that_came_are_all_that_is_told(tmp_path: Path) -> None:
    old = written(tmp_path / "old", {"user": [5, 3, 9], "item": ["tea", "jam"]})
    new = written(tmp_path / "new", {"user": [5, 3, 9, 4], "item": ["tea", "jam", "rye", "é\n"]})
    told = changes(old, new)
    assert told is not None
    assert json.loads(told) == {
        "user": ["int", [[0, 3], ["new", [4]]]],
        "item": ["str", [[0, 2], ["new", ["rye", "é\n"]]]],
    }
    assert rebuilt(old, told) == new.read_bytes()


def test_order_fields_and_types_may_change(tmp_path: Path) -> None:
    old = written(tmp_path / "old", {"user": [5, 3, 9], "gone": ["x"]})
    new = written(tmp_path / "new", {"came": ["y"], "user": [9, 5, 3]})
    told = changes(old, new)
    assert told is not None
    assert json.loads(told) == {"came": ["str", [["new", ["y"]]]], "user": ["int", [[2, 1], [0, 2]]]}
    text = written(tmp_path / "text", {"user": ["5", "3", "a"]})
    for one, other in ((old, text), (text, old)):
        told = changes(one, other)
        assert told is not None
        assert rebuilt(one, told) == other.read_bytes()


def test_a_file_that_is_written_otherwise_is_said_to_be(tmp_path: Path) -> None:
    old = written(tmp_path / "old", {"user": [5, 3]})
    polars.read_parquet(old).write_parquet(tmp_path / "new", compression="lz4")
    assert changes(old, tmp_path / "new") is None
    (tmp_path / "new").write_bytes(b"PAR1")
    assert changes(old, tmp_path / "new") is None
    assert changes(tmp_path / "new", old) is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=12),
    st.lists(st.integers(-4, 4), unique=True, max_size=9),
    st.lists(st.text(max_size=4), unique=True, max_size=9),
    st.lists(st.text(max_size=2), unique=True, max_size=9),
)
def test_whatever_the_values_are(tmp_path_factory: Any, a: list[Any], b: list[Any], c: list[Any], d: list[Any]) -> None:
    folder, lists = tmp_path_factory.mktemp("v"), (a, b, c, d)
    kinds = [polars.Int64, polars.Int64, polars.String, polars.String]
    one, two, three, four = (
        Vocabulary(polars.Series("v", each, dtype=kind)) for each, kind in zip(lists, kinds, strict=True)
    )
    for name, codecs in (("old", {"a": one, "b": three}), ("new", {"a": two, "b": four})):
        (folder / name).write_bytes(vocabulary_parquet(codecs))
    told = changes(folder / "old", folder / "new")
    assert told is not None
    assert rebuilt(folder / "old", told) == (folder / "new").read_bytes()


@pytest.mark.parametrize(
    "told",
    [
        b"no JSON",
        b"[]",
        b'{"a": 1}',
        b'{"a": ["int", [1]]}',
        b'{"a": ["int", [["new", ["x"]]]]}',
        b'{"a": ["int", [["new", [1, 1.5]]]]}',
        b'{"a": ["int", [[[], 2]]]}',
        b'{"a": ["int", [' + b",".join([b"[0,3]"] * 60) + b"]]}",
    ],
)
def test_other_forms_are_refused(tmp_path: Path, told: bytes) -> None:
    with pytest.raises(InputError, match="changes of a vocabulary of another form"):
        rebuilt(written(tmp_path / "old", {"a": [1, 2, 3]}), told)
