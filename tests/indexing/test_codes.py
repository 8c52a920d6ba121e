"""Sub-score lookup: from arithmetic, by faiss and by numpy, and exactly what the decompressed vectors give."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from slimrank.config import InputError
from slimrank.data.ragged import Ragged
from slimrank.indexing import sub_scores
from slimrank.indexing.binary import Binary
from slimrank.indexing.codes import CodeIndex, CodesIndex
from slimrank.indexing.exact import Exact
from slimrank.indexing.index import build_index, open_index
from slimrank.indexing.sub_scores import SubScores, decoded, pack_codes, product_index, train_codes, unpack_codes


def coded(bits: int, parts: int, items: int = 500, width: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    entries = draw.normal(size=(parts, 2**bits, width)).astype(np.float32)
    return draw.integers(0, 2**bits, (items, parts)).astype(np.uint8), entries


def test_a_product_is_the_sum_of_looked_up_sub_scores() -> None:
    entries = np.array([[[1], [2], [3], [4]], [[10], [20], [30], [40]]], np.float32)
    index = CodesIndex.of_codes(np.array([[0, 3], [3, 0], [2, 2]], np.uint8), entries)
    places, products = index.search(np.array([[1.0, 1.0], [1.0, -1.0]]), 3)
    assert places.tolist() == [[0, 2, 1], [1, 2, 0]]
    assert products.tolist() == [[41, 33, 14], [-6, -27, -39]]
    assert index.nbytes == 3 * 1 + 8 * 4


@pytest.mark.parametrize("engine", ["numpy", "faiss"])
@pytest.mark.parametrize(("bits", "parts"), [(8, 4), (4, 4), (4, 5), (2, 3)])
def test_the_first_k_are_exactly_those_of_decompressed_scoring(
    monkeypatch: pytest.MonkeyPatch, engine: str, bits: int, parts: int
) -> None:
    monkeypatch.setattr(sub_scores, "SMALL", 0 if engine == "faiss" else 1 << 30)
    codes, entries = coded(bits, parts)
    index = CodesIndex.of_codes(codes, entries)
    assert (index.scores.faiss is not None) == (engine == "faiss")
    whole = build_index(Exact(), decoded(codes, entries, index.dim))
    queries = np.random.default_rng(1).normal(size=(40, index.dim)).astype(np.float32)
    out = Ragged.of([np.arange(row) for row in range(40)])
    for k, left_out in ((1, None), (10, None), (10, out), (500, None)):
        ours, theirs = index.search(queries, k, left_out), whole.search(queries, k, left_out)
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


def test_signs_are_found_alike_by_numpy_and_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(800, 19)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(20, 19)).astype(np.float32)
    found = []
    for small in (0, 1 << 30):
        monkeypatch.setattr(sub_scores, "SMALL", small)
        index = build_index(Binary(rerank=3), vectors)
        found.append(index.search(queries, 10)[0])
    np.testing.assert_array_equal(found[0], found[1])
    signs = queries @ np.where(vectors > 0, 1, -1).T.astype(np.float32)
    candidates = next(iter(index.candidates(queries[:1], 10, 0)))
    assert set(candidates) == set(np.argsort(-signs[0])[:30])


@pytest.mark.parametrize(("bits", "parts"), [(8, 3), (4, 4), (4, 3), (2, 5)])
def test_packed_codes_are_those_of_faiss(bits: int, parts: int) -> None:
    codes, entries = coded(bits, parts)
    packed = pack_codes(codes, bits)
    np.testing.assert_array_equal(unpack_codes(packed, parts, bits), codes)
    index = product_index(faiss, packed, entries)
    np.testing.assert_array_equal(index.reconstruct_n(0, len(codes)), decoded(codes, entries, parts * 3))


def test_products_in_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, entries = coded(8, 4)
    scores, queries = SubScores(codes, entries), np.random.default_rng(1).normal(size=(9, 12)).astype(np.float32)
    whole = [head.tolist() for head in scores.best(queries, 5, np.zeros(9))]
    monkeypatch.setattr(sub_scores, "CHUNK", 1000)
    assert [head.tolist() for head in scores.best(queries, 5, np.zeros(9))] == whole


def test_trained_codes_leave_little_error_and_nothing_of_few_vectors() -> None:
    vectors = np.random.default_rng(0).normal(size=(400, 7)).astype(np.float32)
    for parts, bits, most in ((4, 8, 0.05), (4, 4, 0.35)):
        packed, entries = train_codes(vectors, parts, bits, "codes")
        gap = vectors - decoded(unpack_codes(packed, parts, bits), entries, 7)
        assert (gap**2).mean() < most * (vectors**2).mean()
    few = vectors[:10]
    packed, entries = train_codes(few, 4, 4, "codes")
    np.testing.assert_allclose(decoded(unpack_codes(packed, 4, 4), entries, 7), few, atol=1e-6)


def test_bytes_of_entries_are_kept_as_bytes(tmp_path: Path) -> None:
    codes, entries = coded(4, 4)
    whole = np.clip(np.rint(entries * 40), -127, 127).astype(np.int8)
    index = CodesIndex.of_codes(codes, whole, step=1 / 40)
    assert index.nbytes == 500 * 2 + 4 * 16 * 3 + 4
    for name, content in index.files().items():
        (tmp_path / name).write_bytes(content)
    query = np.ones((1, 12), np.float32)
    other = build_index(Exact(), decoded(codes, whole.astype(np.float32) * np.float32(1 / 40), 12))
    for opened in (index, open_index(index.record(), tmp_path)):
        np.testing.assert_array_equal(opened.search(query, 20)[0], other.search(query, 20)[0])


@pytest.mark.parametrize(
    ("codes", "entries", "step", "message"),
    [
        (np.zeros((3, 2), np.uint8), np.zeros((2, 5, 1), np.float32), None, "4, 16 or 256"),
        (np.zeros((3, 2), np.uint8), np.zeros((3, 4, 1), np.float32), None, r"codes must be \[items, 3\]"),
        (np.full((3, 2), 4, np.uint8), np.zeros((2, 4, 1), np.float32), None, "a code is not below 4"),
        (np.zeros((3, 2), np.uint8), np.full((2, 4, 1), np.nan, np.float32), None, "an entry is NaN"),
        (np.zeros((3, 2), np.uint8), np.zeros((2, 4, 1), np.float32), 0.5, "floats have none"),
        (np.zeros((3, 2), np.uint8), np.zeros((2, 4, 1), np.int8), None, "bytes have a step"),
        (np.zeros((3, 2), np.uint8), np.zeros((2, 4, 1), np.int8), np.inf, "one finite number"),
    ],
)
def test_codes_that_do_not_go_together_are_refused(
    codes: np.ndarray, entries: np.ndarray, step: float | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        CodesIndex.of_codes(codes, entries, step)


def test_more_parts_than_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="9 parts of vectors of 4 numbers"):
        build_index(CodeIndex(parts=9), np.zeros((3, 4), np.float32))
