"""The exact index: every item's product is computed. The reference for all others, and enough for small catalogues.

Exact with respect to what is stored: float32 as it was given, float16 and int8 as they are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from slimrank.config import Config, register
from slimrank.data.ragged import Places
from slimrank.indexing.heads import CHUNK, heads, slack_of
from slimrank.indexing.index import Arrays, Index, Vectors
from slimrank.indexing.stored import TYPES, ScaleOf, Stored, check_stored, longest, restored, stored

ROWS = 1 << 16  # items that are turned into float32 at a time


class Exact(Config):
    """Every item is compared.

    Attributes:
        values: how vectors are stored.
        scale: of bytes, one for each dimension or one for each vector.
    """

    name: Literal["exact"] = "exact"
    values: Stored = "float32"
    scale: ScaleOf = "dimension"


@register("index", Exact)
class ExactIndex(Index):
    """`vectors` [C, D], and of bytes their `scale`."""

    TYPES: ClassVar = TYPES

    def __init__(self, config: Exact, items: int, dim: int, arrays: Arrays):
        super().__init__(config, items, dim, arrays)
        self.scale_of = config.scale
        self.longest = longest(arrays, config.scale, ROWS)

    @classmethod
    def build(cls, config: Exact, vectors: Vectors) -> ExactIndex:
        return cls(config, len(vectors), vectors.shape[1], stored(vectors, config.values, config.scale))

    @classmethod
    def of_arrays(cls, config: Exact, items: int, dim: int, arrays: Arrays) -> ExactIndex:
        check_stored(arrays, config.name, items, dim, config.scale)
        return cls(config, items, dim, arrays)

    def candidates(self, queries: Vectors, k: int, spare: int) -> Iterator[Places]:
        wanted = min(k + spare, self.items)
        slack = slack_of(queries, self.longest, self.dim)
        size = max(1, CHUNK // self.items)
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            yield from heads(self.products(part), wanted, slack[start : start + size])

    def products(self, queries: Vectors) -> Vectors:
        """[n, C] products with all items, in float32."""
        found = np.empty((len(queries), self.items), np.float32)
        rows = self.items if self.arrays["vectors"].dtype == np.float32 else ROWS
        for start in range(0, self.items, rows):
            part = restored(self.arrays, slice(start, start + rows), self.scale_of)
            np.matmul(queries, part.T, out=found[:, start : start + rows])
        return found

    def vectors(self, places: Places) -> Vectors:
        return restored(self.arrays, places, self.scale_of)
