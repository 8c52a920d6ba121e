"""What every registered kind of index promises: it answers, ships and refuses alike."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimrank.config import InputError, as_config, entries
from slimrank.data.ragged import Ragged
from slimrank.indexing.index import Index, build_index, open_index

VARIANTS: dict[str, dict[str, Any]] = {
    "exact": {"name": "exact"},
    "exact, float16": {"name": "exact", "values": "float16"},
    "exact, int8": {"name": "exact", "values": "int8"},
    "exact, int8 by vector": {"name": "exact", "values": "int8", "scale": "vector"},
    "codes": {"name": "codes", "parts": 4},
    "codes, 4 bits": {"name": "codes", "parts": 5, "bits": 4},
    "codes, 2 bits": {"name": "codes", "parts": 3, "bits": 2},
    "faiss": {"name": "faiss"},
    "faiss, few parts": {"name": "faiss", "parts": 3, "rerank": 20},
    "binary": {"name": "binary"},
}
ITEMS, DIM = 300, 10


def drawn(items: int = ITEMS, dim: int = DIM, seed: int = 0, unit: bool = True) -> np.ndarray:
    """Vectors around a few centres, of length 1 or of all lengths."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(12, dim))
    vectors = centres[draw.integers(0, 12, items)] + 0.5 * draw.normal(size=(items, dim))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True) if unit else draw.random((items, 1)) + 0.1
    return np.asarray(vectors / lengths, dtype=np.float32)


@pytest.fixture(params=VARIANTS)
def config(request: pytest.FixtureRequest) -> Any:
    return as_config("index", VARIANTS[request.param])


def ship(index: Index, folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    for name, content in index.files().items():
        (folder / name).write_bytes(content)
    return index.record()


def test_every_kind_is_tried() -> None:
    assert {each["name"] for each in VARIANTS.values()} == set(entries("index"))
    for entry in entries("index").values():
        assert entry.summary.endswith(".")


@pytest.mark.parametrize("unit", [True, False])
def test_it_finds_what_a_product_with_every_item_finds(config: Any, unit: bool) -> None:
    vectors, queries = drawn(unit=unit), drawn(40, seed=0, unit=unit)
    places, products = build_index(config, vectors).search(queries, 10)
    true = queries @ vectors.T
    best = np.argsort(-true, axis=1)[:, :10]
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(places.tolist(), best.tolist(), strict=True)])
    assert overlap > {"codes": 0.3, "binary": 0.9}.get(config.name, 0.97)
    assert (np.diff(products, axis=1) <= 0).all()
    if config.name != "codes":
        np.testing.assert_allclose(products, np.take_along_axis(true, places, axis=1), rtol=0.03, atol=0.1)


def test_products_are_those_of_its_vectors(config: Any) -> None:
    index, queries = build_index(config, drawn()), drawn(7, seed=3, unit=False)
    places, products = index.search(queries, 5)
    whole = index.vectors(np.arange(ITEMS)).astype(np.float64)
    expected = np.einsum("nkd,nd->nk", whole[places], queries)
    np.testing.assert_allclose(products, expected, rtol=1e-6, atol=1e-6)


def test_files_give_the_same_index_back(config: Any, tmp_path: Path) -> None:
    index, queries = build_index(config, drawn()), drawn(9, seed=3)
    record = ship(index, tmp_path / "index")
    again = open_index(record, tmp_path / "index")
    assert type(again) is type(index)
    assert again.record() == record
    assert again.files() == index.files()
    for one, other in zip(index.search(queries, 20), again.search(queries, 20), strict=True):
        np.testing.assert_array_equal(one, other)


def test_its_bytes_are_those_of_its_files(config: Any) -> None:
    index = build_index(config, drawn())
    assert index.nbytes == sum(len(content) for content in index.files().values()) > 0


def test_one_query_gets_what_it_gets_among_others(config: Any) -> None:
    index, queries = build_index(config, drawn()), drawn(30, seed=5)
    places, products = index.search(queries, 10)
    for row in (0, 13, 29):
        one, own = index.search(queries[row : row + 1], 10)
        np.testing.assert_array_equal(one[0], places[row])
        np.testing.assert_array_equal(own[0], products[row])
    out = Ragged.of([range(2 * row) for row in range(30)])
    places, _ = index.search(queries, 10, out)
    for row in (0, 1, 5, 29):
        np.testing.assert_array_equal(
            index.search(queries[row : row + 1], 10, out.part(row, row + 1))[0][0], places[row]
        )


def test_what_is_left_out_is_never_found(config: Any) -> None:
    index, queries = build_index(config, drawn()), drawn(6, seed=2)
    best, _ = index.search(queries, 30)
    out = Ragged.of([[*best[0][:5], *best[0][:5]], [], best[2], [0], best[4][::2], range(ITEMS)])
    places, products = index.search(queries, 10, out)
    for row in range(6):
        assert not set(places[row]) & set(out[row].tolist())
        assert len(set(places[row])) == (1 if row == 5 else 10)
    np.testing.assert_array_equal(places[0], best[0][5:15])
    np.testing.assert_array_equal(places[1], best[1][:10])
    assert (places[5] == -1).all()
    assert np.isneginf(products[5]).all()


