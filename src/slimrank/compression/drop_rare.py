"""Step: ids that training met seldom are dropped from table and vocabulary, and count as out of vocabulary.

Ids of a field are sorted by falling frequency, so the table is cut and no map is needed. The field's
out-of-vocabulary row becomes the mean, weighted by frequency, of the rows that it now stands for.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from slimrank.compression.steps import Context, replace_module
from slimrank.config import Config, register
from slimrank.models.layers import Ranker
from slimrank.tables.dense import DenseTable
from slimrank.tables.embedding import FusedEmbedding, Layout


class DropRare(Config):
    """Drop ids that training met fewer than `min_count` times."""

    name: Literal["drop-rare"] = "drop-rare"
    min_count: int = Field(default=2, ge=1)


@register("step", DropRare)
def drop_rare(model: Ranker, config: DropRare, context: Context) -> Ranker:
    """The model over a shorter vocabulary."""
    layout = model.embedding.layout
    embeddings = {name: module for name, module in model.named_modules() if isinstance(module, FusedEmbedding)}
    quantised = [name for name, module in embeddings.items() if not isinstance(module.table, DenseTable)]
    if quantised:
        context.skip(", ".join(f"{name}.table" for name in quantised), "is quantised already: drop rare ids first")
        return model
    sizes = {}
    for name, size in zip(layout.names, layout.sizes, strict=True):
        if name in context.unsorted or name not in context.counts:
            context.skip(name, "its ids are not sorted by frequency (no vocabulary)")
            continue
        kept = kept_ids(context.counts[name][:size], config.min_count, reserved=1 + (name in layout.sequences))
        if kept == size:
            context.skip(name, f"every id was met at least {config.min_count} times")
            continue
        sizes[name] = kept
        context.touch(f"{name}: {size:,} ids to {kept:,}")
    for name, module in embeddings.items():
        replace_module(model, name, cut(module, layout.with_sizes(sizes), context))
    return model


def kept_ids(counts: np.ndarray, min_count: int, reserved: int) -> int:
    """How many ids stay: the `reserved` first ones, and those met often enough, which follow them.

    >>> kept_ids(np.array([0, 9, 5, 2, 1, 1]), min_count=2, reserved=1)
    4
    """
    return reserved + int((counts[reserved:] >= min_count).sum())


def cut(embedding: FusedEmbedding, layout: Layout, context: Context) -> FusedEmbedding:
    """`embedding` over the fewer ids of `layout`."""
    table, old = embedding.table, embedding.layout
    assert isinstance(table, DenseTable)
    parts = []
    for name, start, size, kept in zip(old.names, old.starts, old.sizes, layout.sizes, strict=True):
        rows = table.weight.detach()[start : start + size]
        parts.append(_cut_field(rows, kept, int(name in old.sequences), context.counts.get(name)))
    smaller = DenseTable(torch.cat(parts), torch.tensor(layout.starts), sparse=table.sparse)
    return FusedEmbedding(layout, smaller, clip=True, reads=embedding.reads, joined=embedding.joined)


def _cut_field(rows: Tensor, kept: int, unknown: int, counts: np.ndarray | None) -> Tensor:
    """The first `kept` rows; the row of unknown ids becomes the weighted mean of itself and the dropped rows."""
    if kept == len(rows) or counts is None:
        return rows
    weights = torch.tensor(counts[: len(rows)], dtype=rows.dtype, device=rows.device)
    weights[:kept] *= torch.arange(kept, device=rows.device) == unknown
    short = rows[:kept].clone()
    short[unknown] = (weights.unsqueeze(1) * rows).sum(dim=0) / weights.sum().clamp(min=1.0)
    return short
