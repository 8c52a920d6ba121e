"""The index of faiss: codes of four bits, scanned in registers, and the first of them ordered by vectors of bytes.

Product codes of 4 bits whose sub-scores are looked up by shuffles of the processor (Andre et al. 2015, "Cache locality
is not enough"; faiss's IndexPQFastScan). What they say is coarse, so many more than k are taken and ordered by their
products as int8. Left out: inverted lists, which pay from some ten million items on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from slimrank.config import Config, register
from slimrank.data.ragged import Places
from slimrank.indexing import stored
from slimrank.indexing.codes import check_codes
from slimrank.indexing.faiss_library import load_faiss, one_thread
from slimrank.indexing.index import Arrays, Index, Vectors
from slimrank.indexing.sub_scores import product_index, train_codes, widened

BITS = 4
WIDE = 64  # dimensions from which a code stands for four of them: a bit for each


class FastScan(Config):
    """faiss: a fast scan of 4-bit product codes, and a re-rank by int8 vectors.

    Attributes:
        parts: codes an item has; by default one for every four dimensions, below 64 of them for every two.
        rerank: candidates for each of the k that are asked for.
    """

    name: Literal["faiss"] = "faiss"
    parts: int | None = Field(default=None, ge=1)
    rerank: int = Field(default=40, ge=1)


@register("index", FastScan)
class FastScanIndex(Index):
    """`codes` [C, bytes] and `entries` [parts, 16, width] for the scan, `vectors` [C, D] int8 and `scale` [D]."""

    TYPES: ClassVar = {"codes": "uint8", "entries": "float32", "vectors": "int8", "scale": "float32"}

    def __init__(self, config: FastScan, items: int, dim: int, arrays: Arrays):
        super().__init__(config, items, dim, arrays)
        self.rerank = config.rerank
        self.faiss = load_faiss("indices of kind 'faiss'")
        self.index = self.faiss.IndexPQFastScan(product_index(self.faiss, arrays["codes"], arrays["entries"]))

    @classmethod
    def build(cls, config: FastScan, vectors: Vectors) -> FastScanIndex:
        codes, entries = train_codes(vectors, _parts(config, vectors.shape[1]), BITS, "indices of kind 'faiss'")
        arrays: Arrays = {"codes": codes, "entries": entries, **stored.stored(vectors, "int8")}
        return cls(config, len(vectors), vectors.shape[1], arrays)

    @classmethod
    def of_arrays(cls, config: FastScan, items: int, dim: int, arrays: Arrays) -> FastScanIndex:
        check_codes(arrays, config.name, items, dim, _parts(config, dim), BITS)
        stored.check_stored(arrays, config.name, items, dim)
        return cls(config, items, dim, arrays)

    def candidates(self, queries: Vectors, k: int, spare: int) -> Iterator[Places]:
        wanted = min(self.rerank * k + spare, self.items)
        with one_thread(self.faiss):
            _, places = self.index.search(widened(queries, self.index.d), wanted)
        return (self._filled(row) for row in places)

    def _filled(self, found: Places) -> Places:
        """faiss leaves places open (-1) where all that it has not named have the lowest sub-scores that there are."""
        named = found[found >= 0]
        if len(named) == len(found):
            return found
        rest = np.setdiff1d(np.arange(self.items), named)
        return np.concatenate([named, rest[: len(found) - len(named)]])

    def vectors(self, places: Places) -> Vectors:
        return stored.restored(self.arrays, places)


def _parts(config: FastScan, dim: int) -> int:
    """Codes an item has: as asked, or one for every four dimensions, or two where there are few.

    >>> _parts(FastScan(), 50), _parts(FastScan(), 64), _parts(FastScan(), 384)
    (25, 16, 96)
    """
    if config.parts is not None:
        return min(config.parts, dim)
    return -(-dim // (4 if dim >= WIDE else 2))
