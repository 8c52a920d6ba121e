"""Datasets of the next item: public ones, and a file of one's own with a user, an item and a time in each row."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field as Bound
from pydantic import PositiveInt

from slimrank.config import InputError, nearest, register
from slimrank.data.datasets import amazon_beauty, movielens_1m, movielens_100k
from slimrank.data.files import read_csv, read_parquet, suffix_of
from slimrank.data.rows import Dataset
from slimrank.data.sequences import ITEM, TIME, USER, Sequences, sequences


class MovieLens1MSequences(Sequences):
    """MovieLens-1M, 999,611 ratings of 3,416 films by 6,040 users: the next film is to be found among all."""

    name: Literal["movielens-1m-sequences"] = "movielens-1m-sequences"
    split: Literal["leave-one-out"] = "leave-one-out"  # the file has no times


class AmazonBeautySequences(Sequences):
    """Amazon Beauty, 353,962 reviews of 54,542 products by 40,226 users: the next product is to be found among all."""

    name: Literal["amazon-beauty-sequences"] = "amazon-beauty-sequences"
    max_length: PositiveInt = 50
    split: Literal["leave-one-out"] = "leave-one-out"


class MovieLens100KSequences(Sequences):
    """MovieLens-100K, 100,000 ratings of 943 users, all cut at the same two moments."""

    name: Literal["movielens-100k-sequences"] = "movielens-100k-sequences"
    max_length: PositiveInt = 100
    split: Literal["leave-one-out", "time"] = "time"


class Interactions(Sequences):
    """A Parquet or CSV file of interactions, in order of the column `time`, or of its rows where that is empty."""

    name: Literal["interactions"] = "interactions"
    path: Path
    user: str = USER
    item: str = ITEM
    time: str = Bound(default="", description="the column of the time")


@register("dataset", MovieLens1MSequences)
def load_movielens_1m(config: MovieLens1MSequences, folder: Path | None = None) -> Dataset:
    """MovieLens-1M from `folder` (or a file), or SLIMRANK_DATA."""
    return sequences(config, movielens_1m.read(config.name, folder))


@register("dataset", AmazonBeautySequences)
def load_amazon_beauty(config: AmazonBeautySequences, folder: Path | None = None) -> Dataset:
    """Amazon Beauty from `folder` (or a file), or SLIMRANK_DATA."""
    return sequences(config, amazon_beauty.read(config.name, folder))


@register("dataset", MovieLens100KSequences)
def load_movielens_100k(config: MovieLens100KSequences, folder: Path | None = None) -> Dataset:
    """MovieLens-100K from where `movielens-100k` finds it."""
    frame = movielens_100k.interactions(folder)
    return sequences(config, frame.sort(TIME, maintain_order=True))


@register("dataset", Interactions)
def load_file(config: Interactions, folder: Path | None = None) -> Dataset:
    """The interactions in the config's file.

    Raises:
        InputError: no such file or column, or a split by time without a time.
    """
    path = config.path if folder is None or config.path.is_absolute() else folder / config.path
    kind = suffix_of(path)
    if kind is None:
        raise InputError(f"{path}: unknown kind of file. {nearest(path.suffix, ['.csv', '.parquet'])}")
    frame = read_parquet(path) if kind == "parquet" else read_csv(path)
    names = {USER: config.user, ITEM: config.item} | ({TIME: config.time} if config.time else {})
    for name in names.values():
        if name not in frame.columns:
            raise InputError(f"{path}: missing column {name!r}. {nearest(name, frame.columns)}")
    if config.split == "time" and not config.time:
        raise InputError(f"{path}: split 'time' needs `time`, the column of the time. {nearest('time', frame.columns)}")
    chosen = frame.select(**{own: pl.col(name) for own, name in names.items()})
    return sequences(config, chosen.sort(TIME, maintain_order=True) if config.time else chosen)
