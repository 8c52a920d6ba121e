"""MovieLens-1M and Amazon Beauty from their real files."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.data.rows import encode_dataset


def test_movielens_1m_holds_out_two_films_of_every_user(data_folder: Path) -> None:
    dataset = load_dataset({"name": "movielens-1m", "negatives": 1, "held_out_negatives": 9}, data=data_folder)
    assert [len(frame) for frame in dataset.splits.values()] == [2 * 987_531, 60_400, 60_400]
    positives = [frame.filter(pl.col("label") == 1) for frame in dataset.splits.values()]
    assert [frame["user"].n_unique() for frame in positives] == [6040, 6040, 6040]
    assert not pl.concat(positives).select("user", "item").is_duplicated().any()
    encoded = encode_dataset(dataset)
    assert encoded.encoding.sizes == {"user": 6041, "item": 3417}
    assert sum(sum(unknown.values()) for unknown in encoded.unknown.values()) == 0
    small = {"name": "movielens-1m", "negatives": 1, "held_out_negatives": 9}
    assert load_dataset(small, data=data_folder / "ml-1m-sasrec").fingerprint == dataset.fingerprint


def test_a_tenth_of_the_products_that_are_held_out_is_new(data_folder: Path) -> None:
    dataset = load_dataset({"name": "amazon-beauty", "negatives": 1, "held_out_negatives": 1}, data=data_folder)
    encoded = encode_dataset(dataset)
    assert encoded.encoding.sizes == {"user": 40_227, "item": 49_439}
    assert encoded.unknown["train"] == {"user": 0, "item": 0}
    ids, label = encoded.test.inputs.ids[:, 1], encoded.test.label
    assert int((ids[label == 1] == 0).sum()) == 4018
    # and of the negatives, which are drawn from the 54,542 products known by then: (54542 - 49438) / 54542 = 9.4%
    assert (ids[label == 0] == 0).mean() == pytest.approx(5104 / 54_542, abs=0.01)


@pytest.mark.parametrize("name", ["movielens-1m", "amazon-beauty"])
def test_where_the_files_can_be_had(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{name}: .*interactions.parquet not found: not in .*for research|GroupLens"):
        load_dataset(name, data=tmp_path)
