"""The index of codes: items put together of entries of codebooks, scored without ever being put together.

It takes the codes of a table that was compressed so (`CodesIndex.of_codes`), or trains some. The first k are those of
scoring the decompressed vectors, product for product: an approximation of the vectors, none of the search.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from slimrank.config import Config, InputError, register
from slimrank.data.ragged import Places
from slimrank.indexing.heads import slack_of
from slimrank.indexing.index import Arrays, Index, Vectors, fit
from slimrank.indexing.sub_scores import Codes, SubScores, decoded, pack_codes, train_codes, unpack_codes


class CodeIndex(Config):
    """Items as codes of entries of codebooks, scored by sub-score lookup.

    Attributes:
        parts: codes an item has; vectors are cut into as many parts of consecutive dimensions.
        bits: of a code.
    """

    name: Literal["codes"] = "codes"
    parts: int = Field(default=8, ge=1)
    bits: Literal[2, 4, 8] = 8


@register("index", CodeIndex)
class CodesIndex(Index):
    """`codes` [C, bytes] packed, `entries` [parts, 2**bits, width] float32, or int8 times `step` [1]."""

    TYPES: ClassVar = {"codes": "uint8", "entries": "float32 int8", "step": "float32"}

    def __init__(self, config: CodeIndex, items: int, dim: int, arrays: Arrays):
        super().__init__(config, items, dim, arrays)
        self.parts, self.bits = config.parts, config.bits
        entries = arrays["entries"].astype(np.float32)
        self.entries: Vectors = entries * arrays["step"] if "step" in arrays else entries
        self.scores = SubScores(arrays["codes"], self.entries)
        squares = np.einsum("pew,pew->pe", self.entries, self.entries, dtype=np.float64)
        self.longest = float(np.sqrt(squares.max(axis=1).sum()))

    @classmethod
    def build(cls, config: CodeIndex, vectors: Vectors) -> CodesIndex:
        if config.parts > vectors.shape[1]:
            raise InputError(f"index codes: {config.parts} parts of vectors of {vectors.shape[1]} numbers")
        codes, entries = train_codes(vectors, config.parts, config.bits, "codes")
        return cls(config, len(vectors), vectors.shape[1], {"codes": codes, "entries": entries})

    @classmethod
    def of_codes(cls, codes: Codes, entries: NDArray[np.float32 | np.int8], step: float | None = None) -> CodesIndex:
        """From `codes` [C, parts], each below 2**bits, of `entries` [parts, 2**bits, width]: float32, or int8 * `step`.

        Raises:
            InputError: they do not go together, or there are not 4, 16 or 256 entries.
        """
        count = entries.shape[1] if entries.ndim == 3 else 0
        fit(count in (4, 16, 256), "codes", f"entries must be [parts, 4, 16 or 256, width], got {list(entries.shape)}")
        fit(codes.ndim == 2 and codes.shape[1] == len(entries), "codes", f"codes must be [items, {len(entries)}]")
        fit(bool((codes < count).all()), "codes", f"a code is not below {count}")
        config = CodeIndex.parse({"parts": len(entries), "bits": count.bit_length() - 1})
        arrays: dict[str, NDArray[np.generic]] = {"codes": pack_codes(codes, config.bits), "entries": entries}
        if step is not None:
            arrays["step"] = np.array([step], np.float32)
        return cls.of_arrays(config, len(codes), len(entries) * entries.shape[2], arrays)

    @classmethod
    def of_arrays(cls, config: CodeIndex, items: int, dim: int, arrays: Arrays) -> CodesIndex:
        check_codes(arrays, config.name, items, dim, config.parts, config.bits)
        bytewise = arrays["entries"].dtype == np.int8
        fit(bytewise == ("step" in arrays), config.name, "entries that are bytes have a step, floats have none")
        step = arrays.get("step", np.ones(1))
        fit(step.shape == (1,) and bool(np.isfinite(step).all()), config.name, "step must be one finite number")
        return cls(config, items, dim, arrays)

    def candidates(self, queries: Vectors, k: int, spare: int) -> Iterator[Places]:
        slack = slack_of(queries, self.longest, self.dim + self.parts)
        return self.scores.best(queries, min(k + spare, self.items), slack)

    def vectors(self, places: Places) -> Vectors:
        return decoded(unpack_codes(self.arrays["codes"][places], self.parts, self.bits), self.entries, self.dim)


def check_codes(arrays: Arrays, kind: str, items: int, dim: int, parts: int, bits: int) -> None:
    """Raises `InputError` where `codes` and `entries` are not those of `items` vectors of `dim` numbers."""
    width = -(-dim // parts)
    wanted = {"codes": (items, -(-parts * bits // 8)), "entries": (parts, 2**bits, width)}
    for name, shape in wanted.items():
        fit(name in arrays and arrays[name].shape == shape, kind, f"{name} must be {list(shape)}")
    entries = arrays["entries"]
    fit(entries.dtype == np.int8 or bool(np.isfinite(entries).all()), kind, "an entry is NaN or infinite")
