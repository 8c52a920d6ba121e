"""The first ten of many items for one query: kinds of index beside a flat product of floats, in turns, one thread.

Items are unit vectors of 64 numbers around centres, as encoders leave them: one centre to a hundred items, drawn from a
normal distribution; an item is its centre plus normal noise of .7 of its size, a query an item plus noise of .5, both
then of length 1. The share that is found and the time are measured on the same queries. Codes are compared with what
they stand for: a flat product with the decompressed vectors, of which they must find every item. Left out: many queries
at a time, where a flat product is a product of matrices.
"""

from __future__ import annotations

import time
from typing import Any

import faiss
import numpy as np

from slimrank.config import as_config
from slimrank.data.ragged import Places
from slimrank.evaluation.retrieval import Search, compare_searches
from slimrank.indexing.index import Index, Vectors, build_index

SIZES, DIM, K, QUERIES, SAMPLES = (100_000, 1_000_000), 64, 10, 500, 400
ITEMS_A_CENTRE, ITEM_NOISE, QUERY_NOISE = 100, 0.7, 0.5
KINDS: dict[str, dict[str, Any]] = {
    "faiss": {"name": "faiss"},
    "binary": {"name": "binary", "rerank": 40},
}
CODES = {"name": "codes", "parts": 8, "bits": 8}
FLAT = "flat float32"


def top_k(sizes: tuple[int, ...] = SIZES, samples: int = SAMPLES) -> dict[str, Any]:
    """For every number of items the kinds of index beside faiss's flat product, and codes beside decompressed ones."""
    faiss.omp_set_num_threads(1)
    return {
        "what": f"the first {K} of unit vectors of {DIM} numbers for one query, one thread: recall of the flat "
        "product's, and how many times faster (median over turns)",
        "shape": {"dim": DIM, "k": K, "queries": QUERIES, "items_a_centre": ITEMS_A_CENTRE},
        "noise": {"item": ITEM_NOISE, "query": QUERY_NOISE},
        "threads": 1,
        "kinds": {**KINDS, "codes": CODES},
        "items": {str(size): measured(size, samples) for size in sizes},
    }


def measured(size: int, samples: int) -> dict[str, Any]:
    """All kinds over one catalogue."""
    items, queries = drawn(size)
    indices, seconds = {}, {}
    for name, told in KINDS.items():
        begin = time.perf_counter()
        indices[name] = build_index(as_config("index", told), items)
        seconds[name] = time.perf_counter() - begin
    searches = {FLAT: flat(items), **{name: searching(index) for name, index in indices.items()}}
    found = compare_searches(searches, queries, K, samples)
    found[FLAT]["bytes"] = items.nbytes
    for name, index in indices.items():
        found[name] |= {"bytes": index.nbytes, "build_seconds": round(seconds[name], 2)}
    codes = build_index(as_config("index", CODES), items)
    whole = codes.vectors(np.arange(size))
    beside = compare_searches({"decompressed": flat(whole), "codes": searching(codes)}, queries, K, samples)
    beside["decompressed"]["bytes"], beside["codes"]["bytes"] = whole.nbytes, codes.nbytes
    return {"searches": found, "codes": beside}


def drawn(size: int) -> tuple[Vectors, Vectors]:
    """Items [size, 64] and queries [500, 64], as the head of this file says."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((size // ITEMS_A_CENTRE, DIM), np.float32)
    items = centres[draw.integers(0, len(centres), size)]
    items += ITEM_NOISE * draw.standard_normal((size, DIM), np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    noise = draw.standard_normal((QUERIES, DIM), np.float32) / np.float32(DIM**0.5)
    queries = items[draw.choice(size, QUERIES, replace=False)] + QUERY_NOISE * noise
    return items, queries / np.linalg.norm(queries, axis=1, keepdims=True)


def flat(items: Vectors) -> Search:
    """faiss's flat inner products."""
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)

    def search(queries: Vectors, k: int) -> Places:
        return np.asarray(index.search(queries, k)[1])

    return search


def searching(index: Index) -> Search:
    return lambda queries, k: index.search(queries, k)[0]
