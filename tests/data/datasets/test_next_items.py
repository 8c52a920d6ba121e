"""Datasets of the next item: a file of one's own, what is wrong with one, and the real ones."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.data.rows import encode_dataset

MET = pl.DataFrame(
    {
        "who": ["ann", "bob", "ann", "bob", "ann", "bob", "ann", "bob"],
        "what": ["a", "b", "b", "a", "c", "d", "d", "c"],
        "at": [80, 70, 60, 50, 40, 30, 20, 10],
    }
)
KEYS = {"name": "interactions", "user": "who", "item": "what"}


def write(folder: Path, name: str, frame: pl.DataFrame = MET) -> str:
    path = folder / name
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return str(path)


@pytest.mark.parametrize("name", ["met.csv", "met.parquet"])
def test_a_file_in_the_order_of_its_rows_or_of_its_time(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name)
    as_it_is = load_dataset({**KEYS, "path": path})
    assert sorted(as_it_is.test.select("user", "history", "item").rows()) == [
        ("ann", ["a", "b", "c"], "d"),
        ("bob", ["b", "a", "d"], "c"),
    ]
    by_time = load_dataset({**KEYS, "path": path, "time": "at"})
    assert sorted(by_time.test.select("user", "history", "item").rows()) == [
        ("ann", ["d", "c", "b"], "a"),
        ("bob", ["c", "d", "a"], "b"),
    ]
    assert as_it_is.fingerprint != by_time.fingerprint


def test_a_path_is_looked_for_in_the_folder_of_the_data(tmp_path: Path) -> None:
    write(tmp_path, "met.csv")
    found = load_dataset({**KEYS, "path": "met.csv"}, data=tmp_path)
    assert found.fingerprint == load_dataset({**KEYS, "path": str(tmp_path / "met.csv")}).fingerprint


def test_a_split_by_time(tmp_path: Path) -> None:
    path = write(tmp_path, "met.csv")
    found = load_dataset({**KEYS, "path": path, "time": "at", "split": "time", "held_out": (0.25, 0.25)})
    assert sorted(found.train["item"].to_list()) == ["c", "d"]
    assert sorted(found.valid.select("user", "history", "item").rows()) == [
        ("ann", ["d", "c"], "b"),
        ("bob", ["c", "d"], "a"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"item": "whta"}, r"met.csv: missing column 'whta'\. Did you mean 'what'\?"),
        ({"time": "when"}, r"met.csv: missing column 'when'\. Did you mean 'who'\?"),
        ({"split": "time"}, "met.csv: split 'time' needs `time`, the column of the time"),
        ({"path": "nowhere.csv"}, "nowhere.csv: no such file"),
        ({"path": "met.json"}, "met.json: unknown kind of file"),
        ({"max_length": 0}, "max_length"),
        ({"split": "rows"}, "split"),
        ({"held_out": (0.5, 1.5)}, "held_out"),
    ],
)
def test_what_is_wrong_is_said(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    write(tmp_path, "met.csv")
    (tmp_path / "met.json").write_text("{}")
    path = str(tmp_path / str(settings.get("path", "met.csv")))
    with pytest.raises(InputError, match=message):
        load_dataset({**KEYS, **settings, "path": path})


def test_a_path_is_needed() -> None:
    with pytest.raises(InputError, match="path"):
        load_dataset(KEYS)


def test_movielens_1m_is_read_in_windows(data_folder: Path) -> None:
    dataset = load_dataset("movielens-1m-sequences", data=data_folder)
    assert [len(dataset.valid), len(dataset.test)] == [6040, 6040]
    # every train item but a user's first is a target once, so windows of 200 hold 999,611 - 3 * 6,040 targets
    assert (dataset.train["history"].list.len()).sum() == 999_611 - 3 * 6040
    encoded = encode_dataset(dataset)
    assert encoded.encoding.sizes == {"history": 3416 + 2}
    assert dataset.facts == {"users": 6040, "users_without_test": 0}


def test_a_tenth_of_the_next_products_is_new(data_folder: Path) -> None:
    dataset = load_dataset("amazon-beauty-sequences", data=data_folder)
    encoded = encode_dataset(dataset)
    assert int((encoded.test.label < 2).sum()) == 4018
    assert encoded.encoding.sizes["history"] == 49_437 + 2  # of one, all that is left in train is the first of a user
