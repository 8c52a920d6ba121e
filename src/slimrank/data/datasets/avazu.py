"""Avazu mobile advertising: clicks on adverts in apps and sites, in the files' own format."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import PositiveInt

from slimrank.config import Config, InputError, register
from slimrank.data.files import locate, nowhere, read_csv
from slimrank.data.rows import Dataset, make_dataset, without_constants
from slimrank.data.schema import Field, Schema
from slimrank.data.splits import Split, divide

PLACES = ("site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category")
TEXT = (*PLACES, "device_id", "device_ip", "device_model")
CATEGORIES = ("C1", "banner_pos", *TEXT, "device_type", "device_conn_type", *(f"C{n}" for n in range(14, 22)))
COLUMNS = ("id", "click", "hour", *CATEGORIES)
FILES = (("avazu.train.csv", "avazu.dev.csv", "avazu.test.csv"), ("train.csv",), ("train.gz",), ("train",))
SOURCE = "The Avazu click-through rate prediction data (train.gz) can be had on Kaggle."


class Avazu(Config):
    """Avazu mobile advertising: 21 categories, and hour and weekday from `hour` (YYMMDDHH).

    Reads the published form (comma-separated, header id,click,hour,...), and the same without a header. The row's id
    is left out: no two rows share one.

    Attributes:
        split: None for the splits that are given where there are three files, else by time.
        min_count: categories rarer than this in train share the out-of-vocabulary id.
    """

    name: Literal["avazu"] = "avazu"
    split: Split | None = None
    min_count: PositiveInt = 2


@register("dataset", Avazu)
def load(config: Avazu, folder: Path | None = None) -> Dataset:
    """Avazu from `folder` (or a file), or SLIMRANK_DATA; columns of one value are left out and named in `facts`."""
    files = locate(folder, ["avazu", "ctr-samples"], FILES)
    if files is None:
        raise nowhere("avazu", "train.csv or train.gz (or avazu.{train,dev,test}.csv)", SOURCE, folder)
    split = config.split or Split(kind="given" if len(files) == 3 else "time")
    splits = divide(tuple(_read(path) for path in files), split, "hour")
    names = ("hour_of_day", "weekday", *CATEGORIES)
    fields = tuple(Field(name=name, kind="categorical", min_count=config.min_count) for name in names)
    schema, left_out = without_constants(Schema(fields=fields, label="click", time="hour"), splits[0])
    return make_dataset(config.name, schema, splits, {"left_out": left_out})


def _read(path: Path) -> pl.DataFrame:
    """One file, with or without a header, and the hour taken apart."""
    first = read_csv(path, has_header=False, n_rows=1, infer_schema=False)
    header = first.row(0)[:2] == ("id", "click")
    if first.width != len(COLUMNS):
        raise InputError(
            f"{path}: {first.width} comma-separated values a row, Avazu has {len(COLUMNS)}: id, click, hour, ..."
        )
    types = {"id": pl.String, "hour": pl.Int64, **dict.fromkeys(TEXT, pl.String)}
    names = {} if header else {"new_columns": list(COLUMNS)}
    frame = read_csv(path, has_header=header, schema_overrides=types, **names)
    day = (pl.col("hour") // 100).cast(pl.String).str.to_date("%y%m%d", strict=False)
    return frame.drop("id").with_columns(hour_of_day=pl.col("hour") % 100, weekday=day.dt.weekday())