def test_k_beyond_the_catalogue_is_all_of_it(config: Any) -> None:
    index, queries = build_index(config, drawn(20)), drawn(3, seed=2)
    places, products = index.search(queries, 1000)
    assert places.shape == products.shape == (3, 20)
    assert (np.sort(places, axis=1) == np.arange(20)).all()


def test_one_item_and_no_query(config: Any) -> None:
    index = build_index(config, drawn(1))
    places, products = index.search(drawn(2, seed=1), 3)
    assert places.tolist() == [[0], [0]]
    assert np.isfinite(products).all()
    none, _ = index.search(np.empty((0, DIM), np.float32), 3)
    assert none.shape == (0, 1)


def test_of_the_same_items_the_lower_place_comes_first(config: Any) -> None:
    index = build_index(config, np.repeat(drawn(5), 9, axis=0))
    places, products = index.search(drawn(8, seed=1), 45)
    groups, same = places // 9, np.diff(products, axis=1) == 0
    assert (np.diff(groups, axis=1) == 0).sum() == 8 * 40
    assert ((np.diff(places, axis=1) > 0) | ~same).all()
    assert same.sum() >= 8 * 40
    all_alike = build_index(config, np.tile(drawn(1), (100, 1)))
    assert all_alike.search(drawn(1, seed=4), 7)[0].tolist() == [list(range(7))]


def test_items_and_queries_of_zeros(config: Any) -> None:
    index = build_index(config, np.zeros((40, DIM), np.float32))
    places, products = index.search(np.zeros((1, DIM), np.float32), 4)
    assert places.tolist() == [[0, 1, 2, 3]]
    assert products.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("vectors", "k", "out", "message"),
    [
        (drawn(2), 0, None, "k: got 0, allowed 1 or more"),
        (drawn(2), -3, None, "k: got -3"),
        (drawn(2, DIM + 1), 1, None, f"got vectors of {DIM + 1} numbers, the index has items of {DIM}"),
        (drawn(1)[0], 1, None, r"must be floats \[N, 10\], got float32 of shape \(10,\)"),
        (np.ones((2, DIM), np.int64), 1, None, "must be floats"),
        (np.full((2, DIM), np.nan), 1, None, "2 of 2 are NaN"),
        (np.full((1, DIM), np.inf), 1, None, "NaN, infinite"),
        (np.full((1, DIM), 1e20), 1, None, "beyond 1e"),
        (drawn(2), 1, Ragged.of([[0], [300]]), r"left_out: 1 of 2 places are no item .* \(query 1: 300\)"),
        (drawn(2), 1, Ragged.of([[-1], []]), "left_out: 1 of 1 places"),
        (drawn(2), 1, Ragged.of([[0]]), "left_out: got lists for 1 queries, there are 2"),
    ],
)
def test_bad_queries_are_refused(config: Any, vectors: np.ndarray, k: int, out: Ragged | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_index(config, drawn()).search(vectors, k, out)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.empty((0, 4), np.float32), "needs items"),
        (np.empty((4, 0), np.float32), "needs items"),
        (np.array([[0.0, np.nan]]), "1 of 1 are NaN"),
        (np.zeros(3), "must be floats"),
    ],
)
def test_bad_items_are_refused(config: Any, vectors: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_index(config, vectors)


def test_damaged_files_are_refused(config: Any, tmp_path: Path) -> None:
    index = build_index(config, drawn())
    record = ship(index, tmp_path / "index")
    for name, content in index.files().items():
        for change, damaged in enumerate((None, content[:-1], content + b"0", b"")):
            folder = tmp_path / f"{name} {change}"
            shutil.copytree(tmp_path / "index", folder)
            (folder / name).unlink() if damaged is None else (folder / name).write_bytes(damaged)
            with pytest.raises(InputError, match=name):
                open_index(record, folder)


def test_damaged_records_are_refused(config: Any, tmp_path: Path) -> None:
    index = build_index(config, drawn())
    record = ship(index, tmp_path)
    first, *_ = record["arrays"]
    one = record["arrays"][first]
    lacking = {name: each for name, each in record["arrays"].items() if name != first}
    for changed in (
        {},
        {**record, "items": 0},
        {**record, "items": ITEMS + 1},
        {**record, "dim": 3 * DIM},
        {**record, "dim": None},
        {**record, "config": {"name": "none"}},
        {**record, "config": {**record["config"], "colour": "red"}},
        {**record, "arrays": lacking},
        {**record, "arrays": {**record["arrays"], "other": one}},
        {**record, "arrays": {**record["arrays"], first: {**one, "dtype": "object"}}},
        {**record, "arrays": {**record["arrays"], first: {**one, "shape": [-1, -1]}}},
        {**record, "arrays": {**record["arrays"], first: {**one, "shape": one["shape"][::-1]}}},
        {**record, "arrays": {**record["arrays"], first: None}},
    ):
        with pytest.raises(InputError):
            open_index(changed, tmp_path)
