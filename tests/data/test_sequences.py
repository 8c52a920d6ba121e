"""Interactions as sequences: windows by hand and by a loop, both ways to hold out, and what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.rows import encode_dataset
from slimrank.data.sequences import Sequences, sequences, windows

NAMED = {"name": "met"}


def lists(*items: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {"user": range(len(items)), "items": list(items)}, schema_overrides={"items": pl.List(pl.Int64)}
    )


def met(**users: str) -> pl.DataFrame:
    """One interaction a letter, users by turns: ann="abc" met a, then b, then c."""
    longest = max(map(len, users.values()))
    rows = [(user, items[place]) for place in range(longest) for user, items in users.items() if place < len(items)]
    return pl.DataFrame(rows, schema=["user", "item"], orient="row")


def rows_of(frame: pl.DataFrame) -> dict[str, tuple[str, str]]:
    """By user the history as a word, and the answer."""
    return {user: ("".join(history), item) for user, history, item in frame.select("user", "history", "item").rows()}


def test_windows_by_hand() -> None:
    found = windows(lists([1, 2, 3, 4, 5, 6], [7, 8], [9], []), 3)
    assert found.rows() == [(0, [3, 4, 5], 6), (0, [1, 2], 3), (1, [7], 8)]


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9, 22])
def test_every_item_but_the_first_is_the_next_one_once(count: int, length: int) -> None:
    items = list(range(100, 100 + count))
    found = windows(lists(items), length)
    nexts: list[int] = []
    for history, item in found.select("history", "item").rows():
        whole = [*history, item]
        start = items.index(whole[0])
        assert whole == items[start : start + len(whole)]
        assert 1 <= len(history) <= length
        nexts += whole[1:]
    assert sorted(nexts) == items[1:]
    assert all(len(history) == length for history in found["history"][:-1])  # all but the oldest are full
    assert found["item"][0] == items[-1]


def test_the_last_two_of_every_user_are_held_out() -> None:
    dataset = sequences(Sequences(**NAMED, max_length=2), met(ann="abcdab", bob="bca", cy="ab", dot="c"))
    assert rows_of(dataset.test) == {"ann": ("abcda", "b"), "bob": ("bc", "a")}
    assert rows_of(dataset.valid) == {"ann": ("abcd", "a"), "bob": ("b", "c")}
    train = [(user, "".join(h), item) for user, h, item in dataset.train.select("user", "history", "item").rows()]
    assert sorted(train) == [("ann", "a", "b"), ("ann", "bc", "d"), ("cy", "a", "b")]
    assert dataset.facts == {"users": 4, "users_without_test": 2}
    assert (dataset.schema.answer, dataset.schema.catalogue, dataset.schema.group) == ("item", "history", "user")


def test_all_users_are_cut_at_the_same_two_moments() -> None:
    draw = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "user": draw.integers(0, 20, 500),
            "item": np.arange(500),  # each item once, so that it tells when it was met
            "time": np.sort(draw.integers(0, 300, 500)),
        }
    )
    dataset = sequences(Sequences(**NAMED, split="time", held_out=(0.2, 0.3), max_length=5), frame)
    when = dict(frame.select("item", "time").rows())
    ends = {}
    for split, rows in dataset.splits.items():
        ends[split] = [when[item] for item in rows["item"]]
        for history, item in rows.select("history", "item").rows():
            assert max(when[each] for each in history) <= when[item]
    train = {item for history in dataset.train["history"] for item in history} | set(dataset.train["item"])
    assert max(when[item] for item in train) < min(ends["valid"]) <= max(ends["valid"]) < min(ends["test"])
    first, second = min(ends["valid"]), min(ends["test"])
    assert sum(time < first for time in when.values()) == pytest.approx(250, abs=5)
    assert sum(first <= time < second for time in when.values()) == pytest.approx(100, abs=5)
    for rows, start in ((dataset.valid, first), (dataset.test, second)):
        for user, history, item in rows.select("user", "history", "item").rows():  # the first after the cut, after all
            own = frame.filter(pl.col("user") == user)
            assert own.filter(pl.col("time") >= start)["item"][0] == item
            assert own.filter(pl.col("time") < start)["item"].to_list() == history


def test_users_that_are_new_after_a_cut_are_not_asked() -> None:
    frame = pl.DataFrame(
        {
            "user": [1, 1, 2, 2, 1, 3, 2, 4, 1, 3],
            "item": ["a", "b", "b", "a", "c", "a", "c", "a", "d", "b"],
            "time": range(10),
        }
    )
    dataset = sequences(Sequences(**NAMED, split="time", held_out=(0.3, 0.3)), frame)
    assert sorted(dataset.valid.select("user", "item").rows()) == [(1, "c"), (2, "c")]  # 3 begins here
    assert sorted(dataset.test.select("user", "history", "item").rows()) == [
        (1, ["a", "b", "c"], "d"),
        (3, ["a"], "b"),
    ]
    assert dataset.facts == {"users": 4, "users_without_test": 2}


def test_interactions_in_any_order_of_users_keep_the_order_within_each() -> None:
    frame = met(ann="abcd", bob="dcba", cy="bdac")
    by_user = frame.sort("user", maintain_order=True)
    one, other = (sequences(Sequences(**NAMED), each) for each in (frame, by_user))
    assert rows_of(one.test) == rows_of(other.test)


def test_items_are_encoded_with_the_labels_among_them() -> None:
    dataset = sequences(Sequences(**NAMED, max_length=3), met(ann="aabcz", bob="bacd", cy="cab"))
    encoded = encode_dataset(dataset)
    values = encoded.encoding.codecs["history"].values.to_list()
    assert values == ["a", "b"]  # of the windows of train alone, aa-b and b-a: c is all that cy has there
    labels = dict(zip(dataset.test["user"], encoded.test.label.tolist(), strict=True))
    assert labels == {"ann": 1, "bob": 1, "cy": 3}  # z and d were never met: out of vocabulary
    assert encoded.train.label.dtype == np.int64
    assert (encoded.train.label >= 2).all()


@pytest.mark.parametrize(
    ("frame", "settings", "message"),
    [
        (pl.DataFrame({"usr": [1], "item": [1]}), {}, r"met: missing column 'user'\. Did you mean 'usr'\?"),
        (pl.DataFrame({"user": [1, None], "item": [1, 2]}), {}, "met: 1 of 2 values of 'user' are missing"),
        (pl.DataFrame({"user": [1, 2], "item": [None, 2]}), {}, "met: 1 of 2 values of 'item' are missing"),
        (pl.DataFrame({"user": [1], "item": [1]}), {"split": "time"}, "met: missing column 'time'"),
        (met(ann="ab", bob="ba"), {}, "met, valid: no rows"),
        (met(ann="abc", bob="bca"), {}, "met, train: no rows"),
        (
            pl.DataFrame({"user": [], "item": []}, schema={"user": pl.Int64, "item": pl.Int64}),
            {},
            "met, train: no rows",
        ),
        (
            pl.DataFrame({"user": [1, 1, 1, 1], "item": [0.5, 1.5, 2.5, 3.5]}),
            {},
            "label 'item' is of type Float64. Allowed: one item, an integer or text",
        ),
    ],
)
def test_what_is_no_sequence_is_refused(frame: pl.DataFrame, settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sequences(Sequences.parse({**NAMED, **settings}), frame)


def test_shares_that_leave_no_train_rows_are_refused() -> None:
    frame = pl.DataFrame({"user": [1] * 10, "item": range(10), "time": range(10)})
    with pytest.raises(InputError, match="held_out"):
        sequences(Sequences.parse({**NAMED, "split": "time", "held_out": (0.6, 0.4)}), frame)
