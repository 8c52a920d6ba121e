from __future__ import annotations

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
