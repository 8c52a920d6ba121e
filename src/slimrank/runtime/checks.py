"""What may enter a session: types, shapes, ids and numbers are checked before it, in one pass over the batch.

Runtimes differ in what an id outside its table does (-1 reads the last row in ONNX Runtime, others return zeros),
and a NaN spreads silently; here both are errors that name the field, the row, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.data.encoding import Inputs
from slimrank.data.schema import Schema

NAMED_FIELDS = 10  # how many faulty columns one message lists


@dataclass(frozen=True)
class Checks:
    """The inputs that one model takes.

    Attributes:
        columns: the field behind each of the K columns of `ids`.
        limits: uint32 [K], the number of local ids of each column.
        numbers: the field behind each of the M columns of `numbers`.
    """

    columns: tuple[str, ...]
    limits: NDArray[np.uint32]
    numbers: tuple[str, ...]

    @classmethod
    def of(cls, schema: Schema, sizes: Mapping[str, int]) -> Checks:
        """The checks for a schema, with the number of local ids by field."""
        limits = np.array([sizes[name] for name in schema.columns], np.uint32)
        return cls(schema.columns, limits, tuple(field.name for field in schema.numeric))

    def __call__(self, inputs: Inputs) -> None:
        """Return if a session may see `inputs`.

        Raises:
            InputError: wrong type or shape; else every field with an id out of range or a number not finite.
        """
        ids, numbers = inputs.ids, inputs.numbers
        faults = _form("ids", ids, np.int32, len(self.columns)) + _form(
            "numbers", numbers, np.float32, len(self.numbers)
        )
        if not faults and len(ids) != len(numbers):
            faults = [f"ids have {len(ids)} rows and numbers {len(numbers)}; they must be the same rows"]
        if not faults:
            faults = self._ids(ids) + self._numbers(numbers)
        if faults:
            raise InputError("\n".join(faults))

    def _ids(self, ids: NDArray[np.int32]) -> list[str]:
        wrong = ids.view(np.uint32) >= self.limits  # a negative id is a huge unsigned one
        if not wrong.any():
            return []
        faults = []
        for column in np.flatnonzero(wrong.any(axis=0)):
            row = int(wrong[:, column].argmax())
            faults.append(
                f"field {self.columns[column]!r} (column {column} of ids): id {ids[row, column]} in row {row} is out "
                f"of range, allowed 0..{self.limits[column] - 1}; {wrong[:, column].sum()} of {len(ids)} rows are"
            )
        return _shortened(faults)

    def _numbers(self, numbers: NDArray[np.float32]) -> list[str]:
        if np.isfinite(numbers).all():
            return []
        nans, infinities = np.isnan(numbers).sum(axis=0), np.isinf(numbers).sum(axis=0)
        faults = []
        for column in np.flatnonzero(nans + infinities):
            row = int((~np.isfinite(numbers[:, column])).argmax())
            faults.append(
                f"field {self.numbers[column]!r} (column {column} of numbers): {nans[column]} NaN and "
                f"{infinities[column]} infinite of {len(numbers)} values, the first in row {row}; allowed: finite"
            )
        return _shortened(faults)


def _form(name: str, array: Any, dtype: type[np.generic], width: int) -> list[str]:
    if not isinstance(array, np.ndarray):
        return [f"{name}: a {type(array).__name__}, not a numpy array"]
    if array.dtype != dtype:
        return [f"{name}: type {array.dtype}, must be {np.dtype(dtype)}"]
    if array.ndim != 2 or array.shape[1] != width:
        return [f"{name}: shape {list(array.shape)}, must be [rows, {width}]"]
    return []


def _shortened(faults: list[str]) -> list[str]:
    more = len(faults) - NAMED_FIELDS
    return faults[:NAMED_FIELDS] + ([f"and {more} more columns"] if more > 0 else [])
