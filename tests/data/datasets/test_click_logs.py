"""Frappe, Criteo and Avazu from their real files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.data.rows import encode_dataset


def test_frappe_has_its_published_rows(data_folder: Path) -> None:
    dataset = load_dataset("frappe", data=data_folder)
    assert [len(frame) for frame in dataset.splits.values()] == [202_027, 57_722, 28_860]
    assert sum(frame["label"].sum() for frame in dataset.splits.values()) == 96_203  # app uses
    assert load_dataset(data_folder / "frappe").fingerprint == dataset.fingerprint
    assert dataset.schema.group == "user"
    encoded = encode_dataset(dataset)
    assert encoded.train.inputs.ids.shape == (202_027, 10)
    assert encoded.unknown["train"] == dict.fromkeys(encoded.encoding.sizes, 0)


def test_criteo_as_published_and_with_a_header_are_read_alike(data_folder: Path, tmp_path: Path) -> None:
    samples = data_folder / "ctr-samples"
    dataset = load_dataset("criteo", data=data_folder)
    assert [len(frame) for frame in dataset.splits.values()] == [7200, 409, 391]
    assert len(dataset.schema.numeric) == 13
    assert len(dataset.schema.categorical) == 26
    assert all(field.log for field in dataset.schema.numeric)
    assert dataset.train.row(0)[:4] == (1, 1, 5, 0)
    header = load_dataset("criteo", data=samples / "criteo_ycjuan.train.tiny.csv")
    assert sum(map(len, header.splits.values())) == 1999
    assert header.train.columns == dataset.train.columns
    (tmp_path / "train.txt").write_bytes((samples / "criteo.train.csv").read_bytes())
    one = load_dataset("criteo", data=tmp_path)
    assert [len(frame) for frame in one.splits.values()] == [5760, 720, 720]


def test_avazu_with_and_without_a_header(data_folder: Path, tmp_path: Path) -> None:
    dataset = load_dataset("avazu", data=data_folder)
    assert [len(frame) for frame in dataset.splits.values()] == [8087, 480, 432]
    assert dataset.facts["left_out"] == ["hour_of_day", "weekday"]  # the sample is of one hour
    assert len(dataset.schema.fields) == 21
    content = (data_folder / "ctr-samples" / "avazu.train.csv").read_bytes()
    with gzip.open(tmp_path / "train.gz", "wb") as file:
        file.write(content)
    packed = load_dataset({"name": "avazu", "split": {"kind": "rows"}}, data=tmp_path)
    assert sum(map(len, packed.splits.values())) == 8087
    with pytest.raises(InputError, match="split 'time' of 8087 rows leaves no rows"):
        load_dataset("avazu", data=tmp_path)


def test_avazu_takes_the_hour_apart_and_splits_by_it(data_folder: Path, tmp_path: Path) -> None:
    lines = (data_folder / "ctr-samples" / "avazu.train.csv").read_text().splitlines()
    hours = [f"1410{21 + row // 800:02d}{row // 100 % 8:02d}" for row in range(len(lines) - 1)]
    moved = [
        ",".join([*line.split(",")[:2], hour, *line.split(",")[3:]])
        for line, hour in zip(lines[1:], hours, strict=True)
    ]
    (tmp_path / "train.csv").write_text("\n".join([lines[0], *moved]) + "\n")
    dataset = load_dataset("avazu", data=tmp_path)
    assert dataset.facts["left_out"] == []
    assert dataset.train.select("hour", "hour_of_day", "weekday").row(0) == (14102100, 0, 2)  # a Tuesday
    assert dataset.train["hour"].max() < dataset.valid["hour"].min()  # type: ignore[operator]
    assert dataset.valid["hour"].max() < dataset.test["hour"].min()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("criteo", "1\t2\t3\n", "3 tab-separated values a row, Criteo has 40"),
        ("avazu", "1,2,3\n", "3 comma-separated values a row, Avazu has 24"),
        ("criteo", "", "is empty: 0 bytes"),
        ("criteo", "0\t" + "x\t" * 38 + "y\n", "not a table of values"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        load_dataset(name, data=path)
    assert message in str(error.value)
    assert "rows.csv" in str(error.value)


@pytest.mark.parametrize("name", ["frappe", "criteo", "avazu"])
def test_the_error_says_where_the_data_can_be_had(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as error:
        load_dataset(name, data=tmp_path)
    assert f"not in {tmp_path}" in str(error.value)
    assert "can be had" in str(error.value) or "is published with" in str(error.value)
    monkeypatch.delenv("SLIMRANK_DATA", raising=False)
    with pytest.raises(InputError, match="SLIMRANK_DATA is not set"):
        load_dataset(name)
