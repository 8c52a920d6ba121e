"""A row for every interaction: what was known of its user before, and no more."""

import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.queries import Queries, queries
from slimrank.data.rows import encode_dataset
from slimrank.data.schema import Field

FRAME = pl.DataFrame(
    {
        "user": ["a", "b", "a", "a", "b", "c", "b", "a", "b", "a"],
        "item": [1, 2, 3, 4, 1, 3, 4, 5, 5, 2],
        "time": list(range(10)),
    }
)


def rows(frame: pl.DataFrame) -> list[tuple]:
    return sorted(
        (user, tuple(history), item) for user, history, item in frame.select("user", "history", "item").rows()
    )


def config(**keys) -> Queries:
    return Queries(**{"name": "mine", "max_length": 2, **keys})


def test_every_interaction_of_train_is_a_row_with_what_came_before() -> None:
    found = queries(config(), FRAME)
    assert rows(found.train) == [
        ("a", (), 1),
        ("a", (1,), 3),
        ("a", (1, 3), 4),
        ("b", (), 2),
        ("b", (2,), 1),
    ]
    assert rows(found.valid) == [("a", (1, 3, 4), 5), ("b", (2, 1), 4)]
    assert rows(found.test) == [("a", (1, 3, 4, 5), 2), ("b", (2, 1, 4), 5)]


def test_user_and_history_are_inputs_and_the_item_shares_the_ids_of_the_history() -> None:
    encoded = encode_dataset(queries(config(), FRAME))
    assert encoded.encoding.schema.columns == ("user", "history", "history")
    train = encoded.train
    third = next(n for n in range(len(train)) if (train.inputs.ids[n, 1:] > 0).all())
    history = encoded.encoding.codecs["history"].values.to_list()
    assert [history[code - 2] for code in train.inputs.ids[third, 1:]] == [1, 3]
    assert history[train.label[third] - 2] == 4


def test_attributes_of_users_join_their_rows() -> None:
    users = pl.DataFrame({"user": ["b", "a"], "age": [30, 20], "other": [0, 0]})
    found = queries(config(), FRAME, users, (Field(name="age", kind="numeric"),))
    for frame in found.splits.values():
        assert set(frame.select("user", "age").rows()) == {("a", 20), ("b", 30)}


def test_attributes_that_do_not_fit_are_refused() -> None:
    field = (Field(name="age", kind="numeric"),)
    with pytest.raises(InputError, match=r"mine: users have no column 'age'. Did you mean 'agee'"):
        queries(config(), FRAME, pl.DataFrame({"user": ["a"], "agee": [1]}), field)
    with pytest.raises(InputError, match="mine: user 'a' has two rows of attributes, allowed is one"):
        queries(config(), FRAME, pl.DataFrame({"user": ["a", "a"], "age": [1, 2]}), field)


def test_a_split_by_time_knows_nothing_of_later() -> None:
    found = queries(config(split="time", held_out=(0.2, 0.2)), FRAME)
    assert len(found.train) == 5
    assert rows(found.valid) == [("a", (1, 3, 4), 5), ("b", (2, 1), 4)]
    assert rows(found.test) == [("a", (1, 3, 4, 5), 2), ("b", (2, 1, 4), 5)]
