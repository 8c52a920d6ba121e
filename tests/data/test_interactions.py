"""Leave-last-out and drawn negatives: from arithmetic, against a loop, and what must not leak between splits."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from slimrank.config import InputError
from slimrank.data.interactions import Interactions, draw_unmet, leave_last_out
from slimrank.data.rows import encode_dataset

CONFIG = Interactions(name="shop", negatives=3, held_out_negatives=5)


def interactions(seed: int, users: int = 30, items: int = 40) -> pl.DataFrame:
    """3 to 12 distinct items a user, low numbers more often than high ones, users in turns."""
    draw = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        chosen = np.unique(draw.zipf(1.2, draw.integers(20, 60)).clip(1, items))
        rows += [(place, user, int(item)) for place, item in enumerate(draw.permutation(chosen)[:12])]
    return pl.DataFrame(sorted(rows), schema=["place", "user", "item"], orient="row").drop("place")


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    user, item = np.array(pairs, np.int64).reshape(-1, 2).T
    return user, item


def test_the_unmet_item_from_arithmetic() -> None:
    # Of five items user 0 met all but 3, user 1 none, user 2 all but 0 and 4 (2 twice).
    user, item = arrays([(0, 0), (0, 4), (0, 1), (0, 2), (2, 2), (2, 2), (2, 1), (2, 3)])
    assert draw_unmet(user, item, 5, np.zeros(9, np.int64), (1,)).tolist() == [3] * 9
    assert set(draw_unmet(user, item, 5, np.full(200, 2), (1,)).tolist()) == {0, 4}
    assert set(draw_unmet(user, item, 5, np.full(200, 1), (1,)).tolist()) == {0, 1, 2, 3, 4}
    assert set(draw_unmet(user, item, 5, np.full(200, 7), (1,)).tolist()) == {0, 1, 2, 3, 4}  # a user without any
    assert draw_unmet(user, item, 5, np.zeros(0, np.int64), (1,)).tolist() == []


@pytest.mark.parametrize("seed", range(4))
def test_unmet_items_are_drawn_evenly_among_those_that_a_loop_finds(seed: int) -> None:
    frame = interactions(seed, users=6, items=15).unique(maintain_order=True)
    user, item = frame["user"].cast(pl.Int64).to_numpy(), frame["item"].to_numpy() - 1
    drawn = draw_unmet(user, item, 15, np.arange(6).repeat(6000), (seed,)).reshape(6, 6000)
    for each in range(6):
        unmet = sorted(set(range(15)) - set(item[user == each].tolist()))
        count = np.bincount(drawn[each], minlength=15)
        assert np.flatnonzero(count).tolist() == unmet
        expected = 6000 / len(unmet)
        assert ((count[unmet] - expected) ** 2 / expected).sum() < len(unmet) + 5 * np.sqrt(2 * len(unmet))


def test_who_met_everything_has_no_negative() -> None:
    user, item = arrays([(0, 0), (0, 1), (1, 0)])
    with pytest.raises(InputError, match="1 users met every one of the 2 items"):
        draw_unmet(user, item, 2, np.array([1, 0]), (1,))
    assert draw_unmet(user, item, 2, np.array([1]), (1,)).tolist() == [1]


def test_the_last_item_is_test_and_the_one_before_validation() -> None:
    user, item = ["a", "b", "a", "c", "a", "b", "c", "b", "a", "c"], [7, 8, 9, 1, 8, 7, 2, 5, 6, 3]
    dataset = leave_last_out(CONFIG, pl.DataFrame({"user": user, "item": item}))
    positive = pl.col("label") == 1
    assert [split.filter(positive).drop("label").rows() for split in dataset.splits.values()] == [
        [("a", 7), ("b", 8), ("a", 9), ("c", 1)],
        [("a", 8), ("b", 7), ("c", 2)],
        [("b", 5), ("a", 6), ("c", 3)],
    ]
    assert dataset.schema.group == "user"
    drawn = dataset.train.filter(~positive).group_by("user").agg("item")
    unmet = {"a": {8, 1}, "b": {7, 9, 1}, "c": {7, 8, 9}}  # of 7, 8, 9 and 1, which train knows
    assert all(set(items) <= unmet[name] for name, items in drawn.iter_rows())


def test_each_interaction_is_followed_by_its_negatives() -> None:
    dataset = leave_last_out(CONFIG, interactions(1))
    for name, count in (("train", 3), ("valid", 5), ("test", 5)):
        frame = dataset.splits[name]
        assert (
            frame["label"].to_numpy().reshape(-1, count + 1).sum(axis=0).tolist()
            == [len(frame) // (count + 1)] + [0] * count
        )
        users = frame["user"].to_numpy().reshape(-1, count + 1)
        assert (users == users[:, :1]).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_split_draws_from_its_past_and_present_and_spares_nothing_of_the_future(seed: int) -> None:
    frame = interactions(seed)
    dataset = leave_last_out(CONFIG.model_copy(update={"negatives": 999, "held_out_negatives": 999}), frame)
    met: dict[int, set[int]] = {}
    for split in dataset.splits.values():
        for user, item in split.filter(pl.col("label") == 1).select("user", "item").iter_rows():
            met.setdefault(user, set()).add(item)
        known = set().union(*met.values())
        for user, items in split.filter(pl.col("label") == 0).group_by("user").agg("item").iter_rows():
            assert set(items) == known - met[user]


def test_the_seed_decides_the_negatives_and_nothing_else() -> None:
    frame = interactions(2)
    one, same = (leave_last_out(CONFIG, frame) for _ in range(2))
    other = leave_last_out(CONFIG.model_copy(update={"seed": 1}), frame)
    assert one.fingerprint == same.fingerprint != other.fingerprint
    for name, rows in one.splits.items():
        positive = pl.col("label") == 1
        assert rows.filter(positive).equals(other.splits[name].filter(positive))
        assert not rows.filter(~positive).equals(other.splits[name].filter(~positive))


def test_ids_are_sorted_by_interactions_and_not_by_draws() -> None:
    dataset = leave_last_out(CONFIG, interactions(3))
    encoded = encode_dataset(dataset)
    count = encoded.encoding.counts["item"]
    assert count[0] == 0
    assert (np.diff(count[1:]) <= 0).all()
    ids, positive = encoded.train.inputs.ids[:, 1], encoded.train.label == 1
    assert np.bincount(ids[positive], minlength=len(count)).tolist() == count.tolist()
    assert (np.diff(np.bincount(ids)[1:]) > 0).any()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"user": [1, 1, 1], "itm": [1, 2, 3]}, "shop: missing column 'item'. Did you mean 'itm'?"),
        ({"user": [1, 1, None], "item": [1, 2, 3]}, "shop: 1 of 3 values of 'user' are missing"),
        ({"user": [1, 1, 1, 2, 2, 3], "item": [1, 2, 3, 1, 2, 4]}, "2 users have fewer than 3 interactions, such as 2"),
        ({"user": [1, 1, 1], "item": [1, 2, 3]}, "1 users met every one of the 1 items"),
        ({"user": [], "item": []}, "no rows"),
    ],
)
def test_what_cannot_be_held_out_is_refused(frame: dict[str, list[int]], message: str) -> None:
    with pytest.raises(InputError) as error:
        leave_last_out(CONFIG, pl.DataFrame(frame))
    assert message in str(error.value)
