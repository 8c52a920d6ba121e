"""Raw rows as a table: what a value is never hangs on how its column came, nor on the other rows but for its type."""

from __future__ import annotations

from typing import Any

import polars
import pytest

from slimrank.config import InputError
from slimrank.data.schema import Field, Schema
from slimrank.runtime.rows import as_table

SCHEMA = Schema(fields=(Field(name="id", kind="categorical"), Field(name="history", kind="sequence")))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([1, None, 3], [1, None, 3]),
        (["a", "7", None], ["a", "7", None]),
        ([True, 2, 3.0], [1, 2, 3]),
        ([1, "b", 2.5], ["1", "b", "2.5"]),
        ([2**63 - 1, -(2**63)], [2**63 - 1, -(2**63)]),
        ([2**63, 1, None], [str(2**63), "1", None]),
        ([-(2**63) - 1, 1], [str(-(2**63) - 1), "1"]),
        ([float("nan"), 4], [None, 4]),
        ([None, None], [None, None]),
        ([], []),
    ],
)
def test_ids_are_integers_where_all_are_and_else_text(values: list[Any], expected: list[Any]) -> None:
    lists: list[Any] = [values, None, [], tuple(values)]
    table = as_table({"id": values, "history": [values] * len(values)}, SCHEMA)
    assert table["id"].to_list() == expected
    (history,) = as_table({"id": [None] * 4, "history": lists}, SCHEMA).select("history")
    assert [None if each is None else list(each) for each in history.to_list()] == [expected, None, [], expected]


@pytest.mark.parametrize("wrong", [{}, [1], b"x", object()])
def test_what_is_no_id_is_named(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"column 'id' \(categorical\): row 2 holds a "):
        as_table({"id": [1, 2, wrong], "history": [[], [], []]}, SCHEMA)
    with pytest.raises(InputError, match=r"column 'history' \(sequence\): id 1 holds a "):
        as_table({"id": [1], "history": [[1, wrong]]}, SCHEMA)
    assert as_table({"id": [1], "history": [[1]]}, SCHEMA).schema["history"] == polars.List(polars.Int64)
