"""Rows as inputs: by name, by number, by what is left; every fault at once."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.feeds import read_feeds
from slimrank.data.tensors import TensorSpec

IDS = TensorSpec("ids", np.dtype(np.int32), ("N", 3))
TWO = (IDS, TensorSpec("price", np.dtype(np.float32), ("N",)))


@pytest.mark.parametrize(
    "columns",
    [
        {"ids": [[1, 2, 3], [4, 5, 6]], "price": [0.5, 1.5]},
        {"price": [0.5, 1.5], "ids_0": [1, 4], "ids_1": [2, 5], "ids_2": [3, 6], "label": [0, 1]},
        {"a": [1, 4], "b": [2, 5], "price": [0.5, 1.5], "c": [3, 6]},
    ],
)
@pytest.mark.parametrize("kind", ["table", "parquet", "csv"])
def test_columns_by_name_by_number_and_by_what_is_left(columns, kind, tmp_path) -> None:
    frame = pl.DataFrame(columns)
    if kind == "csv":
        if "ids" in columns:
            pytest.skip("csv has no lists")
        frame.write_csv(tmp_path / "rows.csv")
    else:
        frame.write_parquet(tmp_path / "rows.parquet")
    found = read_feeds(frame if kind == "table" else tmp_path / f"rows.{kind}", TWO)
    assert found.arrays["ids"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found.arrays["ids"].dtype == np.int32
    assert found.arrays["price"].tolist() == [0.5, 1.5]
    assert len(found) == 2


def test_arrays_and_their_file(tmp_path) -> None:
    arrays = {"ids": np.ones((4, 3), np.int64), "price": np.zeros((4, 1))}
    np.savez(tmp_path / "rows.npz", **arrays)
    for data in (arrays, tmp_path / "rows.npz"):
        found = read_feeds(data, TWO)
        assert {name: each.shape for name, each in found.arrays.items()} == {"ids": (4, 3), "price": (4,)}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"idz": np.zeros((2, 3)), "price": np.zeros(2)}, "no array for input 'ids'. Did you mean 'idz'?"),
        ({"ids": np.zeros((2, 4)), "price": np.zeros(2)}, "input 'ids' is [rows, 3], got [2, 4]"),
        (
            {"ids": np.full((2, 3), 0.5), "price": np.zeros(2)},
            "input 'ids' takes whole numbers that int32 holds, got float64",
        ),
        ({"ids": np.zeros((2, 3)), "price": np.array([np.nan, 1])}, "input 'price': 1 values are NaN or infinite"),
        ({"ids": np.zeros((2, 3)), "price": np.zeros(3)}, "different numbers of rows: {'ids': 2, 'price': 3}"),
        ({"ids": np.zeros((0, 3)), "price": np.zeros(0)}, "0 rows, at least 1 are needed"),
        (pl.DataFrame({"price": [1.0]}), "no column for input 'ids' [rows, 3], and 0 columns are of no other input"),
        (pl.DataFrame({"price": ["dear"], "ids": [[1, 2, 3]]}), "column 'price' is of type String, numbers are needed"),
        (pl.DataFrame({"price": [None, 1.0], "ids": [[1, 2, 3]] * 2}), "column 'price' is missing in 1 of 2 rows"),
        (pl.DataFrame({"price": [1.0, 2.0], "ids": [[1, 2, 3], [1]]}), "lists of different lengths: pad them"),
        (pl.DataFrame({"price": [1.0], "ids": [[1, None, 3]]}), "column 'ids' is missing in 1 places of its lists"),
        (
            {"ids": np.full((2, 3), 3_000_000_000), "price": np.zeros(2)},
            "takes whole numbers that int32 holds, got int64",
        ),
        ({"ids": np.full((2, 3), 2.0**33), "price": np.zeros(2)}, "takes whole numbers that int32 holds, got float64"),
        ({"ids": np.full((2, 3), "one"), "price": np.zeros(2)}, "input 'ids' takes numbers of type int32, got <U3"),
        ({"ids": np.zeros((2, 3)), "price": np.full(2, 1e300)}, "input 'price': 2 values do not fit float32"),
    ],
)
def test_what_does_not_fit_is_named(data, said) -> None:
    with pytest.raises(InputError) as raised:
        read_feeds(data, TWO)
    assert said in str(raised.value)


def test_where_answers_count_no_input_takes_what_is_left() -> None:
    frame = pl.DataFrame({"price": [1.0, 2.0], "label": [0, 1]})
    one = TensorSpec("user", np.dtype(np.int64), ("N",))
    assert read_feeds(frame, [TWO[1], one]).arrays["user"].tolist() == [0, 1]
    with pytest.raises(InputError, match="no column for input 'user'"):
        read_feeds(frame, [TWO[1], one], rest=False)


def test_truth_values_are_0_and_1() -> None:
    mask = TensorSpec("mask", np.dtype(bool), ("N",))
    for values in ([True, False], [1, 0], [1.0, 0.0]):
        assert read_feeds({"mask": np.array(values)}, [mask]).arrays["mask"].tolist() == [True, False]
    with pytest.raises(InputError, match="'mask' takes truth values, 0 and 1"):
        read_feeds({"mask": np.array([0.4, 1.0])}, [mask])


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(InputError) as raised:
        read_feeds({"price": np.zeros((2, 2))}, TWO)
    assert len(str(raised.value).splitlines()) == 2


def test_files_that_are_no_rows(tmp_path) -> None:
    (tmp_path / "rows.json").write_text("{}")
    (tmp_path / "rows.npz").write_text("no")
    np.savez(tmp_path / "whole.npz", x=np.zeros(1000))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:500])
    for name, said in (
        ("rows.json", "a .parquet, .csv or .npz file"),
        ("rows.npz", "not a .npz file"),
        ("cut.npz", "not a .npz file"),
    ):
        with pytest.raises(InputError, match=said):
            read_feeds(tmp_path / name, TWO)
    with pytest.raises(InputError, match="no such file"):
        read_feeds(tmp_path / "none.parquet", TWO)


def test_batches_are_of_any_size_or_of_the_one_that_the_graph_takes() -> None:
    arrays = {"x": np.arange(1000, dtype=np.float32)}
    free, fixed = (read_feeds(arrays, [TensorSpec("x", np.dtype(np.float32), shape)]) for shape in (("N",), (7,)))
    sizes = [[len(batch["x"]) for batch in feeds.batches(600)] for feeds in (free, fixed)]
    assert sum(sizes[0]) == 600
    assert set(sizes[1]) == {7}
    assert sum(sizes[1]) == 600 // 7 * 7
    seen = np.concatenate([batch["x"] for batch in free.batches(600, seed=1)])
    assert len(set(seen.tolist())) == 600
