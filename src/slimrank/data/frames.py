"""Rows as scikit-learn's users hold them (arrays, pandas, polars) to one polars frame, and which columns are looked up.

What is missing is null in the frame, whatever the container calls it (NaN, NA, None), so that encoding sees one form.
Left out: sparse matrices, whose columns are mostly one category each: the category itself is what a table looks up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError, nearest

Categorical = ArrayLike | Literal["from_dtype"] | None
WORDS = (pl.String, pl.Categorical, pl.Enum)


def is_frame(rows: Any) -> bool:
    """Whether `rows` are a frame of pandas or polars, whose columns have names and types of their own."""
    return hasattr(rows, "columns") and hasattr(rows, "dtypes")


def as_frame(rows: Any, names: Sequence[str]) -> pl.DataFrame:
    """`rows` [N, F], an array or a frame of pandas or polars, as columns `names` of a polars frame.

    Raises:
        InputError: pandas holds a column of mixed types, or names two columns alike.
        TypeError: an array of objects holds something that is neither text nor a number.
    """
    if isinstance(rows, pl.DataFrame):
        frame = rows.rename(dict(zip(rows.columns, names, strict=True)))
    elif is_frame(rows):
        frame = _from_pandas(rows, names)
    else:
        frame = pl.DataFrame([_column(name, rows[:, place]) for place, name in enumerate(names)])
    return frame.with_columns(pl.selectors.float().fill_nan(None))


def _from_pandas(rows: Any, names: Sequence[str]) -> pl.DataFrame:
    try:
        return pl.from_pandas(rows.set_axis(names, axis=1))
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(f"X cannot be read: {error}") from None


def _column(name: str, values: NDArray[Any]) -> pl.Series:
    """A column of an array: text where there is any, numbers elsewhere."""
    if values.dtype.kind in "biuf":
        return pl.Series(name, np.array(values))  # a copy: polars holds columns, an array's may be strided or read-only
    items = values.tolist()
    if any(isinstance(item, str) for item in items):
        return pl.Series(name, [None if _is_missing(item) else str(item) for item in items], dtype=pl.String)
    return pl.Series(name, np.asarray(items, dtype=np.float64))


def _is_missing(item: Any) -> bool:
    return item is None or item != item


def looked_up(rows: Any, frame: pl.DataFrame, chosen: Categorical) -> NDArray[np.bool_]:
    """Which columns [F] are categories, whose values are looked up, as `categorical_features` says; others are numbers.

    Args:
        rows: what `frame` was made of; its own names and types count.
        frame: `as_frame(rows, ...)`.
        chosen: "from_dtype" for columns of text or of a category's type, None for no column, else names, positions or a
            mask [F].

    Raises:
        InputError: a name, a position or the mask does not fit the columns.
    """
    if chosen is None:
        return np.zeros(frame.width, bool)
    if isinstance(chosen, str):
        if chosen != "from_dtype":
            raise InputError(f"categorical_features is {chosen!r}. Allowed: 'from_dtype', None, or a list of columns.")
        kinds = [str(each) for each in rows.dtypes] if is_frame(rows) else [""] * frame.width
        return np.array(
            [kind == "category" or frame[at].dtype in WORDS for at, kind in zip(frame.columns, kinds, strict=True)]
        )
    return _named(np.asarray(chosen), [str(name) for name in rows.columns] if is_frame(rows) else [], frame.width)


def _named(chosen: NDArray[Any], names: Sequence[str], width: int) -> NDArray[np.bool_]:
    """The mask [width] that names, positions or a mask mean."""
    if chosen.ndim != 1:
        raise InputError(f"categorical_features is of shape {list(chosen.shape)}: a list of columns is needed")
    if chosen.dtype == bool:
        if len(chosen) != width:
            raise InputError(f"categorical_features is a mask of {len(chosen)} columns, and X has {width}")
        return chosen
    mask = np.zeros(width, bool)
    if not len(chosen):
        return mask
    if chosen.dtype.kind in "iu":
        wrong = [int(place) for place in chosen if not -width <= place < width]
        if wrong:
            raise InputError(f"categorical_features: no column {wrong[0]}. Allowed: {-width}..{width - 1}.")
        mask[chosen] = True
        return mask
    wanted = [str(name) for name in chosen]
    faults = [
        f"categorical_features: no column {name!r}. {nearest(name, names)}" for name in wanted if name not in names
    ]
    if faults:
        raise InputError("\n".join(faults))
    mask[[names.index(name) for name in wanted]] = True
    return mask
