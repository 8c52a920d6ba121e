"""What every registered dataset promises."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError, entries
from slimrank.data import load_dataset
from slimrank.data.encoding import Encoding
from slimrank.data.rows import Dataset, encode_dataset

TABLE = pl.DataFrame(
    {
        "label": [row % 3 // 2 for row in range(600)],
        "user": [f"u{row % 11}" for row in range(600)],
        "price": [row % 7 / 2 for row in range(600)],
    }
)
MET = pl.DataFrame(
    {
        "user": [f"u{row % 40}" for row in range(600)],
        "item": [f"i{(row * row) % 29}" for row in range(600)],
        "time": list(range(600)),
    }
)
TABLES = {"parquet": TABLE, "csv": TABLE, "interactions": MET}
NAMES = sorted(entries("dataset"))
HELD_OUT_ITEMS = (
    *("amazon-beauty-sequences", "interactions", "movielens-100k-queries", "movielens-100k-sequences"),
    "movielens-1m-sequences",
)
WITHOUT_DATA = (
    "synthetic",
    "movielens-100k",
    "movielens-100k-queries",
    "movielens-100k-sequences",
)  # made, or installed
DIVIDED_AS_GIVEN = (*HELD_OUT_ITEMS, "mq2008", "scifact")  # with nothing of their own to divide rows by


def load(name: str, folder: Path, **keys: Any) -> Dataset:
    """The dataset with small settings where it has some, or a skip where its data is not to be had."""
    if name == "synthetic":
        keys = {"rows": 3000, **keys}
    if name in ("movielens-1m", "amazon-beauty"):
        keys = {"negatives": 1, "held_out_negatives": 1, **keys}
    if name == "scifact":
        keys = {"negatives": 1, "max_length": 16, **keys}
    if name in TABLES:
        path = folder / f"rows.{'csv' if name == 'csv' else 'parquet'}"
        TABLES[name].write_csv(path) if name == "csv" else TABLES[name].write_parquet(path)
        keys = {"path": str(path), **({"time": "time"} if name == "interactions" else {"group": "user"}), **keys}
    elif name not in WITHOUT_DATA and not os.environ.get("SLIMRANK_DATA"):
        pytest.skip("SLIMRANK_DATA names no directory of real data")
    try:
        return load_dataset({"name": name, **keys})
    except InputError as error:
        if "not found" not in str(error):
            raise
        pytest.skip(f"the data is not here: {error}")


@pytest.mark.parametrize("name", NAMES)
def test_splits_have_rows_with_the_labels_of_their_answer(name: str, tmp_path: Path) -> None:
    dataset = load(name, tmp_path)
    assert (dataset.schema.answer == "item") == (name in HELD_OUT_ITEMS)
    met = set(dataset.train[dataset.schema.catalogue].explode()) if dataset.schema.catalogue else set()
    for frame in dataset.splits.values():
        assert frame.columns == list(dataset.schema.used)
        label = frame[dataset.schema.label]
        if dataset.schema.answer == "click":
            assert set(label.cast(pl.Int64).unique()) == {0, 1}
        elif dataset.schema.answer == "relevance":
            assert {0, 1} <= set(label.unique()) <= {0, 1, 2}
        else:
            assert met.intersection(label)  # an item is what histories hold


@pytest.mark.parametrize("name", NAMES)
def test_rows_encode_within_sizes(name: str, tmp_path: Path) -> None:
    dataset = load(name, tmp_path)
    encoded = encode_dataset(dataset)
    sizes = np.array([encoded.encoding.sizes[column] for column in dataset.schema.columns])
    for split in ("train", "valid", "test"):
        rows = getattr(encoded, split)
        assert len(rows) == len(dataset.splits[split]) == len(rows.inputs)
        assert rows.inputs.ids.dtype == np.int32
        assert rows.inputs.numbers.dtype == np.float32
        assert rows.label.dtype == (np.int64 if dataset.schema.answer == "item" else np.float32)
        assert rows.label.max() < encoded.encoding.sizes.get(str(dataset.schema.catalogue), 3)
        assert rows.inputs.ids.shape == (len(rows), len(sizes))
        assert rows.inputs.numbers.shape == (len(rows), len(dataset.schema.numeric))
        assert (rows.inputs.ids >= 0).all()
        assert (rows.inputs.ids < sizes).all()
        assert np.isfinite(rows.inputs.numbers).all()
        assert (rows.group is None) == (dataset.schema.group is None)


@pytest.mark.parametrize("name", NAMES)
def test_the_fingerprint_is_stable_and_another_split_has_another(name: str, tmp_path: Path) -> None:
    others: list[dict[str, Any]] = [{"split": {"kind": "rows", "seed": seed}} for seed in (1, 2)]
    if name in DIVIDED_AS_GIVEN:
        key = {"mq2008": "fold", "scifact": "negatives"}.get(name, "max_length")
        others = [{key: value} for value in (2, 3)]
    prints = [load(name, tmp_path, **keys).fingerprint for keys in ({}, {}, others[0], *others)]
    assert prints[0] == prints[1]
    assert prints[2] == prints[3]
    assert len(set(prints)) == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_encoding_encodes_test_rows_alike(name: str, tmp_path: Path) -> None:
    dataset = load(name, tmp_path)
    encoding = Encoding.fit(dataset.schema, dataset.train)
    encoding.save(tmp_path / "encoding")
    loaded = Encoding.load(tmp_path / "encoding")
    (first, unknown), (again, counted) = encoding.encode_counting(dataset.test), loaded.encode_counting(dataset.test)
    assert (first.ids == again.ids).all()
    assert (first.numbers == again.numbers).all()
    assert unknown == counted


@pytest.mark.parametrize("name", NAMES)
def test_the_config_survives_json_and_says_what_it_is(name: str) -> None:
    needed = {"path": "met.csv"} if name == "interactions" else {}
    config = entries("dataset")[name].config(**needed)
    assert config.name == name
    assert type(config).parse(config.model_dump(mode="json")) == config
    assert entries("dataset")[name].summary.endswith(".")
