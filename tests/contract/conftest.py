"""Small problems of every shape of row, with their encodings, for the contracts of steps and targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest

from slimrank.config import as_config
from slimrank.data.encoding import Encoding
from slimrank.data.rows import Dataset, EncodedDataset, encode_dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.models.architecture import build_model
from slimrank.models.layers import Ranker
from slimrank.tables.embedding import Layout

FIELDS = {
    "user": Field(name="user", kind="categorical"),
    "item": Field(name="item", kind="categorical", min_count=2),
    "city": Field(name="city", kind="categorical", encoding="hash", num_ids=7),
    "tags": Field(name="tags", kind="sequence", max_length=3),
    "price": Field(name="price", kind="numeric", log=True),
    "age": Field(name="age", kind="numeric"),
}
SHAPES = {
    "ids": ("user", "item", "city"),
    "two ids": ("user", "item"),
    "ids, sequence and numbers": ("user", "item", "tags", "price", "age"),
    "numbers": ("price", "age"),
    "a sequence": ("tags",),
}


@dataclass(frozen=True)
class Problem:
    """Rows that can be learned, and how they are encoded."""

    dataset: Dataset
    encoded: EncodedDataset

    @property
    def encoding(self) -> Encoding:
        return self.encoded.encoding

    @property
    def layout(self) -> Layout:
        return Layout.of(self.encoded.encoding)

    def model(self, name: str) -> Ranker:
        """A small model of that architecture."""
        small = {"embedding_dim": 8, "hidden": (16, 8), "embedding_std": 0.3}
        more = {"finalmlp": {"second_hidden": (8,)}, "dlrm": {"bottom": (8,)}}
        settings = {} if name == "logistic-regression" else {**small, **more.get(name, {})}
        if name == "gmf":
            settings.pop("hidden")
        return build_model(as_config("model", {"name": name, **settings}), self.layout, seed=1)


def frame(rows: int, seed: int) -> pl.DataFrame:
    """Users and items with power-law frequencies; the label hangs on user, tags and price."""
    draw = np.random.default_rng(seed)
    user, item = (np.minimum(draw.zipf(1.5, rows), 40) for _ in range(2))
    tags = [list("abcde"[:count])[::-1] for count in draw.integers(0, 5, rows)]
    price = np.exp(draw.normal(0, 2, rows))
    logit = (user % 3 - 1.0) + np.array([len(one) - 2 for one in tags]) + 0.5 * np.log(price)
    return pl.DataFrame(
        {
            "user": user,
            "item": [f"item {one}" for one in item],
            "city": item * user % 13,
            "tags": tags,
            "price": price,
            "age": draw.normal(40, 10, rows),
            "label": (draw.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8),
        }
    )


@pytest.fixture(scope="session")
def problem() -> Callable[[str], Problem]:
    """The problem of that shape; made once."""
    splits = frame(600, 0), frame(300, 1), frame(300, 2)
    made: dict[str, Problem] = {}

    def get(shape: str) -> Problem:
        if shape not in made:
            schema = Schema(fields=tuple(FIELDS[name] for name in SHAPES[shape]))
            dataset = make_dataset(shape, schema, splits)
            made[shape] = Problem(dataset, encode_dataset(dataset))
        return made[shape]

    return get
