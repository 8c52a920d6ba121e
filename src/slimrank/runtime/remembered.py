"""Single raw values encoded one by one, and remembered: what a request shares is often what another one shared.

A table of one row costs its encoding some 25 us a field, whatever the value; a value that was met lately costs one.
What is remembered is what the encoding of that value gave, so that there is no second rule for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.data.encoding import Encoding, Inputs
from slimrank.runtime.rows import as_table

MOST = 1 << 15  # values of all fields; the ones that were not met for longest go
LONGEST = 64  # characters of a value that is remembered, so that all of them are a few megabytes
ONE = {"categorical", "numeric"}  # kinds of fields that have one value a row

Counts = dict[str, int]
Found = tuple[NDArray[np.int32], NDArray[np.float32], Counts, Counts]


class Remembered:
    """The encoding of single rows."""

    def __init__(self, encoding: Encoding) -> None:
        self.fields = encoding.schema.fields
        schemas = {each.name: encoding.schema.model_copy(update={"fields": (each,)}) for each in self.fields}
        self._alone = {name: Encoding(schema, encoding.codecs, encoding.scales) for name, schema in schemas.items()}
        schema = encoding.schema
        self._order = [each.name for each in schema.looked_up], [each.name for each in schema.numeric]
        self._known = lru_cache(MOST)(self._typed)

    def encoded(self, row: Mapping[str, Any], names: frozenset[str]) -> tuple[Inputs, Counts, Counts]:
        """What `Encoding.encode_telling` gives of those fields of one raw row, in the schema's order.

        Raises:
            InputError: as `Encoding.encode_telling`, with the faults of all fields.
        """
        found: dict[str, Found] = {}
        faults = []
        for each in (field for field in self.fields if field.name in names):
            try:
                found[each.name] = self._value(each.name, each.kind, row)
            except InputError as error:
                faults.append(str(error))
        if faults:
            raise InputError("\n".join(faults))
        of_ids, of_numbers = self._order
        ids = [found[name][0] for name in of_ids if name in found] or [np.empty(0, np.int32)]
        numbers = [found[name][1] for name in of_numbers if name in found] or [np.empty(0, np.float32)]
        unknown = {name: count for each in found.values() for name, count in each[2].items()}
        shortened = {name: count for each in found.values() for name, count in each[3].items()}
        return Inputs(np.concatenate(ids)[None], np.concatenate(numbers)[None]), unknown, shortened

    def _value(self, name: str, kind: str, row: Mapping[str, Any]) -> Found:
        value = row[name]
        if kind in ONE and isinstance(value, str | int | float | None) and len(str(value)) <= LONGEST:
            of: Any = type(value)
            return self._known(name, of, value)  # 1, 1.0 and True are equal, and no longer so as text
        return self._encoded(name, row)

    def _typed(self, name: str, kind: type[Any], value: Any) -> Found:
        return self._encoded(name, {name: value})

    def _encoded(self, name: str, row: Mapping[str, Any]) -> Found:
        alone = self._alone[name]
        inputs, unknown, shortened = alone.encode_telling(as_table([row], alone.schema))
        return inputs.ids[0], inputs.numbers[0], unknown, shortened
