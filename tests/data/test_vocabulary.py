from __future__ import annotations

import zlib

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.vocabulary import MANY_ROWS, Hashed, Identity, Vocabulary, canonical, through_unique

HUGE = 2**63 - 1
COLUMNS = {
    "empty": pl.Series("x", [], dtype=pl.Int64),
    "one row": pl.Series("x", [3]),
    "all missing": pl.Series("x", [None, None]),
    "text": pl.Series("x", ["b", "a", "b", None, "", "naïve", "日本", "🎬", "a b"]),
    "negative": pl.Series("x", [-5, -5, 0, None, 7]),
    "huge": pl.Series("x", [HUGE, -HUGE - 1, 0, HUGE, None]),
    "beyond 64 bits": pl.Series("x", [2**64 - 1, 1, 2**64 - 1], dtype=pl.UInt64),
    "boolean": pl.Series("x", [True, False, None, True]),
    "whole floats": pl.Series("x", [1.0, 2.0, float("nan"), None]),
    "fractions": pl.Series("x", [1.5, 2.0, 1.5, None]),
    "infinite": pl.Series("x", [float("inf"), 1.0]),
    "enum": pl.Series("x", ["b", "a", "b"], dtype=pl.Enum(["a", "b"])),
    "categories": pl.Series("x", ["b", "a", "b"], dtype=pl.Categorical),
    "decimal": pl.Series("x", ["1.0", "2.0"]).cast(pl.Decimal(10, 2)),
}


def brute_force(series: pl.Series, min_count: int = 1) -> dict[object, int]:
    """Value to code by counting in Python."""
    values = canonical(series).drop_nulls().to_list()
    counts = {value: values.count(value) for value in values}
    kept = sorted((v for v, n in counts.items() if n >= min_count), key=lambda v: (-counts[v], str(v).encode()))
    if values and isinstance(values[0], int):
        kept = sorted((v for v, n in counts.items() if n >= min_count), key=lambda v: (-counts[v], v))
    return {value: place + 1 for place, value in enumerate(kept)}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("min_count", [1, 2])
def test_codes_are_by_falling_frequency_then_by_value(name: str, min_count: int) -> None:
    series = COLUMNS[name]
    vocabulary = Vocabulary.fit(series, min_count)
    table = brute_force(series, min_count)
    codes, unknown = vocabulary.codes(series)
    values = canonical(series).to_list()
    assert codes.dtype == np.int32
    assert codes.tolist() == [table.get(value, 0) for value in values]
    assert unknown == sum(value is not None and value not in table for value in values)
    assert vocabulary.size == len(table) + 1


def test_order_of_rows_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    for values in (generator.zipf(1.5, 2000) % 300, generator.zipf(1.5, 2000) % (1 << 40)):
        series = pl.Series("x", values)
        mixed = series[generator.permutation(len(series))]
        assert Vocabulary.fit(series, 1).values.equals(Vocabulary.fit(mixed, 1).values)
        text = series.cast(pl.String)
        assert Vocabulary.fit(text, 1).values.equals(Vocabulary.fit(mixed.cast(pl.String), 1).values)


@pytest.mark.parametrize("spread", [1, 1 << 40])
def test_close_and_scattered_integers_agree_with_a_dict(spread: int) -> None:
    generator = np.random.default_rng(1)
    known = pl.Series("x", generator.integers(-200, 200, 500) * spread)
    asked = pl.Series("x", [*generator.integers(-300, 300, 500) * spread, HUGE, -HUGE - 1, 1, None])
    table = brute_force(known)
    vocabulary = Vocabulary.fit(known, 1)
    codes, unknown = vocabulary.codes(asked)
    many = pl.concat([asked] * 10)
    assert len(many) > MANY_ROWS
    assert vocabulary.codes(many)[0].tolist() == codes.tolist() * 10
    assert codes.tolist() == [table.get(value, 0) for value in asked.to_list()]
    assert unknown == sum(value is not None and value not in table for value in asked.to_list())


def test_a_value_is_the_same_whatever_type_it_comes_in() -> None:
    numbers = Vocabulary.fit(pl.Series("x", [7, 7, 9]), 1)
    for same in (["7", "9", "x"], [7.0, 9.0, 0.5]):
        assert numbers.codes(pl.Series("x", same))[0].tolist() == [1, 2, 0]
    text = Vocabulary.fit(pl.Series("x", ["7", "7", "9"]), 1)
    for same in ([7, 9], [7.0, 9.0], [7.0, 9.0, 0.5], [7.0, 9.0, float("inf"), float("nan")]):
        assert text.codes(pl.Series("x", same))[0].tolist()[:2] == [1, 2]
    assert text.codes(pl.Series("x", [7, 9, 2**64 - 1], dtype=pl.UInt64))[0].tolist() == [1, 2, 0]
    assert Hashed(100).codes(pl.Series("x", [7]))[0] == Hashed(100).codes(pl.Series("x", ["7"]))[0]


def test_many_rows_go_through_their_distinct_values_with_the_same_codes() -> None:
    series = pl.Series("x", [None, "a", "b", "c"] * MANY_ROWS)
    calls = []

    def code(value: str) -> int:
        calls.append(value)
        return ord(value) - 96

    assert through_unique(series, code).tolist() == [0, 1, 2, 3] * MANY_ROWS
    assert sorted(calls) == ["a", "b", "c"]
    assert through_unique(series[:7], code).tolist() == [0, 1, 2, 3, 0, 1, 2]


def test_hash_is_one_and_the_crc32_of_the_text() -> None:
    series = pl.Series("x", ["tea", "日本", None, ""])
    expected = [1 + zlib.crc32(text.encode()) % 10 for text in ("tea", "日本")] + [0, 1 + zlib.crc32(b"") % 10]
    assert Hashed(10).codes(series)[0].tolist() == expected
    assert Hashed(10).codes(series)[1] == 0
    assert Hashed(10).size == 11


def test_identity_is_the_raw_id_and_one() -> None:
    codes, unknown = Identity(10).codes(pl.Series("x", [0, 9, None, 3]))
    assert codes.tolist() == [1, 10, 0, 4]
    assert unknown == 0
    assert Identity(10).size == 11


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([-1, 3, 10, -1], "column 'x': 3 of 4 raw ids out of range, such as -1, 10. Allowed: 0..9."),
        (["1", "tea", None, "2"], "column 'x': 1 of 4 raw ids out of range, such as 'tea'. Allowed: 0..9."),
        ([0.5, 1.0], "column 'x': 1 of 2 raw ids out of range, such as 0.5. Allowed: 0..9."),
        ([HUGE, 0], f"column 'x': 1 of 2 raw ids out of range, such as {HUGE}. Allowed: 0..9."),
    ],
)
def test_raw_ids_out_of_range_are_refused_and_counted(raw: list[object], message: str) -> None:
    with pytest.raises(InputError) as error:
        Identity(10).codes(pl.Series("x", raw))
    assert str(error.value) == message


@pytest.mark.parametrize("values", [[[1]], [b"a"], [{"a": 1}]])
def test_types_without_ids_are_refused(values: list[object]) -> None:
    with pytest.raises(InputError, match=r"column 'x': .* holds no ids; text or integers are allowed"):
        Vocabulary.fit(pl.Series("x", values), 1)
