"""Amazon Beauty: which products a user reviewed, in order of time; a large catalogue that few have touched."""

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
    "The Amazon review data (McAuley et al. 2015) is for research use; FeiSun/BERT4Rec prepares it as beauty.txt: "
    "store its two columns as user and item, in the file's order."
)


class AmazonBeauty(Interactions):
    """Amazon Beauty, 353,962 reviews of 54,542 products by 40,226 users: the last two products held out.

    Train meets 49,438 of the products, half of them at most twice; a tenth of the test positives are new products,
    which count as out of vocabulary.
    """

    name: Literal["amazon-beauty"] = "amazon-beauty"


@register("dataset", AmazonBeauty)
def load(config: AmazonBeauty, folder: Path | None = None) -> Dataset:
    """Amazon Beauty from `folder` (or a file), or SLIMRANK_DATA; the group is the user."""
    return leave_last_out(config, read(config.name, folder))


def read(name: str, folder: Path | None) -> pl.DataFrame:
    """The interactions as they are, for the dataset called `name`.

    Raises:
        InputError: the file is in none of the places.
    """
    files = locate(folder, ["amazon-beauty", "beauty"], [(FILE,)])
    if files is None:
        raise nowhere(name, f"amazon-beauty/{FILE}", SOURCE, folder)
    return read_parquet(files[0])
