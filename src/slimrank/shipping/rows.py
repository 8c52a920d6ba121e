"""Which row of an old table a row of the new one goes on from: that of the same value of the same field.

A vocabulary grows from day to day, and all fields share one table, so that a value more in the first of them moves the
rows of all others. Rows of no value (padding, out of vocabulary, buckets of a hash) keep their place in their field.
Left out: tables whose rows are no field's, which go on row by row from the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.data.schema import Schema
from slimrank.data.stored import SCHEMA_FILE, VOCABULARY_FILE, read_schema, read_vocabulary
from slimrank.shipping.tensors import Range

NONE = -1  # a row that the old table has not


@dataclass(frozen=True)
class Ids:
    """The local ids of two encodings.

    Attributes:
        old, new: how many there are, by field, in the order in which fields share a table.
        origins: by field [new] the old local id that is the same, or `NONE`.
    """

    old: Mapping[str, int]
    new: Mapping[str, int]
    origins: Mapping[str, NDArray[np.int64]]

    @classmethod
    def of(cls, old: Path, new: Path) -> Ids:
        """Those of the artifacts in two directories; without any where one of them has no rows, or none we read."""
        try:
            first, (before, after) = _first_values(new), (read_schema(each / SCHEMA_FILE) for each in (old, new))
            known_sizes, sizes = _sizes(before), _sizes(after)
            values_before, values_after = (read_vocabulary(each / VOCABULARY_FILE) for each in (old, new))
        except InputError:
            return cls({}, {}, {})
        origins = {}
        for name, size in sizes.items():
            known = known_sizes.get(name, 0)
            same = np.arange(size)
            same[known:] = NONE
            start = first.get(name, 0)
            if name in values_before and name in values_after and len(values_after[name]) == size - start:
                places = {value: start + at for at, value in enumerate(values_before[name].to_list())}
                same[start:] = [places.get(value, NONE) for value in values_after[name].to_list()]
            same[same >= known] = NONE
            origins[name] = same
        return cls(known_sizes, sizes, origins)

    def origin(self, old: int, new: int) -> NDArray[np.int64]:
        """[new] the row of an old table of `old` rows that each of a new one of `new` goes on from, or `NONE`."""
        if self.new and (sum(self.old.values()), sum(self.new.values())) == (old, new) and [*self.old] == [*self.new]:
            starts = np.cumsum([0, *self.old.values()])
            parts = zip(self.origins.values(), starts.tolist(), strict=False)
            return np.concatenate([np.where(each == NONE, NONE, each + start) for each, start in parts])
        for name, size in self.new.items():
            if (self.old.get(name), size) == (old, new):
                return self.origins[name]
        return np.where(np.arange(new) < old, np.arange(new), NONE)


def _sizes(record: Mapping[str, Any]) -> dict[str, int]:
    """How many local ids each field has."""
    sizes = record["sizes"]
    if not all(type(size) is int and size >= 0 for size in sizes.values()):
        raise InputError(f"{SCHEMA_FILE}: sizes that are none")
    return dict(sizes)


def _first_values(folder: Path) -> dict[str, int]:
    """The local id of the first value of each field."""
    schema = Schema.parse(read_schema(folder / SCHEMA_FILE)["schema"], f"{folder / SCHEMA_FILE}: schema")
    return {each.name: each.first_value for each in schema.fields}


def aligned(numbers: bytes, old: Range, new: Range, ids: Ids) -> bytes | None:
    """The old numbers as what a constant goes on from: as many as the new one has; None where nothing is alike."""
    if old.item_bytes != new.item_bytes or len(old.shape) != len(new.shape):
        return None
    if not new.shape or 0 in (old.shape[0], new.shape[0]):
        return numbers if old.length == new.length else None
    (before, odd_before), (after, odd) = divmod(old.length, old.shape[0]), divmod(new.length, new.shape[0])
    if odd or odd_before or before != after:
        return numbers if old.length == new.length else None
    origin = ids.origin(old.shape[0], new.shape[0])
    if np.array_equal(origin, np.arange(old.shape[0])):
        return numbers
    rows = np.zeros((new.shape[0], after), np.uint8)
    known = origin != NONE
    rows[known] = np.frombuffer(numbers, np.uint8).reshape(old.shape[0], before)[origin[known]]
    return rows.tobytes()


def forerunner(new: Range, known: list[Range]) -> Range | None:
    """The old constant that a new one goes on from: that of its name, else the only one of its shape."""
    for each in known:
        if each.name == new.name:
            return each
    alike = [each for each in known if (each.item_bytes, each.shape) == (new.item_bytes, new.shape)]
    return alike[0] if len(alike) == 1 else None
