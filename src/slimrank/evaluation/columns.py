"""Columns of a frame as the arrays that a comparison takes: labels, groups, and what rows are sliced by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError

if TYPE_CHECKING:
    import polars


def as_numbers(column: polars.Series, what: str) -> NDArray[np.float64]:
    """A column of numbers or truth values as float64 [N].

    Raises:
        InputError: it holds something else, or values are missing.
    """
    import polars

    if not (column.dtype.is_numeric() or column.dtype == polars.Boolean):
        raise InputError(f"{what} is of type {column.dtype}; allowed: numbers")
    if column.null_count():
        raise InputError(f"{what}: {column.null_count()} of {len(column)} values are missing")
    return column.cast(polars.Float64).to_numpy()


def as_groups(frame: polars.DataFrame, name: str | None) -> NDArray[np.int64] | None:
    """The group of every row [N], numbered from 0; None where no column is named.

    Raises:
        InputError: values are missing, or are no names.
    """
    if name is None:
        return None
    column = frame[name]
    if column.null_count():
        raise InputError(f"group {name!r}: {column.null_count()} of {len(column)} values are missing")
    return as_codes(column, f"group {name!r}")


def as_codes(column: polars.Series, what: str) -> NDArray[np.int64]:
    """Every value's number [N] from 0 on, rising; missing ones are alike.

    Raises:
        InputError: the values have no order.
    """
    import polars

    if column.dtype.is_nested() or column.dtype in (polars.Binary, polars.Object):
        raise InputError(f"{what} is of type {column.dtype}; allowed: numbers, text and times")
    place: NDArray[np.int64] = column.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    return np.asarray(place - place.min())


def as_values(column: polars.Series, *, as_text: bool) -> NDArray[Any]:
    """What rows are sliced by [N]: numbers as they are, missing ones NaN; all else, and ids, as text."""
    import polars

    if column.dtype.is_numeric() and not as_text:
        return column.cast(polars.Float64).fill_null(float("nan")).to_numpy()
    as_codes(column, f"slices {column.name!r}")
    return column.cast(polars.String).fill_null("missing").to_numpy().astype(object)
