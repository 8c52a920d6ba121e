"""Implicit feedback as clicks: the last item of a user is test, the one before validation, and negatives are drawn.

A split knows what had happened by its time and nothing else. Its negatives are drawn from the items that occur in it or
before it, without those that the user met in it or before it. To spare a user's held-out items in train would tell
them: of a user with many interactions, they are the ones never seen as negatives. To draw items of the future in train
would teach that they are never met. Left out: negatives by popularity, and times, which the files do not have.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field as Bound
from pydantic import PositiveInt

from slimrank.config import Config, InputError, nearest
from slimrank.data.rows import Dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.data.splits import Split, divide

Integers = NDArray[np.int64]
USER, ITEM = "user", "item"
FEWEST = 3  # interactions a user needs for all three splits to have one


class Interactions(Config):
    """What a table of users and items is turned into.

    Attributes:
        negatives: rows of label 0 drawn for each interaction in train.
        held_out_negatives: the same in valid and test.
        seed: of the draws.
        split: `given` holds out the last two items of every user; `rows` draws the splits again from all rows.
    """

    name: str
    negatives: PositiveInt = 4
    held_out_negatives: PositiveInt = 99
    seed: Annotated[int, Bound(ge=0, lt=2**32)] = 0
    split: Split = Split(kind="given")


def leave_last_out(config: Interactions, frame: pl.DataFrame) -> Dataset:
    """The dataset in interactions `user`, `item`, in order of time within each user; the group is the user.

    Ids are sorted by how often train met them, drawn negatives aside: of two rare products one must not come first
    because it was drawn more often.

    Raises:
        InputError: a column is missing or has gaps, a user has fewer than three interactions or met every item.
    """
    positives = frame.select(
        label=pl.lit(1, pl.Int8), user=_column(config, frame, USER), item=_column(config, frame, ITEM)
    )
    left = pl.len().over(USER) - 1 - pl.int_range(pl.len()).over(USER)
    positives = positives.with_columns(place=(2 - left.cast(pl.Int64)).clip(0))
    short = positives.group_by(USER).len().filter(pl.col("len") < FEWEST).sort(USER)
    if len(short):
        raise InputError(
            f"{config.name}: {len(short)} users have fewer than {FEWEST} interactions, such as {short[USER][0]!r}: "
            "train, valid and test need one each"
        )
    frames = tuple(with_negatives(config, positives, place) for place in range(3))
    fields = tuple(Field(name=name, kind="categorical") for name in (USER, ITEM))
    schema = Schema(fields=fields, group=USER, drawn_negatives=True)
    return make_dataset(config.name, schema, divide(frames, config.split))


def _column(config: Interactions, frame: pl.DataFrame, name: str) -> pl.Series:
    """A column that must be there without gaps."""
    if name not in frame.columns:
        raise InputError(f"{config.name}: missing column {name!r}. {nearest(name, frame.columns)}")
    if frame[name].null_count():
        raise InputError(f"{config.name}: {frame[name].null_count()} of {len(frame)} values of {name!r} are missing")
    return frame[name]


def with_negatives(config: Interactions, positives: pl.DataFrame, place: int) -> pl.DataFrame:
    """The rows of split `place` (0 train, 1 valid, 2 test): each interaction, followed by its negatives.

    `positives` holds user, item and the place of the split that a row belongs to.
    """
    met = positives.filter(pl.col("place") <= place)
    items, item = np.unique(met[ITEM].to_numpy(), return_inverse=True)
    user = (met[USER].rank("dense") - 1).cast(pl.Int64).to_numpy()
    own = (met["place"] == place).to_numpy()
    count = config.held_out_negatives if place else config.negatives
    try:
        drawn = draw_unmet(user, item, len(items), user[own].repeat(count), (config.seed, place))
    except InputError as error:
        raise InputError(f"{config.name}: {error}") from None
    chosen = met.filter(pl.Series(own))
    rows = np.column_stack([item[own], drawn.reshape(-1, count)]).ravel()
    label = np.tile(np.arange(count + 1) == 0, len(chosen)).astype(np.int8)
    users = chosen[USER].gather(np.arange(len(chosen)).repeat(count + 1))
    return pl.DataFrame({"label": label, USER: users, ITEM: items[rows]})


def draw_unmet(user: Integers, item: Integers, items: int, of: Integers, seed: tuple[int, ...]) -> Integers:
    """An item for each user in `of` [M], evenly among the items 0..items-1 that this user did not meet, [M].

    The r-th item (from 0) that a user did not meet is r + j, with j the number of met items a_0 < a_1 < ... for which
    a_i - i <= r. All users are searched at once, as users and a_i - i both rise.

    Args:
        user: [N] users from 0 and `item` [N] what they met; a pair may occur more than once.
        item: see `user`.
        items: how many items there are.
        of: users to draw for.
        seed: of the draw.

    Raises:
        InputError: a user in `of` met every item.
    """
    met = np.unique(user * items + item)
    owner = met // items
    degree = np.bincount(owner, minlength=int(max(user.max(initial=0), of.max(initial=0))) + 1)
    full = np.unique(of[degree[of] >= items])
    if len(full):
        raise InputError(f"{len(full)} users met every one of the {items} items: there is no negative to draw")
    first = np.cumsum(degree) - degree
    rising = met - (np.arange(len(met)) - first[owner])
    rank = np.random.Generator(np.random.PCG64(seed)).integers(0, items - degree[of])
    below = np.searchsorted(rising, of * items + rank, side="right") - first[of]
    drawn: Integers = rank + below
    return drawn
