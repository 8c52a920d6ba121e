"""Raw values of one field to codes: 0 for what is unknown or missing, 1.. for values.

Three ways: a vocabulary fitted on train, a hash, the identity. Each is built once and then costs the batch: direct
indexing or bisection for integers, one dict for text, and large columns go through their unique values.
Left out: padding and sequences, which `encoding` lays over the codes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError

if TYPE_CHECKING:
    import polars

ValueKind = Literal["int", "str"]
Codes = NDArray[np.int32]

PIECE = 1 << 16  # values at a time where a table of all of them is filled
MANY_ROWS = 4096  # from here on, finding the unique values first is cheaper than a Python call per row


def canonical(series: polars.Series) -> polars.Series:
    """The column as Int64 or String, so that 7, 7.0 and True/1 are one value wherever they come from.

    Whole floats become integers and NaN becomes missing; where one value is no integer of 64 bits, all become text.

    Raises:
        InputError: the column's type holds no ids.
    """
    import polars

    if series.dtype in (polars.Int64, polars.String):
        return series
    if series.dtype.is_float() or series.dtype.is_decimal():
        series = series.cast(polars.Float64).fill_nan(None)
        whole = series.is_null() | ((series == series.round()) & (series.abs() < 2.0**63))
        if not whole.all():  # value by value, so that a value's id does not hang on the rest of its batch
            text = series.cast(polars.Int64, strict=False).cast(polars.String)
            return text.zip_with(whole, series.cast(polars.String))
    if series.dtype.is_numeric() or series.dtype in (polars.Boolean, polars.Null):
        integers = series.cast(polars.Int64, strict=False)
        return integers if integers.null_count() == series.null_count() else series.cast(polars.String)
    if series.dtype.is_nested() or series.dtype in (polars.Binary, polars.Object):
        raise InputError(f"column {series.name!r}: {series.dtype} holds no ids; text or integers are allowed")
    return series.cast(polars.String)


def kind_of(series: polars.Series) -> ValueKind:
    """Whether a canonical column holds integers or text."""
    return "int" if series.dtype.is_integer() else "str"


def as_kind(series: polars.Series, kind: ValueKind) -> polars.Series:
    """A canonical column as integers or text; text that is no integer becomes missing."""
    import polars

    if kind_of(series) == kind:
        return series
    return series.cast(polars.Int64 if kind == "int" else polars.String, strict=False)


def through_unique(series: polars.Series, code: Callable[[Any], int]) -> Codes:
    """`code` of every value, called once per distinct value where there are many rows; missing is 0."""
    import polars

    if len(series) < MANY_ROWS:
        return np.fromiter((0 if v is None else code(v) for v in series.to_list()), np.int32, len(series))
    distinct = series.drop_nulls().unique()
    codes = np.fromiter(map(code, distinct.to_list()), np.int32, len(distinct))
    mapped = series.replace_strict(distinct, polars.Series(codes), default=0, return_dtype=polars.Int32)
    return mapped.to_numpy().astype(np.int32, copy=False)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The values of a field by falling train frequency: the value at position i has code i + 1.

    Attributes:
        values: distinct, canonical (Int64 or String), without nulls.
    """

    values: polars.Series
    _lookup: Callable[[polars.Series], Codes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        make = _integer_lookup if kind_of(self.values) == "int" else _text_lookup
        object.__setattr__(self, "_lookup", make(self.values))

    @classmethod
    def fit(cls, series: polars.Series, min_count: int) -> Vocabulary:
        """The values seen at least `min_count` times, most frequent first, ties by value."""
        import polars

        values = canonical(series).rename("value")
        counts = values.drop_nulls().value_counts(name="count").filter(polars.col("count") >= min_count)
        ascending = counts.sort("value").sort("count", descending=True, maintain_order=True)  # faster than by two keys
        return cls(ascending["value"].rechunk())

    @property
    def size(self) -> int:
        """Number of codes: the values and 0."""
        return len(self.values) + 1

    def codes(self, series: polars.Series) -> tuple[Codes, int]:
        """Codes of a raw column [N], and how many of its values (missing ones aside) are unknown."""
        codes = self._lookup(as_kind(canonical(series), kind_of(self.values)))
        return codes, len(codes) - int(np.count_nonzero(codes)) - _missing(series)


def _integer_lookup(values: polars.Series) -> Callable[[polars.Series], Codes]:
    """Direct indexing where the values lie close together, bisection where they do not."""
    known = values.to_numpy()
    if len(known) == 0:
        return lambda series: np.zeros(len(series), np.int32)
    low, high = int(known.min()), int(known.max())
    if high - low < 8 * len(known) + 1024:
        direct = np.zeros(high - low + 1, np.int32)
        for start in range(0, len(known), PIECE):  # at once, loading would take five times what is kept
            some = known[start : start + PIECE]
            direct[some - low] = np.arange(start + 1, start + len(some) + 1, dtype=np.int32)
        return lambda series: _index(direct, low, series)
    codes = np.argsort(known).astype(np.int32)
    ascending = known[codes]
    codes += 1
    return lambda series: _bisect(ascending, codes, series)


def _index(direct: Codes, low: int, series: polars.Series) -> Codes:
    """`direct[value - low]` for values that have a place there, else 0."""
    raw, present = _integers(series)
    places = raw - low
    inside = present & (places.view(np.uint64) < len(direct))  # below `low`, and beyond 64 bits, is huge as well
    if inside.all():
        return direct[places]
    return np.where(inside, direct[np.where(inside, places, 0)], 0).astype(np.int32, copy=False)


def _bisect(ascending: NDArray[np.int64], codes: Codes, series: polars.Series) -> Codes:
    """The code at each value's place in `ascending`, 0 where the value is not there."""
    raw, present = _integers(series)
    if len(raw) < MANY_ROWS:
        place = np.searchsorted(ascending, raw)
    else:  # in ascending order neighbours share cache lines: many times faster over a large vocabulary
        place, order = np.empty(len(raw), np.int64), np.argsort(raw)
        place[order] = np.searchsorted(ascending, raw[order])
    place = np.minimum(place, len(ascending) - 1)
    return np.where(present & (ascending[place] == raw), codes[place], 0).astype(np.int32, copy=False)


def _integers(series: polars.Series) -> tuple[NDArray[np.int64], NDArray[np.bool_] | np.bool_]:
    """An Int64 column as an array with 0 for missing values, and where it is not missing (one True for everywhere)."""
    if series.null_count() == 0:
        return series.to_numpy(), np.True_
    return series.fill_null(0).to_numpy(), ~series.is_null().to_numpy()


def _text_lookup(values: polars.Series) -> Callable[[polars.Series], Codes]:
    """One dict for all calls."""
    table = dict(zip(values.to_list(), range(1, len(values) + 1), strict=True))
    return lambda series: through_unique(series, lambda value: table.get(value, 0))


@dataclass(frozen=True)
class Hashed:
    """Code 1 + crc32(utf-8 of the value as text) % num_ids: no table, and no value is unknown."""

    num_ids: int

    @property
    def size(self) -> int:
        """Number of codes: the buckets and 0."""
        return self.num_ids + 1

    def codes(self, series: polars.Series) -> tuple[Codes, int]:
        """Codes of a raw column [N]; nothing is unknown, missing is 0."""
        text = as_kind(canonical(series), "str")
        return through_unique(text, lambda value: 1 + zlib.crc32(value.encode()) % self.num_ids), 0


@dataclass(frozen=True)
class Identity:
    """Code raw + 1 of raw ids that are already 0..num_ids-1."""

    num_ids: int

    @property
    def size(self) -> int:
        """Number of codes: the raw ids and 0."""
        return self.num_ids + 1

    def codes(self, series: polars.Series) -> tuple[Codes, int]:
        """Codes of a raw column [N]; nothing is unknown, missing is 0.

        Raises:
            InputError: raw ids outside 0..num_ids-1, counted, with a few of them.
        """
        ids = canonical(series)
        raw, present = _integers(as_kind(ids, "int"))
        inside = present & (raw >= 0) & (raw < self.num_ids)
        if not inside.all() and (wrong := ~inside & ~ids.is_null().to_numpy()).any():
            some = series.filter(wrong).unique(maintain_order=True).head(3).to_list()
            raise InputError(
                f"column {series.name!r}: {int(wrong.sum())} of {len(series)} raw ids out of range, "
                f"such as {', '.join(map(repr, some))}. Allowed: 0..{self.num_ids - 1}."
            )
        return np.where(inside, raw + 1, 0).astype(np.int32), 0


Codec = Vocabulary | Hashed | Identity


def _missing(series: polars.Series) -> int:
    """How many values are missing: null, or NaN in a float column."""
    return int(series.fill_nan(None).null_count() if series.dtype.is_float() else series.null_count())
