"""Frappe: which mobile app a user opened, in which context; a click task of ten categorical fields."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from slimrank.config import Config, register
from slimrank.data.files import locate, nowhere, read_parquet
from slimrank.data.rows import Dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.data.splits import Split, divide

FIELDS = ("user", "item", "daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")
SOURCE = (
    "Frappe (Baltrunas et al. 2015) as prepared for NFM is published with hexiangnan/neural_factorization_machine; "
    "store its splits as train.parquet, valid.parquet and test.parquet with the columns label, "
) + ", ".join(FIELDS)


class Frappe(Config):
    """Frappe app usage, 288,609 rows of 10 categorical fields, in the published splits.

    A third of the rows are positive; the negatives are two unseen apps per use. Published test AUC of DCNv2 is .9845
    (BARS, Frappe_x1).
    """

    name: Literal["frappe"] = "frappe"
    split: Split = Split(kind="given")


@register("dataset", Frappe)
def load(config: Frappe, folder: Path | None = None) -> Dataset:
    """Frappe from `folder`, or `folder`/frappe, or SLIMRANK_DATA/frappe; the group is the user."""
    files = locate(folder, ["frappe"], [("train.parquet", "valid.parquet", "test.parquet")])
    if files is None or len(files) != 3:
        raise nowhere("frappe", "frappe/{train,valid,test}.parquet", SOURCE, folder)
    schema = Schema(fields=tuple(Field(name=name, kind="categorical") for name in FIELDS), group="user")
    frames = tuple(read_parquet(path) for path in files)
    return make_dataset(config.name, schema, divide(frames, config.split))
