"""Validation rows in two halves: apart, whole groups, the same every time, and both of two classes."""

import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.halves import GROUPS, halve
from slimrank.data.rows import make_dataset
from slimrank.data.schema import Schema


def dataset(valid: pl.DataFrame, group: str | None = None):
    fields = {"item": {"kind": "categorical"}}
    train = pl.DataFrame({"item": [1, 2] * 20, "label": [0, 1] * 20, "user": range(40)})
    schema = Schema.parse({"label": "label", "group": group, "fields": [{"name": "item", **fields["item"]}]})
    return make_dataset("made", schema, (train, valid, train))


def rows(users) -> pl.DataFrame:
    users = list(users)
    return pl.DataFrame({"item": range(len(users)), "label": [row % 2 for row in range(len(users))], "user": users})


def test_rows_are_in_one_half_and_in_one_alone() -> None:
    given = dataset(rows(range(101)))
    first, second = halve(given)
    assert sorted([*first.valid["item"], *second["item"]]) == list(range(101))
    assert abs(len(first.valid) - len(second)) <= 1
    assert first.test.equals(given.test)
    assert first.train.equals(given.train)


def test_groups_stay_whole_where_there_are_enough() -> None:
    users = [user for user in range(GROUPS) for _ in range(4)]
    first, second = halve(dataset(rows(users), "user"))
    assert not set(first.valid["user"]) & set(second["user"])
    assert first.valid["user"].n_unique() == GROUPS // 2


def test_a_missing_group_goes_to_one_half() -> None:
    users = [None, None, None, None, *(user for user in range(GROUPS) for _ in range(4))]
    first, second = halve(dataset(rows(users), "user"))
    assert len(first.valid) + len(second) == len(users)
    assert {first.valid["user"].null_count(), second["user"].null_count()} == {0, 4}


def test_few_groups_are_divided_by_row() -> None:
    first, second = halve(dataset(rows([1, 2, 3, 4] * 10), "user"))
    assert len(first.valid) == len(second) == 20


def test_the_same_halves_every_time_and_a_print_of_their_own() -> None:
    given = dataset(rows(range(50)))
    one, other = halve(given), halve(given)
    assert one[1].equals(other[1])
    assert one[0].fingerprint == other[0].fingerprint != given.fingerprint
    assert halve(given, seed=1)[0].fingerprint != one[0].fingerprint


def test_a_half_of_one_class_is_refused() -> None:
    valid = rows(range(40)).with_columns(label=pl.Series([1, *[0] * 39]))
    with pytest.raises(InputError, match=r"valid, (search|selection) half: label 'label' is 0 in all 20 rows"):
        halve(dataset(valid))
