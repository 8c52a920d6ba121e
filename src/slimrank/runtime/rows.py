"""Raw rows as a table, whichever way they come: a polars frame, a mapping of columns, a list of rows.

Values from Python and JSON carry their type one by one (7, 7.0, "7"); each is brought to one form on its own, so
that what a row means never hangs on the other rows of its request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from slimrank.config import InputError, nearest
from slimrank.data.schema import Field, Schema

if TYPE_CHECKING:
    import polars

    Rows = polars.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]]

INT64 = range(-(2**63), 2**63)


def as_table(rows: Rows, schema: Schema) -> polars.DataFrame:
    """The schema's fields as a frame; other columns are left out. A key that a row lacks is a missing value.

    Raises:
        InputError: no table can be made of it; a field is in no row; columns differ in length; a value is of a
            type that no field takes.
    """
    import polars

    if isinstance(rows, polars.DataFrame):
        _check_fields(schema, rows.columns)
        return rows.select(schema.inputs)
    if isinstance(rows, Mapping):
        _check_fields(schema, rows)
        columns = {name: rows[name] for name in schema.inputs}
    elif isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        columns = _columns(rows, schema)
    else:
        raise InputError(
            f"rows are a {type(rows).__name__}; allowed: a polars frame, a mapping of columns, a list of rows"
        )
    try:
        fields = [*schema.fields, *(each.model_copy(update={"name": each.pair}) for each in schema.texts if each.pair)]
        return polars.DataFrame([_series(field, columns[field.name]) for field in fields])
    except polars.exceptions.ShapeError:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise InputError(f"columns differ in length: {lengths}") from None


def _check_fields(schema: Schema, names: Iterable[str]) -> None:
    known = set(names)
    missing = [name for name in schema.inputs if name not in known]
    if missing:
        given = [str(name)[:80] for name in islice(known, 100)]  # a hostile row has a million long keys
        raise InputError("\n".join(f"missing column {name!r}. {nearest(name, given)}" for name in missing))


def _columns(rows: Sequence[Any], schema: Schema) -> dict[str, list[Any]]:
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"row {place} is a {type(row).__name__}, must map column names to values")
    if rows:
        _check_fields(schema, chain.from_iterable(rows))
    return {name: [row.get(name) for row in rows] for name in schema.inputs}


def _series(field: Field, column: Any) -> polars.Series:
    import polars

    if isinstance(column, str | bytes) or not hasattr(column, "__len__"):
        raise InputError(f"column {field.name!r} is a {type(column).__name__}, must hold a value for every row")
    if not isinstance(column, list | tuple):
        return polars.Series(field.name, column)
    try:
        if field.kind == "text":  # values of any type: the tokenizer says which of them is no text
            return polars.Series(field.name, column, dtype=polars.Object)
        if field.kind == "numeric":
            return polars.Series(field.name, column, dtype=polars.Float64)
        if field.kind == "sequence" and not any(isinstance(value, str) for value in column):
            return _lists(field, column)
        return polars.Series(field.name, _ids(column, lambda place: f"row {place}"))
    except (TypeError, ValueError, OverflowError) as error:
        fault = str(error).split("\n", 1)[0]
        raise InputError(f"column {field.name!r} ({field.kind}): {fault}") from None


def _lists(field: Field, column: Sequence[Any]) -> polars.Series:
    """One list a row; the ids of all rows are brought to one type together."""
    import polars

    wrong = [place for place, row in enumerate(column) if not isinstance(row, list | tuple | None)]
    if wrong:
        raise ValueError(f"row {wrong[0]} holds a {type(column[wrong[0]]).__name__}, must be a list")
    values = list(chain.from_iterable(row or () for row in column))
    if _are_ids(values):
        kind = polars.Int64 if type(next(value for value in values if value is not None)) is int else polars.String
        return polars.Series(field.name, column, dtype=polars.List(kind))
    flat = iter(_ids(values, lambda place: f"id {place}"))
    return polars.Series(field.name, [row and [next(flat) for _ in row] for row in column])


def _ids(values: Sequence[Any], name: Callable[[int], str]) -> list[int | str | None]:
    """Each value as an integer where it is a whole number, else as text; all as text where there is any text."""
    if _are_ids(values):
        return list(values)
    ids = [_id(value, name, place) for place, value in enumerate(values)]
    if any(isinstance(value, str) for value in ids):
        return [None if value is None else str(value) for value in ids]
    return ids


def _are_ids(values: Sequence[Any]) -> bool:
    """Whether all values are text, or all integers of 64 bits, as they are in most requests; missing ones aside."""
    kinds = set(map(type, values))
    known = [value for value in values if value is not None] if type(None) in kinds else values
    if kinds - {type(None)} == {int}:
        return min(known) in INT64 and max(known) in INT64
    return kinds - {type(None)} == {str}


def _id(value: Any, name: Callable[[int], str], place: int) -> int | str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value != value:  # NaN: missing
        return None
    if isinstance(value, bool | int) or (isinstance(value, float) and value.is_integer()):
        whole = int(value)
        return whole if whole in INT64 else str(whole)
    if isinstance(value, float):
        return str(value)
    raise TypeError(f"{name(place)} holds a {type(value).__name__}; an id is an integer or text")
