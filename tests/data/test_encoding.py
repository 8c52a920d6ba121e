from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema

SCHEMA = Schema(
    fields=(
        Field(name="user", kind="categorical"),
        Field(name="price", kind="numeric"),
        Field(name="history", kind="sequence", max_length=2),
        Field(name="city", kind="categorical", min_count=2),
        Field(name="tags", kind="sequence", separator="|", max_length=3, encoding="hash", num_ids=4),
        Field(name="device", kind="categorical", encoding="identity", num_ids=3),
    )
)
ROWS = pl.DataFrame(
    {
        "user": [9, 7, 7, None],
        "price": [1.0, 3.0, None, 2.0],
        "history": [["tea", "jam", "tea"], [], None, ["rye", None]],
        "city": ["Ås", "Ås", "Oslo", None],
        "tags": ["a|b", "", None, "c||d|e|f"],
        "device": [0, 2, None, 1],
    }
)


def test_local_ids_from_arithmetic() -> None:
    encoding = Encoding.fit(SCHEMA, ROWS)
    inputs, unknown = encoding.encode_counting(ROWS)
    assert SCHEMA.columns == ("user", "city", "device", "history", "history", "tags", "tags", "tags")
    # history keeps the last two: [jam tea], [], [], [rye ?]; jam, rye and tea come once each, so by value: 2, 3, 4
    assert inputs.ids[:, :5].tolist() == [[2, 1, 1, 2, 4], [1, 1, 3, 0, 0], [1, 0, 0, 0, 0], [0, 0, 2, 3, 1]]
    assert (inputs.ids[:, 5:] > 0).sum(1).tolist() == [2, 0, 0, 3]
    assert inputs.ids[:, 5:].max() <= 5
    assert inputs.numbers[:, 0].tolist() == pytest.approx([-(1.5**0.5), 1.5**0.5, 0.0, 0.0])
    assert unknown == {"user": 0, "city": 1, "device": 0, "history": 0, "tags": 0}
    assert encoding.sizes == {"user": 3, "city": 2, "device": 4, "history": 5, "tags": 6}
    assert inputs.ids.dtype == np.int32
    assert inputs.numbers.dtype == np.float32


def test_drawn_negatives_do_not_count() -> None:
    rows = pl.DataFrame({"item": [5, 6, 6, 6, 7, 7, 8], "label": [1, 1, 0, 0, 1, 1, 0]})
    fields = (Field(name="item", kind="categorical"),)
    drawn = Encoding.fit(Schema(fields=fields, drawn_negatives=True), rows)
    assert drawn.counts["item"].tolist() == [0, 2, 1, 1]  # out of vocabulary, then 7, 5 and 6; 8 was never met
    assert drawn.encode(rows).ids[:, 0].tolist() == [2, 3, 3, 3, 1, 1, 0]
    observed = Encoding.fit(Schema(fields=fields), rows)
    assert observed.counts["item"].tolist() == [0, 3, 2, 1, 1]


def test_counts_are_how_often_each_local_id_occurs_in_train() -> None:
    encoding = Encoding.fit(SCHEMA, ROWS)
    assert encoding.counts["user"].tolist() == [1, 2, 1]
    assert encoding.counts["city"].tolist() == [2, 2]
    assert encoding.counts["history"].tolist() == [4, 1, 1, 1, 1]
    assert {name: len(count) for name, count in encoding.counts.items()} == encoding.sizes
    assert all(count.dtype == np.int64 for count in encoding.counts.values())


def test_only_train_is_fitted_and_the_unknown_is_counted() -> None:
    encoding = Encoding.fit(SCHEMA, ROWS)
    later = ROWS.with_columns(user=pl.Series([8, 7, None, 6]), history=pl.Series([["gin"], ["tea"], None, []]))
    inputs, unknown = encoding.encode_counting(later)
    assert inputs.ids[:, 0].tolist() == [0, 1, 0, 0]
    assert inputs.ids[:, 3].tolist() == [1, 4, 0, 0]
    assert unknown == {"user": 2, "city": 1, "device": 0, "history": 1, "tags": 0}


