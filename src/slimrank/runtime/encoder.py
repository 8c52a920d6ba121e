"""Raw rows of requests as inputs, with ids remembered by value: what a request holds is often what another one held.

A table costs its encoding some 25 us a field, however few its rows are; a value that was met lately costs 50 ns. What
is remembered is what the encoding gave for that value, so that there is no second rule for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.data.encoding import Encoding, Inputs
from slimrank.data.scaling import scaled_numbers
from slimrank.data.schema import Field
from slimrank.runtime.rows import INT64, as_table

if TYPE_CHECKING:
    from slimrank.runtime.rows import Rows

MANY_ROWS = 4096  # from here on a table is cheaper than its values one by one
LEAST, MOST = 1 << 12, 1 << 16  # values remembered of a field at least, and of all fields if that leaves each so many
LONGEST = 64  # characters of a value that is remembered, so that all of them are a few megabytes
UNKNOWN = -1  # in the place of the id of a value that the vocabulary does not hold
ID_TYPES = {int, str, bool, type(None)}  # of equal values of these, such as 1 and True, the ids are equal
NUMBER_TYPES = {int, float}

Columns = Mapping[str, Sequence[Any]]
Counts = dict[str, int]
Ids = dict[Any, int]


class RowEncoder:
    """The encoding of raw rows in whichever form they come. Safe to use from several threads at once."""

    def __init__(self, encoding: Encoding, known: Mapping[str, Ids] | None = None) -> None:
        """`known` are ids by field and value, where another encoder of the same rules has some."""
        self.encoding = encoding
        fields = encoding.schema.categorical
        self._known = {each.name: {} if known is None else known[each.name] for each in fields}
        self._most = max(LEAST, MOST // max(1, len(fields)))
        self._inputs = encoding.schema.inputs
        self._counted = tuple(each.name for each in encoding.schema.fields if each.kind in ("categorical", "sequence"))
        self._rest = lru_cache(64)(partial(_of_fields, encoding))

    def part(self, fields: Sequence[Field]) -> RowEncoder:
        """The encoder of some of the fields, which remembers what this one does."""
        return RowEncoder(_of_fields(self.encoding, tuple(each.name for each in fields)), self._known)

    def __call__(self, rows: Rows) -> tuple[Inputs, Counts, Counts]:
        """What `Encoding.encode_telling` gives of these rows.

        Raises:
            InputError: as `as_table` and `Encoding.encode_telling`, with the faults of all fields.
        """
        columns = self._columns(rows)
        found = None if columns is None else self._quickly(columns)
        return self.encoding.encode_telling(as_table(rows, self.encoding.schema)) if found is None else found

    def _columns(self, rows: Rows) -> Columns | None:
        """The columns of rows that are lists of equal length and not too long; None of any others."""
        if isinstance(rows, list):
            if len(rows) >= MANY_ROWS or not all(type(row) is dict for row in rows):
                return None
            if not set(self._inputs) <= set(chain.from_iterable(rows)):
                return None
            return {name: [row.get(name) for row in rows] for name in self._inputs}
        if not isinstance(rows, Mapping) or not all(isinstance(rows.get(name), list | tuple) for name in self._inputs):
            return None
        columns = {name: rows[name] for name in self._inputs}
        lengths = set(map(len, columns.values()))
        return columns if len(lengths) == 1 and max(lengths) < MANY_ROWS else None

    def _quickly(self, columns: Columns) -> tuple[Inputs, Counts, Counts] | None:
        """The inputs of columns, a table made of no more fields than need one; None where a value is refused."""
        schema = self.encoding.schema
        arrays: dict[str, NDArray[Any]] = {}
        unknown: Counts = {}
        shortened: Counts = {}
        try:
            for each in schema.fields:
                array = self._looked_up(each, columns[each.name])
                if array is not None:
                    arrays[each.name] = array
            left = tuple(each.name for each in schema.fields if each.name not in arrays)
            if left:
                slow = self._rest(left)
                found, unknown, shortened = slow.arrays(as_table(columns, slow.schema))
                arrays |= found
        except InputError:
            return None
        for each in schema.categorical:
            ids = arrays[each.name]
            if each.name in unknown:
                self._remember(each.name, columns[each.name], ids, unknown[each.name])
            elif ids.size and ids.min() < 0:
                unknown[each.name] = int(np.count_nonzero(ids < 0))
                arrays[each.name] = np.maximum(ids, 0)
        inputs = self.encoding.joined(arrays, len(next(iter(columns.values()), ())))
        return inputs, {name: unknown.get(name, 0) for name in self._counted}, shortened

    def _looked_up(self, each: Field, column: Sequence[Any]) -> NDArray[Any] | None:
        """A column of values that are all remembered, or of plain numbers; None of any other."""
        kinds = set(map(type, column))
        try:
            if each.kind == "numeric" and kinds <= NUMBER_TYPES:
                return scaled_numbers(np.array(column, np.float64), each, self.encoding.scales[each.name])
            if each.kind == "categorical" and kinds <= ID_TYPES:
                return np.fromiter(map(self._known[each.name].__getitem__, column), np.int32, len(column))
        except (KeyError, OverflowError):
            return None
        return None

    def _remember(self, name: str, column: Sequence[Any], ids: NDArray[Any], unknown: int) -> None:
        if not set(map(type, column)) <= ID_TYPES or not all(map(_short, column)):
            return
        known = self._known[name]
        if len(known) + len(column) > self._most:
            known.clear()
        places = ids.tolist()
        if unknown:  # then all that are not missing and have no id
            places = [UNKNOWN if not id and value is not None else id for value, id in zip(column, places, strict=True)]
        known.update(zip(column, places, strict=True))


def _short(value: Any) -> bool:
    return len(value) <= LONGEST if isinstance(value, str) else value is None or value in INT64


def _of_fields(encoding: Encoding, names: tuple[str, ...]) -> Encoding:
    """The rules of some of the fields, in their order."""
    fields = tuple(each for each in encoding.schema.fields if each.name in names)
    schema = encoding.schema.model_copy(update={"fields": fields})
    return Encoding(schema, encoding.codecs, encoding.scales)
