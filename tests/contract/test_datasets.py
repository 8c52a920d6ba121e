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
NAMES = sorted(entries("dataset"))


def load(name: str, folder: Path, **keys: Any) -> Dataset:
    """The dataset with small settings where it has some, or a skip where its data is not to be had."""
    if name == "synthetic":
        keys = {"rows": 3000, **keys}
    if name in ("movielens-1m", "amazon-beauty"):
        keys = {"negatives": 1, "held_out_negatives": 1, **keys}
    if name in ("parquet", "csv"):
        path = folder / f"rows.{name}"
        TABLE.write_parquet(path) if name == "parquet" else TABLE.write_csv(path)
        keys = {"path": str(path), "group": "user", **keys}
    elif name not in ("synthetic", "movielens-100k") and not os.environ.get("SLIMRANK_DATA"):
        pytest.skip("SLIMRANK_DATA names no directory of real data")
    try:
        return load_dataset({"name": name, **keys})
    except InputError as error:
        if "not found" not in str(error):
            raise
        pytest.skip(f"the data is not here: {error}")


@pytest.mark.parametrize("name", NAMES)
def test_splits_have_rows_with_labels_of_their_answer(name: str, tmp_path: Path) -> None:
    """Clicks are 0 or 1, grades of relevance at least 0 and not all alike."""
    dataset = load(name, tmp_path)
    for frame in dataset.splits.values():
        assert frame.columns == list(dataset.schema.used)
        found = set(frame[dataset.schema.label].cast(pl.Int64).unique())
        assert found == {0, 1} if dataset.schema.answer == "click" else min(found) >= 0 < max(found)


@pytest.mark.parametrize("name", NAMES)
def test_rows_encode_within_sizes(name: str, tmp_path: Path) -> None:
    dataset = load(name, tmp_path)
    encoded = encode_dataset(dataset)
    sizes = np.array([encoded.encoding.sizes[column] for column in dataset.schema.columns])
    for split in ("train", "valid", "test"):
        rows = getattr(encoded, split)
        assert len(rows) == len(dataset.splits[split]) == len(rows.inputs)
        assert rows.inputs.ids.dtype == np.int32
        assert rows.inputs.numbers.dtype == rows.label.dtype == np.float32
        assert rows.inputs.ids.shape == (len(rows), len(sizes))
        assert rows.inputs.numbers.shape == (len(rows), len(dataset.schema.numeric))
        assert (rows.inputs.ids >= 0).all()
        assert (rows.inputs.ids < sizes).all()
        assert np.isfinite(rows.inputs.numbers).all()
        assert (rows.group is None) == (dataset.schema.group is None)


@pytest.mark.parametrize("name", NAMES)
def test_the_fingerprint_is_stable_and_another_split_has_another(name: str, tmp_path: Path) -> None:
    prints = [load(name, tmp_path, **keys).fingerprint for keys in ({}, {})]
    others = [{"fold": fold} if name == "mq2008" else {"split": {"kind": "rows", "seed": fold}} for fold in (2, 2, 3)]
    prints += [load(name, tmp_path, **keys).fingerprint for keys in others]
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
    config = entries("dataset")[name].config()
    assert config.name == name
    assert type(config).parse(config.model_dump(mode="json")) == config
    assert entries("dataset")[name].summary.endswith(".")