def test_a_mapping_of_columns_is_a_table() -> None:
    encoding = Encoding.fit(SCHEMA, ROWS)
    same = encoding.encode({name: ROWS[name].to_list() for name in ROWS.columns})
    assert (same.ids == encoding.encode(ROWS).ids).all()
    with pytest.raises(InputError, match="these columns make no table"):
        encoding.encode({"user": [1, 2], "price": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_saved_and_loaded_it_encodes_the_same(tmp_path: Path, rows: int) -> None:
    encoding = Encoding.fit(SCHEMA, ROWS[:rows])
    encoding.save(tmp_path)
    loaded = Encoding.load(tmp_path)
    for part in (ROWS, ROWS[:0], ROWS[:1]):
        assert (loaded.encode(part).ids == encoding.encode(part).ids).all()
        assert (loaded.encode(part).numbers == encoding.encode(part).numbers).all()
        assert len(loaded.encode(part)) == len(part)
    assert loaded.sizes == encoding.sizes
    assert loaded.counts == {}
    assert loaded.files() == encoding.files()


def test_the_same_rows_in_any_order_give_the_same_bytes() -> None:
    generator = np.random.default_rng(0)
    frame = pl.DataFrame({"i": generator.zipf(1.3, 5000) % 3000, "x": generator.integers(0, 9, 5000) * 0.5})
    frame = frame.with_columns(s=pl.col("i").cast(pl.String))
    fields = [Field(name=n, kind="categorical") for n in ("i", "s")] + [Field(name="x", kind="numeric")]
    schema = Schema(fields=tuple(fields))
    files = Encoding.fit(schema, frame).files()
    mixed = frame[generator.permutation(len(frame))]
    assert Encoding.fit(schema, mixed).files()["vocabulary.parquet"] == files["vocabulary.parquet"]
    assert Encoding.fit(schema, frame).files() == files


def test_the_vocabulary_holds_values_in_the_order_of_their_ids_and_integers_stay_integers(tmp_path: Path) -> None:
    encoding = Encoding.fit(SCHEMA, ROWS)
    encoding.save(tmp_path)
    stored = pl.read_parquet(tmp_path / "vocabulary.parquet")
    assert stored.schema == {"user": pl.List(pl.Int8), "history": pl.List(pl.String), "city": pl.List(pl.String)}
    assert stored.row(0) == ([7, 9], ["jam", "rye", "tea"], ["Ås"])


def test_numbers_alone_and_ids_alone(tmp_path: Path) -> None:
    for name, shapes in (("price", [(4, 0), (4, 1)]), ("user", [(4, 1), (4, 0)])):
        schema = Schema(fields=tuple(field for field in SCHEMA.fields if field.name == name))
        Encoding.fit(schema, ROWS).save(tmp_path / name)
        inputs = Encoding.load(tmp_path / name).encode(ROWS)
        assert [inputs.ids.shape, inputs.numbers.shape] == shapes


def test_lists_arrays_and_split_text_are_the_same_sequence() -> None:
    field = Field(name="s", kind="sequence", max_length=3, separator=" ")
    columns = [
        pl.Series("s", ["a b", "b c", "c a"]),
        pl.Series("s", [["a", "b"], ["b", "c"], ["c", "a"]]),
        pl.Series("s", [["a", "b"], ["b", "c"], ["c", "a"]], dtype=pl.Array(pl.String, 2)),
    ]
    encoded = [Encoding.fit(Schema(fields=(field,)), pl.DataFrame([c])).encode(pl.DataFrame([c])).ids for c in columns]
    assert encoded[0].tolist() == [[2, 3, 0], [3, 4, 0], [4, 2, 0]]
    assert all((each == encoded[0]).all() for each in encoded)


def test_rows_encode_one_by_one_as_together() -> None:
    encoding = Encoding.fit(SCHEMA, ROWS)
    together = encoding.encode(ROWS)
    for row in range(len(ROWS)):
        alone = encoding.encode(ROWS[row : row + 1])
        assert (alone.ids[0] == together.ids[row]).all()
        assert (alone.numbers[0] == together.numbers[row]).all()


@pytest.mark.parametrize("seed", range(5))
def test_ids_stay_within_sizes_for_any_rows(seed: int) -> None:
    generator = np.random.default_rng(seed)
    train, test = (random_rows(generator, int(generator.integers(1, 6000))) for _ in range(2))
    encoding = Encoding.fit(SCHEMA, train)
    for frame in (train, test):
        inputs, unknown = encoding.encode_counting(frame)
        for column, name in enumerate(SCHEMA.columns):
            assert inputs.ids[:, column].min(initial=0) >= 0
            assert inputs.ids[:, column].max(initial=0) < encoding.sizes[name]
        assert np.isfinite(inputs.numbers).all()
        missing = {name: frame[name].null_count() for name in ("user", "city")}
        for place, name in enumerate(("user", "city")):
            assert (inputs.ids[:, place] == 0).sum() == missing[name] + unknown[name]


def random_rows(generator: np.random.Generator, rows: int) -> pl.DataFrame:
    """Rows of the schema with missing values everywhere."""
    columns: dict[str, Callable[[], Any]] = {
        "user": lambda: int(generator.zipf(1.2)) % 2**50 - 40,
        "price": lambda: float(generator.normal() * 10.0 ** generator.integers(-9, 9)),
        "history": lambda: [str(n) for n in generator.integers(0, 9, generator.integers(0, 5))],
        "city": lambda: ["Ås", "日本", "", "a|b"][generator.integers(0, 4)],
        "tags": lambda: "|".join(str(n) for n in generator.integers(0, 9, generator.integers(0, 5))),
        "device": lambda: int(generator.integers(0, 3)),
    }
    values = {
        name: [None if generator.random() < 0.1 else make() for _ in range(rows)] for name, make in columns.items()
    }
    types = {"user": pl.Int64, "price": pl.Float64, "history": pl.List(pl.String), "city": pl.String, "tags": pl.String}
    return pl.DataFrame(values, schema_overrides=types | {"device": pl.Int64})


def test_all_faults_of_a_table_at_once() -> None:
    encoding = Encoding.fit(SCHEMA, ROWS)
    wrong = ROWS.rename({"user": "usr"}).with_columns(
        price=pl.Series([float("nan"), 1.0, float("inf"), 2.0]), device=pl.Series([3, 0, -1, 1]), history=pl.lit(5)
    )
    with pytest.raises(InputError) as error:
        encoding.encode(wrong)
    assert str(error.value).splitlines() == [
        "missing column 'user'. Did you mean 'usr'? Allowed: city, device, history, price, tags, usr.",
        "column 'price': 1 NaN and 1 infinite of 4 values. Allowed: finite or missing.",
        "column 'history' is of type Int32, a sequence is a list, or text with a separator",
        "column 'device': 2 of 4 raw ids out of range, such as 3, -1. Allowed: 0..2.",
    ]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def store(path: Path, **columns: pl.Series) -> None:
    frame = pl.read_parquet(path / "vocabulary.parquet").with_columns(**columns)
    frame.write_parquet(path / "vocabulary.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "schema.json").unlink(), "schema.json: no such file"),
        (lambda p: (p / "vocabulary.parquet").unlink(), "vocabulary.parquet: no such file"),
        (lambda p: (p / "schema.json").write_text("{"), "schema.json: not a schema"),
        (lambda p: (p / "schema.json").write_text("[]"), "it needs the keys schema, sizes and numbers"),
        (lambda p: edit(p / "schema.json", lambda r: r["schema"].update(feilds=1)), "unknown key 'feilds'"),
        (lambda p: edit(p / "schema.json", lambda r: r["sizes"].update(user=99)), "does not fit schema.json"),
        (lambda p: edit(p / "schema.json", lambda r: r["numbers"].update(price=[0, 0])), "numbers.price is [0, 0]"),
        (
            lambda p: edit(p / "schema.json", lambda r: r["numbers"].clear()),
            "numbers are [], the schema says ['price']",
        ),
        (lambda p: (p / "vocabulary.parquet").write_bytes(b""), "truncated, or not a Parquet file"),
        (
            lambda p: (p / "vocabulary.parquet").write_bytes((p / "vocabulary.parquet").read_bytes()[:-9]),
            "truncated, or not a Parquet file",
        ),
        (lambda p: store(p, user=pl.Series([[7, 7]])), "values of 'user' are not distinct"),
        (lambda p: store(p, user=pl.Series([[7, 9, 11]])), "does not fit schema.json"),
        (lambda p: store(p, user=pl.Series([[2**64 - 1]], dtype=pl.List(pl.UInt64))), "neither integers nor text, or"),
        (lambda p: store(p, user=pl.Series([[7, None]])), "neither integers nor text, or some are missing"),
        (lambda p: store(p, user=pl.Series([[0.5, 1.5]])), "neither integers nor text, or some are missing"),
        (lambda p: store(p, user=pl.Series([7])), "columns ['user'] hold no list of values"),
        (lambda p: store(p, other=pl.Series([[7]])), "it holds ['city', 'history', 'other', 'user']"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    Encoding.fit(SCHEMA, ROWS).save(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError) as error:
        Encoding.load(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)
