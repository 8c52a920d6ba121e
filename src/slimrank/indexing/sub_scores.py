"""Scoring of codes by sub-score lookup: products with the entries of codebooks, and for an item the sum of its own.

A query has parts * 2**bits products with entries, however many items there are; an item's product is the sum of `parts`
of them, looked up by its codes (PQTopK, Petrov and Macdonald 2024, arXiv 2408.09992; Jegou et al. 2011). No item's
vector is made. By faiss where it is installed and the catalogue is large, else by numpy; what comes out is the same.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.data.ragged import Places
from slimrank.indexing.faiss_library import load_faiss, one_thread
from slimrank.indexing.heads import CHUNK, heads
from slimrank.indexing.index import Vectors

Codes = NDArray[np.uint8]
SMALL = 1 << 16  # items up to which numpy needs no longer than it takes to import faiss once
MORE = 32  # items that faiss is asked for beyond the wanted ones, so that the last is surely too low


class SubScores:
    """Items as `codes` [C, bytes], packed as `pack_codes` does, of `entries` [parts, 2**bits, width] float32."""

    def __init__(self, codes: Codes, entries: Vectors):
        self.items = len(codes)
        self.entries = entries
        parts, count, width = entries.shape
        self.dim = parts * width
        bits = count.bit_length() - 1
        self.faiss = None
        if self.items > SMALL and importlib.util.find_spec("faiss"):
            self.faiss = load_faiss("sub-scores")
            self.index = product_index(self.faiss, codes, entries)
        else:
            self.codes = np.ascontiguousarray(unpack_codes(codes, parts, bits).T)  # [parts, C]

    def best(self, queries: Vectors, wanted: int, slack: NDArray[np.float64]) -> Iterator[Places]:
        """For each of `queries` [n, D] the items whose product is within `slack` [n] of its `wanted`-th.

        D may be below parts * width: what lacks is 0.
        """
        padded = widened(queries, self.dim)
        if self.faiss is not None:
            yield from self._by_faiss(self.faiss, padded, wanted, slack)
            return
        size = max(1, CHUNK // self.items)
        for start in range(0, len(padded), size):
            yield from heads(self.products(padded[start : start + size]), wanted, slack[start : start + size])

    def products(self, queries: Vectors) -> Vectors:
        """[n, C] products of queries [n, parts * width] with all items, by numpy."""
        parts, _, width = self.entries.shape
        cut = queries.reshape(len(queries), parts, width).transpose(1, 0, 2)
        tables = cut @ self.entries.transpose(0, 2, 1)  # [parts, n, 2**bits]
        found = np.zeros((len(queries), self.items), np.float32)
        for table, codes in zip(tables, self.codes, strict=True):
            found += np.take(table, codes, axis=1)
        return found

    def _by_faiss(self, faiss: Any, queries: Vectors, wanted: int, slack: NDArray[np.float64]) -> Iterator[Places]:
        """Ask for a few more than wanted, and again for more, until the last of them is surely too low."""
        size = min(wanted + MORE, self.items)
        with one_thread(faiss):
            products, places = self.index.search(queries, size)
        for row in range(len(queries)):
            own, found, asked = products[row], places[row], size
            while asked < self.items and own[-1] >= own[wanted - 1] - slack[row]:
                asked = min(4 * asked, self.items)
                with one_thread(faiss):
                    own, found = (each[0] for each in self.index.search(queries[row : row + 1], asked))
            yield found[own >= own[wanted - 1] - slack[row]]


def product_index(faiss: Any, codes: Codes, entries: Vectors) -> Any:
    """The index of faiss that holds these codes and entries: inner products, nothing trained."""
    parts, count, width = entries.shape
    index = faiss.IndexPQ(parts * width, parts, count.bit_length() - 1, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.ascontiguousarray(entries).ravel(), index.pq.centroids)
    faiss.copy_array_to_vector(np.ascontiguousarray(codes).ravel(), index.codes)
    index.ntotal, index.is_trained = len(codes), True
    return index


def pack_codes(codes: Codes, bits: int) -> Codes:
    """`codes` [C, parts], each below 2**bits, into whole bytes from their low bits on, as faiss has them.

    >>> pack_codes(np.array([[1, 2, 3]], np.uint8), 4).tolist()
    [[33, 3]]
    """
    each = 8 // bits
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % each))).reshape(len(codes), -1, each)
    shifts = (np.arange(each) * bits).astype(np.uint8)
    return np.asarray(np.bitwise_or.reduce(padded << shifts, axis=2), dtype=np.uint8)


def unpack_codes(packed: Codes, parts: int, bits: int) -> Codes:
    """[n, parts] what `pack_codes` packed."""
    shifts = (np.arange(8 // bits) * bits).astype(np.uint8)
    each = packed[:, :, None] >> shifts & (2**bits - 1)
    return np.asarray(each.reshape(len(packed), packed.shape[1] * len(shifts))[:, :parts])


def decoded(codes: Codes, entries: Vectors, dim: int) -> Vectors:
    """[n, dim] the vectors that unpacked `codes` [n, parts] put together of `entries`."""
    found: Vectors = entries[np.arange(len(entries)), codes]
    return found.reshape(len(codes), entries.shape[0] * entries.shape[2])[:, :dim]


def widened(vectors: Vectors, dim: int) -> Vectors:
    """`vectors` with 0 appended up to `dim` numbers."""
    lacking = dim - vectors.shape[1]
    return np.pad(vectors, ((0, 0), (0, lacking))) if lacking else vectors


def train_codes(vectors: Vectors, parts: int, bits: int, what: str) -> tuple[Codes, Vectors]:
    """Codes [C, bytes], packed, and entries [parts, 2**bits, width]: the means of each part by faiss's k-means.

    Where the vectors do not divide into the parts, 0 is appended. Up to 2**bits vectors are the entries, exactly.

    Raises:
        InputError: faiss is not installed, for `what`.
    """
    width = -(-vectors.shape[1] // parts)
    padded = widened(vectors, parts * width)
    if len(vectors) <= 2**bits:
        entries = np.zeros((parts, 2**bits, width), np.float32)
        entries[:, : len(vectors)] = padded.reshape(len(vectors), parts, width).transpose(1, 0, 2)
        own = np.arange(len(vectors), dtype=np.uint8)[:, None]
        return pack_codes(np.repeat(own, parts, axis=1), bits), entries
    faiss = load_faiss(what)
    quantizer = faiss.ProductQuantizer(parts * width, parts, bits)
    quantizer.cp.min_points_per_centroid, quantizer.cp.max_points_per_centroid = 1, 512
    with one_thread(faiss):
        quantizer.train(padded)
        codes = quantizer.compute_codes(padded)
    return codes, faiss.vector_to_array(quantizer.centroids).reshape(parts, 2**bits, width)
