"""What may enter a session, checked for every column, type and shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from slimrank.config import InputError
from slimrank.data.encoding import Inputs
from slimrank.data.schema import Field, Schema
from slimrank.runtime.checks import Checks

SCHEMA = Schema(
    fields=(
        Field(name="user", kind="categorical"),
        Field(name="price", kind="numeric"),
        Field(name="item", kind="categorical"),
        Field(name="age", kind="numeric"),
        Field(name="seen", kind="sequence", max_length=2),
    )
)
CHECKS = Checks.of(SCHEMA, {"user": 3, "item": 5, "seen": 2**31})


def rows(ids: Any, numbers: Any) -> Inputs:
    return Inputs(np.array(ids, np.int32).reshape(-1, 4), np.array(numbers, np.float32).reshape(-1, 2))


def test_the_ends_of_every_range_are_allowed() -> None:
    CHECKS(rows([[0, 0, 0, 0], [2, 4, 2**31 - 1, 2**31 - 1]], [[0, 0], [3e38, -3e38]]))
    CHECKS(rows([], []))


@pytest.mark.parametrize(("column", "limit"), [(0, 3), (1, 5)])
@pytest.mark.parametrize("value", ["limit", -1, 2**31 - 1, -(2**31)])
def test_one_id_out_of_range_is_named(column: int, limit: int, value: Any) -> None:
    value = limit if value == "limit" else value
    ids = np.zeros((7, 4), np.int32)
    ids[5, column] = value
    with pytest.raises(InputError) as caught:
        CHECKS(rows(ids, np.zeros((7, 2))))
    name = CHECKS.columns[column]
    assert str(caught.value) == (
        f"field {name!r} (column {column} of ids): id {value} in row 5 is out of range, allowed 0..{limit - 1}; "
        "1 of 7 rows are"
    )


def test_every_faulty_field_is_named_and_counted() -> None:
    ids, numbers = np.zeros((4, 4), np.int32), np.zeros((4, 2), np.float32)
    ids[1:, 0], ids[2, 3] = 9, -7
    numbers[1, 0], numbers[2:, 1], numbers[3, 1] = np.nan, np.inf, -np.inf
    with pytest.raises(InputError) as caught:
        CHECKS(rows(ids, numbers))
    assert str(caught.value).splitlines() == [
        "field 'user' (column 0 of ids): id 9 in row 1 is out of range, allowed 0..2; 3 of 4 rows are",
        "field 'seen' (column 3 of ids): id -7 in row 2 is out of range, allowed 0..2147483647; 1 of 4 rows are",
        "field 'price' (column 0 of numbers): 1 NaN and 0 infinite of 4 values, the first in row 1; allowed: finite",
        "field 'age' (column 1 of numbers): 0 NaN and 2 infinite of 4 values, the first in row 2; allowed: finite",
    ]


def test_a_long_list_of_faults_is_cut() -> None:
    schema = Schema(fields=(Field(name="seen", kind="sequence", max_length=30),))
    checks = Checks.of(schema, {"seen": 4})
    with pytest.raises(InputError) as caught:
        checks(Inputs(np.full((1, 30), 9, np.int32), np.zeros((1, 0), np.float32)))
    assert str(caught.value).splitlines()[10:] == ["and 20 more columns"]


@pytest.mark.parametrize(
    ("ids", "numbers", "message"),
    [
        (np.zeros((2, 4), np.int64), np.zeros((2, 2), np.float32), "ids: type int64, must be int32"),
        (np.zeros((2, 4), ">i4"), np.zeros((2, 2), np.float32), "ids: type >i4, must be int32"),
        (np.zeros((2, 4), np.int32), np.zeros((2, 2)), "numbers: type float64, must be float32"),
        (np.zeros((2, 3), np.int32), np.zeros((2, 2), np.float32), "ids: shape [2, 3], must be [rows, 4]"),
        (np.zeros(4, np.int32), np.zeros((2, 2), np.float32), "ids: shape [4], must be [rows, 4]"),
        (np.zeros((2, 4), np.int32), np.zeros((2, 0), np.float32), "numbers: shape [2, 0], must be [rows, 2]"),
        (np.zeros((2, 4), np.int32), np.zeros((3, 2), np.float32), "ids have 2 rows and numbers 3"),
        ([[0, 0, 0, 0]], np.zeros((1, 2), np.float32), "ids: a list, not a numpy array"),
    ],
)
def test_type_and_shape_are_exact(ids: Any, numbers: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        CHECKS(Inputs(ids, numbers))
    assert message in str(caught.value)


@pytest.mark.parametrize("width", [0, 1])
def test_a_schema_may_have_no_ids_or_no_numbers(width: int) -> None:
    kind = "categorical" if width else "numeric"
    checks = Checks.of(Schema(fields=(Field(name="only", kind=kind),)), {"only": 2} if width else {})
    checks(Inputs(np.zeros((3, width), np.int32), np.zeros((3, 1 - width), np.float32)))
