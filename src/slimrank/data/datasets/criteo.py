"""Criteo display advertising: 13 numbers and 26 hashed categories, in the files' own formats."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import PositiveInt

from slimrank.config import Config, InputError, register
from slimrank.data.files import locate, nowhere, read_csv
from slimrank.data.rows import Dataset, make_dataset, without_constants
from slimrank.data.schema import Field, Schema
from slimrank.data.splits import Split, divide

NUMBERS = tuple(f"I{place}" for place in range(1, 14))
CATEGORIES = tuple(f"C{place}" for place in range(1, 27))
COLUMNS = ("label", *NUMBERS, *CATEGORIES)
TYPES = dict.fromkeys(NUMBERS, pl.Int64) | dict.fromkeys(CATEGORIES, pl.String)
FILES = (
    ("criteo.train.csv", "criteo.dev.csv", "criteo.test.csv"),
    ("train.txt",),
    ("criteo_ycjuan.train.tiny.csv",),
)
SOURCE = "The Criteo display advertising challenge data (train.txt) can be had from Criteo AI Lab and on Kaggle."


class Criteo(Config):
    """Criteo display advertising: 13 integer counts (log-scaled) and 26 categories.

    Reads the published form (tab-separated, no header: label, I1..I13, C1..C26) and the comma-separated form with a
    header (Id, Label, I1..I13, C1..C26). Rows are in order of time, without a time column.

    Attributes:
        split: None for the splits that are given where there are three files, else by rows.
        min_count: categories rarer than this in train share the out-of-vocabulary id.
    """

    name: Literal["criteo"] = "criteo"
    split: Split | None = None
    min_count: PositiveInt = 2


@register("dataset", Criteo)
def load(config: Criteo, folder: Path | None = None) -> Dataset:
    """Criteo from `folder` (or a file), or SLIMRANK_DATA; columns of one value are left out and named in `facts`."""
    files = locate(folder, ["criteo", "ctr-samples"], FILES)
    if files is None:
        raise nowhere("criteo", "train.txt (or criteo.{train,dev,test}.csv)", SOURCE, folder)
    split = config.split or Split(kind="given" if len(files) == 3 else "rows")
    splits = divide(tuple(_read(path) for path in files), split)
    fields = [Field(name=name, kind="numeric", log=True) for name in NUMBERS]
    fields += [Field(name=name, kind="categorical", min_count=config.min_count) for name in CATEGORIES]
    schema, left_out = without_constants(Schema(fields=tuple(fields)), splits[0])
    return make_dataset(config.name, schema, splits, {"left_out": left_out})


def _read(path: Path) -> pl.DataFrame:
    """One file of either form as label, I1..I13, C1..C26."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        first = file.readline().decode("utf-8", errors="replace").rstrip("\r\n")
    if first.lower().startswith("id,label,"):
        frame = read_csv(path, schema_overrides=TYPES)
        return frame.rename({"Label": "label"}, strict=False).select(COLUMNS)
    width = first.count("\t") + 1
    if first and width != len(COLUMNS):
        raise InputError(
            f"{path}: {width} tab-separated values a row, Criteo has {len(COLUMNS)}: label, I1..I13, C1..C26"
        )
    types = {"label": pl.Int64, **TYPES}
    return read_csv(path, separator="\t", has_header=False, new_columns=list(COLUMNS), schema_overrides=types)
