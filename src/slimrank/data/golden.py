"""Golden rows: a few made rows and what a graph answered to them when it was exported, as a manifest holds them.

Hashes prove that an artifact's bytes are those that were written. These rows prove that what a runtime makes of the
bytes, on its machine, is what was measured: whoever loads the artifact asks them again. The rows are drawn, not taken
from data, so that an artifact tells nothing of anybody. Left out: who asks a graph (`exporting`, `runtime`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from slimrank.config import Config, InputError
from slimrank.data.encoding import Inputs
from slimrank.data.schema import Field as Column
from slimrank.data.schema import Schema
from slimrank.data.tensors import DTYPES

ROWS = 8
FEWEST_ROWS = 2
MOST_IDS = 2048  # of all rows, so that a manifest stays small where a row is long
LONGEST = 16  # ids of a sequence or tokens of a text
NUMBERS = 8  # of a row of an output that is wider


class StoredTensor(Config):
    """A small array as text: numbers in C order with spaces between, floats as short as they read back the same."""

    dtype: str
    shape: tuple[NonNegativeInt, ...]
    values: str

    @classmethod
    def of(cls, array: NDArray[Any]) -> StoredTensor:
        """`array` written down; true is 1."""
        flat = array.astype(np.int8).ravel() if array.dtype == np.bool_ else array.ravel()
        return cls(dtype=array.dtype.name, shape=array.shape, values=" ".join(map(str, flat)))

    def array(self) -> NDArray[Any]:
        """The array that was written down.

        Raises:
            InputError: the text is not that of an array of this type and shape.
        """
        words = self.values.split()
        if self.dtype not in DTYPES or len(words) != math.prod(self.shape):
            raise InputError(f"{len(words)} values of type {self.dtype!r:.20} are no array {list(self.shape)}")
        kind = np.dtype(np.int8 if self.dtype == "bool" else self.dtype)
        try:
            flat = np.array([int(word) if kind.kind in "iu" else float(word) for word in words], kind)
        except (ValueError, OverflowError) as error:
            raise InputError(f"a value is not of type {self.dtype}: {error}") from None
        return flat.astype(self.dtype, copy=False).reshape(self.shape)


class Golden(Config):
    """The key `golden` of a manifest.

    Attributes:
        inputs: by name of the graph's input what it was asked.
        outputs: by name of the output what it answered (`sampled`).
        none: why there are no rows; empty where there are.
    """

    inputs: dict[str, StoredTensor] = Field(default_factory=dict)
    outputs: dict[str, StoredTensor] = Field(default_factory=dict)
    none: str = ""
    LATER: ClassVar = frozenset({"none"})

    @classmethod
    def of(cls, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> Golden:
        """What was asked and answered; none with a reason where an answer is no number."""
        sample = {name: sampled(array) for name, array in outputs.items()}
        for name, array in sample.items():
            if not np.isfinite(array).all():
                return cls(none=f"output {name!r} is NaN or infinite for made rows")
        stored = ({name: StoredTensor.of(each) for name, each in side.items()} for side in (inputs, sample))
        return cls(inputs=next(stored), outputs=next(stored))

    def short(self) -> dict[str, Any]:
        """For a person: how many rows, and the shapes of what is asked and answered."""
        if not self.inputs:
            return {"rows": 0, "none": self.none}
        sides = {"inputs": self.inputs, "outputs": self.outputs}
        shapes = {side: {name: list(each.shape) for name, each in found.items()} for side, found in sides.items()}
        return {"rows": max((each.shape[0] for each in self.outputs.values()), default=0), **shapes}


def sampled(output: NDArray[Any]) -> NDArray[Any]:
    """Of an output [N, ...] the first `ROWS` rows, and of each at most `NUMBERS` numbers, evenly spaced: [n, m].

    >>> sampled(np.arange(20).reshape(2, 10)).tolist()
    [[0, 1, 2, 3, 5, 6, 7, 9], [10, 11, 12, 13, 15, 16, 17, 19]]
    """
    rows = output.reshape(len(output), math.prod(output.shape[1:])) if output.ndim else output.reshape(1, 1)
    width = rows.shape[1]
    columns = np.unique(np.linspace(0, max(width - 1, 0), min(NUMBERS, width)).astype(np.int64))
    return rows[:ROWS, columns]


def made_rows(schema: Schema, sizes: Mapping[str, int], seed: int = 0) -> Inputs:
    """Rows that no one gave: ids drawn evenly from all of their field, numbers normal.

    The first row has the first id of every field (out of vocabulary, or nothing), the second one the last.

    Args:
        schema: the fields.
        sizes: by field the number of local ids.
        seed: of the drawing.

    Returns:
        `ROWS` rows, fewer where a row is long.
    """
    draw = np.random.default_rng(seed)
    rows = max(FEWEST_ROWS, min(ROWS, MOST_IDS // max(len(schema.columns), 1)))
    parts = [_made_ids(each, sizes[each.name], rows, draw) for each in schema.looked_up]
    ids = np.concatenate([np.zeros((rows, 0), np.int32), *parts], axis=1)
    numbers = draw.normal(size=(rows, len(schema.numeric))).round(3).astype(np.float32)
    return Inputs(ids, numbers)


def _made_ids(each: Column, size: int, rows: int, draw: np.random.Generator) -> NDArray[np.int32]:
    """Local ids [rows, 1] of a categorical field, [rows, max_length] of another with padding behind."""
    if each.kind == "categorical":
        ids = draw.integers(0, size, (rows, 1))
        ids[0], ids[1] = 0, size - 1
        return ids.astype(np.int32)
    shortest = 2 if each.kind == "text" else 0  # no text has fewer tokens than its two ends
    longest = min(each.max_length, LONGEST)
    lengths = draw.integers(min(shortest, longest), longest + 1, (rows, 1))
    lengths[0], lengths[1] = min(shortest, longest), longest
    ids = draw.integers(min(1, size - 1), size, (rows, each.max_length))
    ids[1] = size - 1
    return np.where(np.arange(each.max_length) < lengths, ids, 0).astype(np.int32)
