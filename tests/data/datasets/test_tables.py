from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.data.rows import encode_dataset

ROWS = 200


def table() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "click": [row % 2 for row in range(ROWS)],
            "user": [f"u{row % 9}" for row in range(ROWS)],
            "price": [row % 5 / 2 for row in range(ROWS)],
            "genres": [["a b", "b", "c a"][row % 3] for row in range(ROWS)],
            "when": [row // 2 for row in range(ROWS)],
        }
    )


def saved(folder: Path, frame: pl.DataFrame, name: str = "shop.csv") -> str:
    path = folder / name
    frame.write_csv(path) if ".csv" in name else frame.write_parquet(path)
    return str(path)


def test_everything_can_be_said(tmp_path: Path) -> None:
    config = {
        "name": "csv",
        "path": saved(tmp_path, table()),
        "label": "click",
        "group": "user",
        "time": "when",
        "drop": ["price"],
        "fields": {"genres": {"kind": "sequence", "separator": " ", "max_length": 2}},
        "split": {"kind": "time", "fractions": [0.5, 0.25, 0.25]},
    }
    dataset = load_dataset(config)
    assert [(field.name, field.kind) for field in dataset.schema.fields] == [
        ("user", "categorical"),
        ("genres", "sequence"),
    ]
    assert (dataset.schema.label, dataset.schema.group, dataset.schema.time) == ("click", "user", "when")
    assert [len(frame) for frame in dataset.splits.values()] == [100, 50, 50]
    assert encode_dataset(dataset).encoding.sizes == {"user": 10, "genres": 5}


def test_the_split_where_none_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path, table())
    by_time = load_dataset({"name": "csv", "path": path, "time": "when"})
    assert by_time.train["when"].max() < by_time.test["when"].min()  # type: ignore[operator]
    by_rows = load_dataset(path)
    assert by_rows.train["when"].max() > by_rows.test["when"].min()  # type: ignore[operator]


def test_a_dropped_group_is_no_field_but_stays_the_group(tmp_path: Path) -> None:
    path = saved(tmp_path, table(), "shop.parquet")
    dataset = load_dataset({"name": "parquet", "path": path, "group": "user", "drop": ["user", "when"]})
    assert [field.name for field in dataset.schema.fields] == ["price", "genres"]
    assert encode_dataset(dataset).train.group is not None


def test_a_path_is_found_in_the_named_folder_and_in_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, table())
    config = {"name": "csv", "path": "shop.csv"}
    monkeypatch.chdir(tmp_path.parent)
    expected = load_dataset(config, data=tmp_path).fingerprint
    monkeypatch.setenv("SLIMRANK_DATA", str(tmp_path))
    assert load_dataset(config).fingerprint == expected


def test_tabs_separate_a_tsv(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "shop.tsv", separator="\t")
    assert load_dataset(tmp_path / "shop.tsv").fingerprint == load_dataset(saved(tmp_path, table())).fingerprint


FAULTY = {
    "label not 0/1": (
        table().with_columns(click=pl.col("click") + 1),
        {},
        "shop.csv: label 'click' is not 0 or 1 in 100 of 200 rows: found 1 (100 rows), 2 (100 rows). Allowed: 0 and 1.",
    ),
    "no label": (table().rename({"click": "y"}), {}, "no column is called like a label: label, click, clicked"),
    "two labels": (
        table().with_columns(label=pl.col("click")),
        {},
        "several columns are called like a label (click, label)",
    ),
    "wrong label": (table(), {"label": "clik"}, "no column 'clik' for the label. Did you mean 'click'?"),
    "wrong group": (table(), {"group": "usr"}, "no column 'usr' for the group. Did you mean 'user'?"),
    "wrong field": (table(), {"fields": {"prise": {}}}, "no column 'prise' for the field. Did you mean 'price'?"),
    "wrong drop": (table(), {"drop": ["usr"]}, "no column 'usr' to drop. Did you mean 'user'?"),
    "nothing left": (table(), {"drop": ["user", "price", "genres", "when"]}, "a schema needs at least one field"),
    "one value": (
        table().with_columns(shop=pl.lit("x")),
        {},
        "shop.csv: column 'shop' has one value, 'x', in all 200 rows: drop it",
    ),
    "one class": (table().with_columns(click=pl.lit(1)), {}, "label 'click' is 1 in all 200 rows"),
    "header alone": (table().clear(), {}, "shop.csv is empty: no rows"),
    "NaN": (
        table().with_columns(price=pl.when(pl.col("when") < 5).then(float("nan")).otherwise("price")),
        {},
        "shop.csv: column 'price': 10 NaN of 200 values",
    ),
    "infinity": (
        table().with_columns(price=pl.when(pl.col("when") < 2).then(float("-inf")).otherwise("price")),
        {},
        "shop.csv: column 'price': 4 infinite of 200 values",
    ),
    "too few rows": (table()[:4], {"drop": ["when"]}, "split 'rows' of 4 rows leaves no rows for test"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_faulty_tables_are_refused_and_named(tmp_path: Path, name: str) -> None:
    frame, keys, message = FAULTY[name]
    with pytest.raises(InputError) as error:
        load_dataset({"name": "csv", "path": saved(tmp_path, frame), **keys})
    assert message in str(error.value)


def test_a_column_that_one_of_three_files_lacks(tmp_path: Path) -> None:
    for name, frame in (("train", table()), ("valid", table()), ("test", table().rename({"user": "usr"}))):
        saved(tmp_path, frame, f"{name}.parquet")
    with pytest.raises(InputError, match=r"test.parquet: missing column 'user'. Did you mean 'usr'\?"):
        load_dataset(tmp_path)


def test_files_of_other_integer_widths_join(tmp_path: Path) -> None:
    for name, dtype in (("train", pl.Int64), ("valid", pl.Int32), ("test", pl.Int16)):
        saved(tmp_path, table().with_columns(pl.col("when").cast(dtype)), f"{name}.parquet")
    config = {"name": "parquet", "path": str(tmp_path), "group": "when"}
    assert len(encode_dataset(load_dataset(config)).test) == ROWS
    mixed = load_dataset({**config, "split": {"kind": "rows"}})
    assert sum(map(len, mixed.splits.values())) == 3 * ROWS


def test_a_table_of_graded_documents(tmp_path: Path) -> None:
    """The query is no input, and documents of one query are not torn apart."""
    for place, name in enumerate(("train", "valid", "test")):
        rows = range(place * 30, place * 30 + 30)
        frame = pl.DataFrame(
            {
                "grade": [row % 3 for row in rows],
                "query": [row // 3 for row in rows],
                "length": [row / 7 for row in rows],
            }
        )
        frame.write_csv(tmp_path / f"{name}.csv")
    keys = {"name": "csv", "path": str(tmp_path), "label": "grade", "group": "query", "answer": "relevance"}
    dataset = load_dataset(keys)
    assert [each.name for each in dataset.schema.fields] == ["length"]
    assert (dataset.schema.answer, dataset.schema.group) == ("relevance", "query")
    with pytest.raises(InputError, match="of 'query' are in train and in valid"):
        load_dataset({**keys, "path": str(tmp_path / "train.csv"), "split": {"kind": "rows", "seed": 1}})
    with pytest.raises(InputError, match="answer 'relevance' needs a group"):
        load_dataset({**keys, "group": None})
