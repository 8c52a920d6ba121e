"""MQ2008: its folds, its lines, and from its real files."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.data.datasets.mq2008 import FEATURES, read_letor
from slimrank.data.rows import encode_dataset


def line(grade: object, query: int, *, first: float = 0.5, comment: str = " #docid = GX1 inc = 1") -> str:
    """A document whose first feature is `first` and whose others are 0.25 of their number."""
    others = " ".join(f"{number}:{number / 4:.6f}" for number in range(2, 47))
    return f"{grade} qid:{query} 1:{first:.6f} {others}{comment}\n"


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Five parts; the queries of part p are 10p and 10p + 1, of three documents and of one."""
    for part in range(1, 6):
        lines = [line(grade, 10 * part, first=part + grade / 8) for grade in (0, 2, 1)] + [line(0, 10 * part + 1)]
        with gzip.open(tmp_path / f"S{part}.txt.gz", "wt") as file:
            file.writelines(lines)
    return tmp_path


def test_a_line_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "S1.txt"
    path.write_text("\n" + line(2, 7) + "# nothing here\n" + line(0, 8, comment=""))
    frame = read_letor(path)
    assert frame.columns == ["grade", "query", *FEATURES]
    assert frame.row(0)[:4] == (2, 7, 0.5, 0.5)
    assert frame["f46"].to_list() == [46 / 4, 46 / 4]
    assert frame["query"].to_list() == [7, 8]


@pytest.mark.parametrize("fold", [1, 2, 3, 4, 5])
def test_each_part_is_the_test_of_one_fold(parts: Path, fold: int) -> None:
    dataset = load_dataset({"name": "mq2008", "fold": fold}, data=parts)
    found = {name: {query // 10 for query in frame["query"]} for name, frame in dataset.splits.items()}
    order = [(fold - 1 + step) % 5 + 1 for step in range(5)]
    assert found == {"train": set(order[:3]), "valid": {order[3]}, "test": {order[4]}}


def test_features_of_one_value_are_left_out_and_named(parts: Path) -> None:
    dataset = load_dataset("mq2008", data=parts)
    assert [each.name for each in dataset.schema.fields] == ["f1"]
    assert dataset.facts["left_out"] == list(FEATURES[1:])
    assert (dataset.schema.answer, dataset.schema.group) == ("relevance", "query")


def test_folds_differ_in_their_fingerprint(parts: Path) -> None:
    prints = {load_dataset({"name": "mq2008", "fold": fold}, data=parts).fingerprint for fold in (1, 1, 2, 5)}
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (line(0, 1) + line(3, 1), "line 2: grade '3'. Allowed: 0, 1, 2."),
        (line(-1, 1), "line 1: grade '-1'"),
        (line("nan", 1), "line 1: grade 'nan'"),
        (line(0, 1) + "1 1:0.5 2:0.5\n", "line 2: no query: the second value is '1:0.5', not qid:number"),
        ("2\n", "line 1: no query: the second value is ''"),
        (line(0, 1).replace("qid:1", "qid:x"), "line 1: no query: the second value is 'qid:x'"),
        ("0 qid:1 1:0.5\n", "line 1: 1 features, MQ2008 has 46"),
        (line(0, 1).replace(" 3:", " 47:"), "line 1: 46 features, MQ2008 has 46, written 1:value to 46:value in this"),
        (line(0, 1).replace("1:0.500000", "1:high"), "line 1: a feature is no number: could not convert"),
        ("# only a comment\n", "is empty: no documents"),
        ("\ufeff".encode("utf-16").decode("latin-1"), "line 1: grade"),
    ],
)
def test_other_lines_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "S3.txt"
    path.write_text(content)
    with pytest.raises(InputError) as error:
        read_letor(path)
    assert message in str(error.value)
    assert "S3.txt" in str(error.value)


def test_a_feature_that_is_not_finite_is_refused(parts: Path) -> None:
    with gzip.open(parts / "S2.txt.gz", "at") as file:
        file.write(line(0, 20).replace("1:0.500000", "1:nan"))
    with pytest.raises(InputError, match="mq2008, train: column 'f1': 1 NaN of 13 values"):
        load_dataset("mq2008", data=parts)


def test_a_truncated_part_is_refused(parts: Path) -> None:
    path = parts / "S4.txt.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"S4\.txt\.gz: truncated, or not a text file"):
        load_dataset("mq2008", data=parts)


def test_a_missing_part_says_where_it_can_be_had(parts: Path) -> None:
    (parts / "S5.txt.gz").unlink()
    with pytest.raises(InputError, match="published by Microsoft Research"):
        load_dataset("mq2008", data=parts)


def test_the_real_files(data_folder: Path) -> None:
    dataset = load_dataset("mq2008", data=data_folder)
    every = pl.concat(dataset.splits.values())
    assert len(every) == 15_211
    assert every["query"].n_unique() == 784
    assert [frame["query"].n_unique() for frame in dataset.splits.values()] == [471, 157, 156]
    assert every["grade"].value_counts(sort=True)["count"].to_list() == [12_279, 2_001, 931]
    encoded = encode_dataset(dataset)
    assert encoded.train.inputs.numbers.shape[1] == 46 - len(dataset.facts["left_out"])
    assert set(encoded.train.label.tolist()) == {0.0, 1.0, 2.0}
