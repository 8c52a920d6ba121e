"""A dataset of queries for retrieval in two towers: a row for every film that a user met, with all known before."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from slimrank.config import register
from slimrank.data.datasets import movielens_100k
from slimrank.data.queries import Queries, queries
from slimrank.data.rows import Dataset
from slimrank.data.schema import Field
from slimrank.data.sequences import TIME, USER

ATTRIBUTES = ("age", "gender", "occupation", "zip_code")


class MovieLens100KQueries(Queries):
    """MovieLens-100K, a row for each of 100,000 ratings: user, attributes, last films; the film is to be found."""

    name: Literal["movielens-100k-queries"] = "movielens-100k-queries"


@register("dataset", MovieLens100KQueries)
def load_movielens_100k(config: MovieLens100KQueries, folder: Path | None = None) -> Dataset:
    """MovieLens-100K from where `movielens-100k` finds it."""
    frame = movielens_100k.interactions(folder).sort(TIME, maintain_order=True)
    fields = tuple(Field(name=name, kind="categorical") for name in ATTRIBUTES)
    users = movielens_100k.users(folder).rename({"user_id": USER})
    return queries(config, frame, users.with_columns(pl.col(USER).cast(frame[USER].dtype)), fields)
