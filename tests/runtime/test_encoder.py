"""Raw rows of requests: whatever was met before, what `Encoding` gives of them, and its faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimrank.config import InputError
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema
from slimrank.data.vocabulary import Identity
from slimrank.runtime import encoder as module
from slimrank.runtime.encoder import RowEncoder
from slimrank.runtime.rows import as_table

FIELDS = (
    Field(name="user", kind="categorical"),
    Field(name="item", kind="categorical"),
    Field(name="bucket", kind="categorical", encoding="hash", num_ids=50),
    Field(name="place", kind="categorical", encoding="identity", num_ids=20),
    Field(name="price", kind="numeric", log=True),
    Field(name="history", kind="sequence", max_length=2),
)
TRAIN = polars.DataFrame(
    {
        "user": [7, 7, 8, 9],
        "item": ["1", "jam", "tea", "tea"],
        "bucket": [1, 2, 3, 4],
        "place": [0, 1, 2, 19],
        "price": [1.0, 2.0, None, 5.0],
        "history": [["tea"], ["jam", "tea", "tea"], [], None],
    }
)
VALUES = {
    "user": [7, 8, 10, "7", "x", 7.0, 7.5, True, None, float("nan"), 2**63, -(2**70), np.int64(7), "y" * 65],
    "item": ["1", 1, 1.0, True, "True", "jam", "", None, 3, "0.5", 0.5],
    "bucket": [1, "1", 1.0, True, False, None, "a", -5, 2**64],
    "place": [0, 19, "3", 3.0, True, None, "z"],
    "price": [1, 2.5, None, True, -3, 0, 10**15],
    "history": [[], ["tea"], ["jam", "none"], ["tea", "tea", "tea"], None],
}
REFUSED = {
    "user": [[1], {}, b"7"],
    "item": [("a",)],
    "bucket": [[2]],
    "place": [20, -1],
    "price": [float("nan"), float("inf"), "1", 10**400],
    "history": ["tea", [[1]]],
}


@pytest.fixture(scope="module")
def encoding() -> Encoding:
    return Encoding.fit(Schema(fields=FIELDS), TRAIN)


def outcome(call: Callable[[], Any]) -> Any:
    """What it gives, as plain data; or its fault."""
    try:
        inputs, unknown, shortened = call()
    except InputError as error:
        return str(error)
    return inputs.ids.tolist(), inputs.numbers.tolist(), list(unknown.items()), shortened


def batch(values: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, list[Any]]]:
    def columns(count: int) -> st.SearchStrategy[dict[str, list[Any]]]:
        return st.fixed_dictionaries(
            {name: st.lists(st.sampled_from(given), min_size=count, max_size=count) for name, given in values.items()}
        )

    return st.integers(0, 6).flatmap(columns)


@settings(max_examples=150, deadline=None)
@given(batches=st.lists(batch({name: VALUES[name] + REFUSED[name][:1] for name in VALUES}), min_size=2, max_size=6))
def test_rows_mean_the_same_whatever_was_met_before(encoding: Encoding, batches: list[dict[str, list[Any]]]) -> None:
    encode = RowEncoder(encoding)
    for columns in batches:
        expected = outcome(lambda: encoding.encode_telling(as_table(columns, encoding.schema)))  # noqa: B023
        for _ in range(2):
            assert outcome(lambda: encode(columns)) == expected  # noqa: B023
        count = len(columns["user"])
        rows = [{name: column[place] for name, column in columns.items()} for place in range(count)]
        if rows:
            assert outcome(lambda: encode(rows)) == expected  # noqa: B023


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_is_refused_is_refused_after_it_met_the_like(encoding: Encoding, name: str, value: Any) -> None:
    encode = RowEncoder(encoding)
    good = {"user": [7], "item": ["1"], "bucket": [1], "place": [1], "price": [1], "history": [["tea"]]}
    encode(good)
    bad = {**good, name: [value]}
    expected = outcome(lambda: encoding.encode_telling(as_table(bad, encoding.schema)))
    assert isinstance(expected, str)
    assert outcome(lambda: encode(bad)) == expected


def test_a_table_is_made_of_no_more_than_is_new(encoding: Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, ...]] = []

    def telling(rows: Any, schema: Schema) -> polars.DataFrame:
        made.append(schema.inputs)
        return as_table(rows, schema)

    monkeypatch.setattr(module, "as_table", telling)
    encode = RowEncoder(encoding)
    row = {"user": [7, 10], "item": ["1", None], "bucket": [1, 2], "place": [1, 2], "price": [1, 2.5]}
    history = {"history": [["tea"], []]}
    ids = ("user", "item", "bucket", "place")
    for columns in ({**row, **history}, {**row, **history}, {**row, "user": [7, 11], **history}):
        encode(columns)
    assert made == [(*ids, "history"), ("history",), ("user", "history")]


def test_the_parts_of_an_encoder_remember_together(encoding: Encoding) -> None:
    whole = RowEncoder(encoding)
    part = whole.part([FIELDS[0], FIELDS[4]])
    inputs, unknown, shortened = part({"user": [7, 10], "price": [1, 2]})
    assert (inputs.ids.shape, inputs.numbers.shape) == ((2, 1), (2, 1))
    assert (unknown, shortened) == ({"user": 1}, {})
    assert whole._known["user"] == part._known["user"] == {7: 1, 10: module.UNKNOWN}


def test_what_is_remembered_is_bounded(encoding: Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 40)
    whole = RowEncoder(encoding)
    parts = {each.name: whole.part([each]) for each in FIELDS[:3]}
    for start in range(0, 200, 6):
        for name, part in parts.items():
            part({name: list(range(start, start + 6))})
            assert sum(map(len, whole._known.values())) <= 40
    for value in ("x" * 65, 2**63, 0.5):
        parts["user"]({"user": [value, 7]})
        assert value not in whole._known["user"]
        assert 7 in whole._known["user"]


def test_of_a_field_with_too_many_values_single_ones_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 30)
    field = Field(name="user", kind="categorical", encoding="identity", num_ids=100)
    encode = RowEncoder(Encoding(Schema(fields=(field,)), {"user": Identity(100)}, {}))
    for column in ([5, 6, 7], [8]):
        assert encode({"user": column})[0].ids.ravel().tolist() == [value + 1 for value in column]
    assert encode._known["user"] == {8: 9}


def test_many_rows_are_a_table(encoding: Encoding) -> None:
    encode = RowEncoder(encoding).part(FIELDS[:1])
    count = module.MANY_ROWS
    inputs, unknown, _ = encode({"user": [7, 10] * (count // 2)})
    assert (len(inputs), unknown, encode._known["user"]) == (count, {"user": count // 2}, {})
