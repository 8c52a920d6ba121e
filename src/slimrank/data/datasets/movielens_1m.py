"""MovieLens-1M: which films a user rated, in order of time, as implicit feedback."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from slimrank.config import register
from slimrank.data.files import locate, nowhere, read_parquet
from slimrank.data.interactions import Interactions, leave_last_out
from slimrank.data.rows import Dataset

FILE = "interactions.parquet"
SOURCE = (
    "MovieLens-1M is published by GroupLens, whose licence forbids passing it on; kang205/SASRec prepares it as "
    "ml-1m.txt: store its two columns as user and item, in the file's order."
)


class MovieLens1M(Interactions):
    """MovieLens-1M, 999,611 ratings of 3,416 films by 6,040 users, read as interactions: the last two held out."""

    name: Literal["movielens-1m"] = "movielens-1m"


@register("dataset", MovieLens1M)
def load(config: MovieLens1M, folder: Path | None = None) -> Dataset:
    """MovieLens-1M from `folder` (or a file), or SLIMRANK_DATA; the group is the user."""
    return leave_last_out(config, read(config.name, folder))


def read(name: str, folder: Path | None) -> pl.DataFrame:
    """The interactions as they are, for the dataset called `name`.

    Raises:
        InputError: the file is in none of the places.
    """
    files = locate(folder, ["ml-1m-sasrec", "movielens-1m", "ml-1m"], [(FILE,)])
    if files is None:
        raise nowhere(name, f"ml-1m-sasrec/{FILE}", SOURCE, folder)
    return read_parquet(files[0])
