from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.splits import Split, divide


def table(times: list[int | None]) -> pl.DataFrame:
    return pl.DataFrame({"row": range(len(times)), "time": times}, schema_overrides={"time": pl.Int64})


@pytest.mark.parametrize("rows", [10, 11, 99, 1000])
def test_rows_are_drawn_once_each_by_seed(rows: int) -> None:
    frame = table(list(range(rows)))
    parts = divide((frame,), Split(kind="rows", seed=1))
    assert sorted(row for part in parts for row in part["row"]) == list(range(rows))
    assert [len(part) for part in parts] == pytest.approx([0.8 * rows, 0.1 * rows, 0.1 * rows], abs=1)
    assert all(part["row"].is_sorted() for part in parts)
    again, other = divide((frame,), Split(kind="rows", seed=1)), divide((frame,), Split(kind="rows", seed=2))
    assert all(one.equals(two) for one, two in zip(parts, again, strict=True))
    assert not all(one.equals(two) for one, two in zip(parts, other, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_time_never_goes_back_and_ties_stay_together(seed: int) -> None:
    times = np.random.default_rng(seed).integers(0, 40, 500).tolist()
    parts = divide((table(times),), Split(kind="time"), "time")
    assert sum(map(len, parts)) == 500
    for earlier, later in ((0, 1), (1, 2)):
        assert parts[earlier]["time"].max() < parts[later]["time"].min()  # type: ignore[operator]
    assert [len(part) for part in parts] == pytest.approx([400, 50, 50], abs=12)


def test_the_cut_goes_to_the_nearest_change_of_time() -> None:
    # of ten rows the cuts fall at 8 and 9; times change at 7 and 9
    parts = divide((table([0, 0, 0, 1, 1, 1, 1, 2, 2, 3]),), Split(kind="time"), "time")
    assert [len(part) for part in parts] == [7, 2, 1]


@pytest.mark.parametrize(
    ("times", "split", "time", "message"),
    [
        ([1] * 10, Split(kind="time"), "time", "split 'time' of 10 rows leaves no rows for"),
        ([1, 2], Split(kind="rows"), None, "split 'rows' of 2 rows leaves no rows for valid"),
        ([], Split(kind="rows"), None, "split 'rows' of 0 rows leaves no rows for train, valid, test"),
        ([], Split(kind="time"), "time", "split 'time' of 0 rows leaves no rows for train, valid, test"),
        ([1, 2], Split(kind="time"), None, "split 'time' needs a time column"),
        ([1, None, None], Split(kind="time"), "time", "2 of 3 values of column 'time' are missing"),
        ([1, 2], Split(kind="given"), None, "split 'given' needs three tables"),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    times: list[int | None], split: Split, time: str | None, message: str
) -> None:
    with pytest.raises(InputError) as error:
        divide((table(times),), split, time)
    assert message in str(error.value)


def test_given_tables_stay_or_are_joined_for_another_split() -> None:
    frames = (table([5, 6]), table([3, 4]), table([1, 2, 7, 8, 9, 10]))
    assert all(one is two for one, two in zip(divide(frames, Split(kind="given")), frames, strict=True))
    assert [len(part) for part in divide(frames, Split(kind="time"), "time")] == [8, 1, 1]
    with pytest.raises(InputError, match="leaves no rows for test"):
        divide((*frames[:2], frames[2][:0]), Split(kind="given"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"fractions": [0.8, 0.1, 0.2]}, "fractions must add up to 1, these add up to 1.1"),
        ({"fractions": [1.0, 0.0, 0.0]}, "fractions.0: Input should be less than 1, got 1.0"),
        ({"kind": "random"}, "kind: Input should be 'given', 'time' or 'rows', got 'random'"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0, got -1"),
    ],
)
def test_faulty_splits_are_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        Split.parse(keys)
    assert message in str(error.value)


def test_train_ends_earlier_and_nothing_else_changes() -> None:
    times = sorted(np.random.default_rng(0).integers(0, 50, 400).tolist())
    whole = divide((table(times),), Split(kind="time"), "time")
    last = int(whole[0]["time"].max())  # type: ignore[arg-type]
    for until in (10, last - 1, last, last + 1):
        train, valid, test = divide((table(times),), Split(kind="time", train_until=until), "time")
        assert train.equals(whole[0].filter(pl.col("time") < until))
        assert valid.equals(whole[1])
        assert test.equals(whole[2])


def test_train_ends_at_a_moment_where_times_are_moments() -> None:
    times = pl.DataFrame({"time": [datetime(2024, 1, day) for day in range(1, 11)]})
    split = Split.parse({"kind": "time", "train_until": "2024-01-06T00:00:00"})
    assert len(divide((times,), split, "time")[0]) == 5
    with pytest.raises(InputError, match=r"train_until: 5 is no value of column 'time' \(Datetime"):
        divide((times,), Split(kind="time", train_until=5), "time")


@pytest.mark.parametrize(
    ("until", "message"),
    [
        (0, "train_until: 0 leaves no train rows; the first is of 3"),
        (datetime(2024, 1, 1), r"train_until: datetime\S+ 1, 1, 0, 0\) is no value of column 'time' \(Int64\)"),
    ],
)
def test_an_end_of_train_that_cannot_be_is_refused(until: int | datetime, message: str) -> None:
    with pytest.raises(InputError, match=message):
        divide((table(list(range(3, 33))),), Split(kind="time", train_until=until), "time")


def test_an_end_of_train_is_for_splits_by_time() -> None:
    with pytest.raises(InputError, match="train_until is for kind 'time', and kind is 'rows'"):
        Split.parse({"kind": "rows", "train_until": 3})
    assert "train_until" not in Split(kind="time").model_dump()
