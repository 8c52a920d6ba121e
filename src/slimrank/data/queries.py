"""Interactions as queries of a retrieval model: every interaction is a row, with all that was known of its user before.

A row has the user, their attributes, the most recent items that they met before (the history), and the item that they
met then. The splits are those of sequences (`sequences.py`), whose windows teach models that learn from every place of
a history; models that read a history as one thing need a row for each. A user with one interaction teaches nothing.
Left out: attributes of items.
"""

from __future__ import annotations

import polars as pl
from pydantic import PositiveInt

from slimrank.config import InputError, nearest
from slimrank.data.rows import Dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.data.sequences import HISTORY, ITEM, USER, Sequences, sequences

WHOLE = 1 << 20  # longer than any history: the windows of it are whole histories


class Queries(Sequences):
    """What a table of users and items is turned into; `max_length` items of a history are read, the most recent."""

    max_length: PositiveInt = 20


def queries(
    config: Queries, frame: pl.DataFrame, users: pl.DataFrame | None = None, fields: tuple[Field, ...] = ()
) -> Dataset:
    """The dataset in interactions `user`, `item` and, for a split by time, `time`, in order within each user.

    Args:
        config: how much is read, and how rows are divided.
        frame: the interactions.
        users: a row for each `user`, with the columns of `fields`; users without one have missing values.
        fields: attributes of users.

    Raises:
        InputError: a column is missing or has gaps, a user has two rows of attributes, a split has no rows.
    """
    whole = sequences(config.model_copy(update={"max_length": WHOLE}), frame)
    train = each_item(whole.train, config.max_length)
    splits = tuple(_with_attributes(config, part, users, fields) for part in (train, whole.valid, whole.test))
    history = Field(name=HISTORY, kind="sequence", max_length=config.max_length)
    schema = Schema(
        fields=(Field(name=USER, kind="categorical"), *fields, history),
        label=ITEM,
        group=USER,
        answer="item",
        catalogue=HISTORY,
    )
    return make_dataset(config.name, schema, splits, whole.facts)


def each_item(lists: pl.DataFrame, length: int) -> pl.DataFrame:
    """Rows `user`, `history`, `item` of all items of `history` and then `item`, each after at most `length` before it.

    A user's first item comes after none.

    >>> frame = pl.DataFrame({"user": [7], "history": [[3, 4, 5]], "item": [6]})
    >>> each_item(frame, 2).select("history", "item").rows()
    [([], 3), ([3], 4), ([3, 4], 5), ([4, 5], 6)]
    """
    each = lists.select(USER, items=pl.concat_list(HISTORY, ITEM)).with_row_index("list").explode("items")
    place = pl.int_range(pl.len()).over("list")
    each = each.with_columns(place=place)
    before = [pl.when(pl.col("place") >= back).then(pl.col("items").shift(back)) for back in range(length, 0, -1)]
    return each.select(USER, pl.concat_list(before).list.drop_nulls().alias(HISTORY), pl.col("items").alias(ITEM))


def _with_attributes(
    config: Queries, frame: pl.DataFrame, users: pl.DataFrame | None, fields: tuple[Field, ...]
) -> pl.DataFrame:
    """The rows with their users' attributes."""
    if users is None:
        return frame
    for name in (USER, *(each.name for each in fields)):
        if name not in users.columns:
            raise InputError(f"{config.name}: users have no column {name!r}. {nearest(name, users.columns)}")
    twice = users[USER].is_duplicated()
    if twice.any():
        raise InputError(
            f"{config.name}: user {users[USER].filter(twice)[0]!r} has two rows of attributes, allowed is one"
        )
    known = users.select(USER, *(each.name for each in fields))
    return frame.join(known, on=USER, how="left", maintain_order="left")
