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
MOST = 1 << 15  # values of all fields that are remembered: some ten megabytes
LONGEST = 64  # characters of one that is
UNKNOWN = -1  # in the place of the id of a value that the vocabulary does not hold
ID_TYPES = {int, str, bool, type(None)}  # of equal values of these, such as 1 and True, the ids are equal
NUMBER_TYPES = {int, float}

Columns = Mapping[str, Sequence[Any]]
Counts = dict[str, int]
Ids = dict[Any, int]


class RowEncoder:
    """The encoding of raw rows in whichever form they come. Safe to use from several threads at once."""

    def __init__(self, encoding: Encoding, known: dict[str, Ids] | None = None) -> None:
        """`known` are ids by field and value, of another encoder of the same rules; both remember in it."""
        self.encoding = encoding
        fields = encoding.schema.categorical
        self._known: dict[str, Ids] = {each.name: {} for each in fields} if known is None else known
        # A column of many values is not met again whole where a field has more values than are remembered.
        self._narrow = {each.name for each in fields if encoding.sizes[each.name] <= MOST // 2}
        self._inputs = encoding.schema.inputs
        self._counted = tuple(each.name for each in encoding.schema.fields if each.kind in ("categorical", "sequence"))
        self._rest = lru_cache(64)(partial(_of_fields, encoding))

    def part(self, fields: Sequence[Field]) -> RowEncoder:
        """The encoder of some of the fields, which remembers what this one does."""
        return RowEncoder(_of_fields(self.encoding, tuple(each.name for each in fields)), self._known)

    def __call__(self, rows: Rows) -> tuple[Inputs, Counts, Counts]:
        """What `Encoding.encode_telling` gives of these rows.

        Raises:
            InputError: as `as_table` and `Encoding.encode_telling`.
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
                self._remember(each.name, columns[each.name], ids.tolist(), unknown[each.name])
            elif ids.size and ids.min() < 0:
                unknown[each.name] = int(np.count_nonzero(ids < 0))
                arrays[each.name] = np.maximum(ids, 0)
        inputs = self.encoding.joined(arrays, len(next(iter(columns.values()), ())))
        return inputs, {name: unknown.get(name, 0) for name in self._counted}, shortened

    def _looked_up(self, each: Field, column: Sequence[Any]) -> NDArray[Any] | None:
        """A column of values that are all remembered, or of plain numbers; None of any other."""
        try:
            if each.kind == "numeric" and set(map(type, column)) <= NUMBER_TYPES:
                return scaled_numbers(np.array(column, np.float64), each, self.encoding.scales[each.name])
            if each.name in self._known and self._returns(each.name, column) and set(map(type, column)) <= ID_TYPES:
                return np.fromiter(map(self._known[each.name].__getitem__, column), np.int32, len(column))
        except (KeyError, OverflowError):
            return None
        return None

    def _returns(self, name: str, column: Sequence[Any]) -> bool:
        return len(column) == 1 or name in self._narrow

    def _remember(self, name: str, column: Sequence[Any], ids: list[int], unknown: int) -> None:
        if not self._returns(name, column):
            return
        if unknown:  # then all that are not missing and have no id
            ids = [UNKNOWN if not id and value is not None else id for value, id in zip(column, ids, strict=True)]
        if sum(map(len, self._known.values())) + len(column) > MOST:
            max(self._known.values(), key=len).clear()
        self._known[name].update((value, id) for value, id in zip(column, ids, strict=True) if _plain(value))


def _plain(value: Any) -> bool:
    """Whether a value is of a type, and of a size, that is remembered."""
    kind = type(value)
    return len(value) <= LONGEST if kind is str else kind in ID_TYPES and (value is None or value in INT64)


def _of_fields(encoding: Encoding, names: tuple[str, ...]) -> Encoding:
    """The rules of some of the fields, in their order."""
    fields = tuple(each for each in encoding.schema.fields if each.name in names)
    schema = encoding.schema.model_copy(update={"fields": fields})
    return Encoding(schema, encoding.codecs, encoding.scales)
