"""Interactions as sequences: what a user met, oldest first, and the item that came next.

Leave-one-out keeps the last item of every user for the test and the one before for validation. A split by time cuts all
users at the same two moments, so that no model knows what others did later; a user's first item after a cut is to be
found. Train rows are windows of a user's items, as long as the model reads, that overlap by one: every item but the
first is the next one of exactly one window. Left out: negatives, which a loss draws by itself.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import AfterValidator, PositiveInt
from pydantic import Field as Bound

from slimrank.config import Config, InputError, nearest
from slimrank.data.rows import Dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.data.splits import Share, Split, by_time

USER, ITEM, TIME, HISTORY = "user", "item", "time", "history"


def _leaves_some(held_out: tuple[float, float]) -> tuple[float, float]:
    if sum(held_out) >= 1:
        raise ValueError(f"held_out must leave some for train, these add up to {sum(held_out):g}")
    return held_out


class Sequences(Config):
    """What a table of users and items is turned into.

    Attributes:
        max_length: items that a model reads; of longer histories the most recent are kept.
        split: `leave-one-out`, or `time`: all users are cut at the same two moments.
        held_out: shares of the interactions that lie after the first and after the second moment of a split by time.
    """

    name: str
    max_length: PositiveInt = 200
    split: Literal["leave-one-out", "time"] = "leave-one-out"
    held_out: Annotated[tuple[Share, Share], AfterValidator(_leaves_some)] = Bound(default=(0.1, 0.1))


def sequences(config: Sequences, frame: pl.DataFrame) -> Dataset:
    """The dataset in interactions `user`, `item` and, for a split by time, `time`, in order within each user.

    Frames have `user`, `history` (all that came before, oldest first) and `item`, the answer. Users with too few
    interactions for a held-out item are in train alone; `facts` says how many.

    Raises:
        InputError: a column is missing or has gaps, or a split has no rows.
    """
    wanted = [USER, ITEM] + ([TIME] if config.split == "time" else [])
    for name in wanted:
        if name not in frame.columns:
            raise InputError(f"{config.name}: missing column {name!r}. {nearest(name, frame.columns)}")
        if missing := frame[name].null_count():
            raise InputError(f"{config.name}: {missing} of {len(frame)} values of {name!r} are missing")
    place = _by_last(frame) if config.split == "leave-one-out" else _by_moment(config, frame)
    frame = frame.select(USER, ITEM).with_columns(place=place)
    splits = (windows(_lists(frame, 0), config.max_length), _next_items(frame, 1), _next_items(frame, 2))
    history = Field(name=HISTORY, kind="sequence", max_length=config.max_length)
    schema = Schema(fields=(history,), label=ITEM, group=USER, answer="item", catalogue=HISTORY)
    users, asked = frame[USER].n_unique(), splits[2][USER].n_unique()
    facts = {"users": users, "users_without_test": users - asked}
    return make_dataset(config.name, schema, splits, facts)


def _by_last(frame: pl.DataFrame) -> pl.Series:
    """The split of every interaction: 2 for a user's last, 1 for the one before, 0 for all else and short users."""
    left = pl.len().over(USER) - 1 - pl.int_range(pl.len()).over(USER)
    place = pl.when(pl.len().over(USER) < 3).then(0).otherwise((2 - left.cast(pl.Int64)).clip(0))
    return frame.select(place=place)["place"]


def _by_moment(config: Sequences, frame: pl.DataFrame) -> pl.Series:
    """The split of every interaction by its time."""
    valid, test = config.held_out
    numbered = frame.with_row_index("row")
    _, second, third = by_time(numbered, Split(kind="time", fractions=(1 - valid - test, valid, test)), TIME)
    place = np.zeros(len(frame), np.int64)
    place[second["row"].to_numpy()] = 1
    place[third["row"].to_numpy()] = 2
    return pl.Series(place)


def _lists(frame: pl.DataFrame, place: int) -> pl.DataFrame:
    """`user` and `items`, the list of all that a user met in the splits up to `place`."""
    known = frame.filter(pl.col("place") <= place)
    return known.group_by(USER, maintain_order=True).agg(items=pl.col(ITEM))


def _next_items(frame: pl.DataFrame, place: int) -> pl.DataFrame:
    """The first item of every user in a split, after all that the user met before; users without either are not asked.

    With leave-one-out it is the only one.
    """
    first = frame.filter(pl.col("place") == place).group_by(USER, maintain_order=True).agg(pl.col(ITEM).first())
    before = _lists(frame, place - 1).rename({"items": HISTORY})
    return first.join(before, on=USER, how="inner", maintain_order="left").select(USER, HISTORY, ITEM)


def windows(lists: pl.DataFrame, length: int) -> pl.DataFrame:
    """Rows `user`, `history`, `item`: the items of each list but its first, once each, as those that come next.

    Windows hold `length` items and the next one; the last window ends with the list, the first may be shorter.
    """
    steps = (pl.col("items").list.len() - 2) // length + 1  # windows of a list of two or more
    frame = lists.filter(pl.col("items").list.len() >= 2).with_columns(window=pl.int_ranges(0, steps))
    frame = frame.explode("window")
    end = pl.col("items").list.len() - 1 - pl.col("window") * length
    start = (end.cast(pl.Int64) - length).clip(0)
    return frame.select(
        USER,
        pl.col("items").list.slice(start, end - start).alias(HISTORY),
        pl.col("items").list.get(end).alias(ITEM),
    )
