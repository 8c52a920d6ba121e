"""Step: tokens that the corpus does not use go, from the table and from the tokenizer.

A word whose token is gone is cut into smaller tokens that stay, down to single characters, which all stay: no word
that could be read before becomes unknown. The context's rows are brought to the new ids (`TextCodec.translated`); rows
of later use are encoded with the tokenizer that the model then carries. Abdaoui et al. 2020, arXiv 2010.05609.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from slimrank.compression.steps import Context
from slimrank.config import Config, InputError, register
from slimrank.data.text import SPECIAL, TextCodec
from slimrank.models.layers import Network
from slimrank.models.text_encoder import TextModel
from slimrank.tables.dense import DenseTable
from slimrank.tables.embedding import FusedEmbedding
from slimrank.training.examples import Examples


class PruneVocabulary(Config):
    """Keep the tokens that train rows hold at least `min_count` times, and single characters.

    `extra`: a text file whose tokens stay as well, such as queries that are expected.
    """

    name: Literal["prune-vocabulary"] = "prune-vocabulary"
    min_count: int = Field(default=1, ge=1)
    extra: Path | None = None


@register("step", PruneVocabulary)
def prune_vocabulary(model: Network, config: PruneVocabulary, context: Context) -> Network:
    """The model with fewer tokens, most frequent first, and their tokenizer."""
    if not isinstance(model, TextModel) or model.codec is None:
        context.skip("vocabulary", "the model carries no tokenizer")
        return model
    table, codec = model.embedding.table, model.codec
    if not isinstance(table, DenseTable):
        context.skip("embedding", "is quantised already: prune the vocabulary before quantising")
        return model
    counts = np.bincount(context.train.ids.numpy().ravel(), minlength=codec.size)
    smaller, old = codec.pruned(kept_tokens(codec, counts, config))
    if smaller.size == codec.size:
        context.skip("vocabulary", f"all {codec.size:,} tokens are kept")
        return model
    layout = model.embedding.layout.with_sizes({model.embedding.layout.names[0]: smaller.size})
    weight = table.weight.detach()[torch.from_numpy(old)].clone()
    model.embedding = FusedEmbedding(layout, DenseTable(weight, table.starts, sparse=table.sparse))
    model.codec = smaller
    model.separator = smaller.vocabulary["[SEP]"]
    for name in ("train", "valid"):
        rows: Examples = getattr(context, name)
        setattr(context, name, replace(rows, ids=torch.from_numpy(codec.translated(rows.ids.numpy(), smaller))))
    again = np.bincount(context.train.ids.numpy().ravel(), minlength=smaller.size)
    context.counts = {**context.counts, layout.names[0]: again}
    context.touch(f"vocabulary: {codec.size:,} tokens to {smaller.size:,}, tokenizer of {len(smaller.content):,} bytes")
    return model


def kept_tokens(codec: TextCodec, counts: NDArray[np.int64], config: PruneVocabulary) -> list[str]:
    """The tokens that stay, by falling count [ids], ties by id; special tokens are the tokenizer's own to keep."""
    named = {place: token for token, place in codec.vocabulary.items()}
    extra: set[int] = set()
    if config.extra is not None:
        try:
            lines = config.extra.read_bytes().splitlines()
        except OSError as error:
            raise InputError(f"{config.extra}: cannot be read: {error.strerror}") from None
        extra = set(np.unique(codec.encode(lines, names=(str(config.extra), ""))[0]).tolist())
    order = np.argsort(-counts, kind="stable").tolist()
    return [
        named[place]
        for place in order
        if named[place] not in SPECIAL
        and (counts[place] >= config.min_count or place in extra or len(named[place].removeprefix("##")) == 1)
    ]
