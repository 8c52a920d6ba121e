"""Rows of any container are one frame, and the columns that are looked up are those that were named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.frames import as_frame, looked_up

NAMES = ["city", "hour", "price", "kind"]
COLUMNS: dict[str, list[Any]] = {
    "city": ["Ulm", None, "Bonn"],
    "hour": [3, 4, 5],
    "price": [0.5, float("nan"), 2.0],
    "kind": [7, 8, 7],
}


def pandas_rows() -> pd.DataFrame:
    return pd.DataFrame(COLUMNS).astype({"kind": "category"})


def test_all_containers_give_one_frame() -> None:
    expected = pl.DataFrame({**COLUMNS, "price": [0.5, None, 2.0]})
    objects = np.array(list(zip(*COLUMNS.values(), strict=True)), dtype=object)
    assert as_frame(pl.DataFrame(COLUMNS), NAMES).equals(expected)
    assert as_frame(pandas_rows(), NAMES).equals(expected)
    assert as_frame(objects, NAMES).equals(expected.cast({"hour": pl.Float64, "kind": pl.Float64}))


@pytest.mark.parametrize("kind", ["float32", "float64", "int8", "uint16", "bool"])
def test_numbers_of_arrays_stay_what_they_are(kind: str) -> None:
    rows = np.array([[0, 1, 1], [1, 0, 1]]).astype(kind)
    for own in (rows, np.asfortranarray(rows), rows[:, ::-1][:, ::-1]):
        own.flags.writeable = False
        assert as_frame(own, ["a", "b", "c"]).rows() == [(0, 1, 1), (1, 0, 1)]


def test_columns_are_called_as_asked() -> None:
    assert as_frame(pd.DataFrame({0: [1], 1: [2]}), ["x0", "x1"]).columns == ["x0", "x1"]
    assert as_frame(pl.DataFrame({"a": [1]}), ["x0"]).columns == ["x0"]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("from_dtype", [True, False, False, True]),
        (None, [False, False, False, False]),
        (["hour", "city"], [True, True, False, False]),
        ([1, -1], [False, True, False, True]),
        ([False, False, True, False], [False, False, True, False]),
        ([], [False, False, False, False]),
    ],
)
def test_what_is_looked_up(chosen: Any, expected: list[bool]) -> None:
    rows = pandas_rows()
    assert looked_up(rows, as_frame(rows, NAMES), chosen).tolist() == expected


def test_types_of_other_containers() -> None:
    rows = pl.DataFrame(COLUMNS).with_columns(pl.col("city").cast(pl.Categorical))
    assert looked_up(rows, as_frame(rows, NAMES), "from_dtype").tolist() == [True, False, False, False]
    texts = np.array([["Ulm", "3"], ["Bonn", "4"]])
    assert looked_up(texts, as_frame(texts, ["a", "b"]), "from_dtype").tolist() == [True, True]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ("from_type", "categorical_features is 'from_type'. Allowed: 'from_dtype', None, or a list"),
        (["citty"], "no column 'citty'. Did you mean 'city'?"),
        ([4], "no column 4. Allowed: -4..3"),
        ([True], "a mask of 1 columns, and X has 4"),
        ([[0], [1]], "of shape [2, 1]"),
    ],
)
def test_what_cannot_be_looked_up(chosen: Any, message: str) -> None:
    rows = pandas_rows()
    with pytest.raises(InputError) as error:
        looked_up(rows, as_frame(rows, NAMES), chosen)
    assert message in str(error.value)


def test_columns_that_are_none() -> None:
    with pytest.raises(InputError, match="X cannot be read"):
        as_frame(pd.DataFrame({"a": [1, "x", (2,)]}), ["a"])
    with pytest.raises(TypeError, match="real number, not 'dict'"):
        as_frame(np.array([[1], [{}]], dtype=object), ["a"])
