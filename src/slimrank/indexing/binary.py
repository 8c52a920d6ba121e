"""The index of signs: one bit a dimension to find candidates, bytes to order them. For vectors of text encoders.

The query stays as it is: an item's product is that of the query with the item's signs, which tells more than the number
of signs in common (Dong et al. 2008, "Asymmetric distance estimation with sketches"). Signs are codes of eight
dimensions whose entries are all rows of -1 and 1, so they are scored by sub-score lookup.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from slimrank.config import Config, register
from slimrank.data.ragged import Places
from slimrank.indexing.index import Arrays, Index, Vectors, fit
from slimrank.indexing.stored import check_stored, restored, stored
from slimrank.indexing.sub_scores import SubScores


class Binary(Config):
    """Signs of the dimensions, and a re-rank by int8 vectors.

    Attributes:
        rerank: candidates for each of the k that are asked for.
    """

    name: Literal["binary"] = "binary"
    rerank: int = Field(default=10, ge=1)


@register("index", Binary)
class BinaryIndex(Index):
    """`signs` [C, D / 8] uint8, the first dimension lowest, for the scan; `vectors` [C, D] int8 and `scale` [D]."""

    TYPES: ClassVar = {"signs": "uint8", "vectors": "int8", "scale": "float32"}

    def __init__(self, config: Binary, items: int, dim: int, arrays: Arrays):
        super().__init__(config, items, dim, arrays)
        self.rerank = config.rerank
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
        signs = 2 * bits.astype(np.float32) - 1
        self.scores = SubScores(arrays["signs"], np.tile(signs, (arrays["signs"].shape[1], 1, 1)))

    @classmethod
    def build(cls, config: Binary, vectors: Vectors) -> BinaryIndex:
        signs = np.packbits(vectors > 0, axis=1, bitorder="little")
        return cls(config, len(vectors), vectors.shape[1], {"signs": signs, **stored(vectors, "int8")})

    @classmethod
    def of_arrays(cls, config: Binary, items: int, dim: int, arrays: Arrays) -> BinaryIndex:
        shape = (items, -(-dim // 8))
        fit("signs" in arrays and arrays["signs"].shape == shape, config.name, f"signs must be {list(shape)}")
        check_stored(arrays, config.name, items, dim)
        return cls(config, items, dim, arrays)

    def candidates(self, queries: Vectors, k: int, spare: int) -> Iterator[Places]:
        wanted = min(self.rerank * k + spare, self.items)
        return self.scores.best(queries, wanted, np.zeros(len(queries)))

    def vectors(self, places: Places) -> Vectors:
        return restored(self.arrays, places)
