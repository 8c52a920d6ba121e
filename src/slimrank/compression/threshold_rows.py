"""Step: ids that training met seldom lose their rows, and count as out of vocabulary.

Where the ids of a field are sorted by falling frequency, table and vocabulary are cut and no map is needed. Where they
are not (hashed or given ids), or where not every table of the model can be cut (one is quantised, tied or not
selected), the table keeps the rows of frequent ids and a map, if both take fewer bytes. The field's out-of-vocabulary
row becomes the mean, weighted by frequency, of the rows that it now stands for, or stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from slimrank.compression.steps import Context, replace_module
from slimrank.compression.tables import Selection, check_names, find_parts, replace_parts, selected, tied_to
from slimrank.config import register
from slimrank.models.layers import Ranker
from slimrank.tables.dense import DenseTable
from slimrank.tables.embedding import FusedEmbedding, Layout
from slimrank.tables.remapped import remap, weighted_mean
from slimrank.tables.table import fault_of


class ThresholdRows(Selection):
    """Drop ids that training met fewer than `min_count` times, or all but the fraction `keep` of each field.

    What is dropped is answered by the field's out-of-vocabulary row, which becomes the mean of what it stands for, or
    stays ("row").
    """

    name: Literal["threshold-rows"] = "threshold-rows"
    min_count: int = Field(default=2, ge=1)
    keep: float | None = Field(default=None, gt=0, le=1)
    to: Literal["mean", "row"] = "mean"

    @model_validator(mode="after")
    def _one_way(self) -> ThresholdRows:
        if self.keep is not None and "min_count" in self.model_fields_set:
            raise ValueError("give min_count or keep, not both")
        return self


@register("step", ThresholdRows)
def threshold_rows(model: Ranker, config: ThresholdRows, context: Context) -> Ranker:
    """The model over fewer rows, and, where ids are sorted by frequency, over a shorter vocabulary."""
    check_names(model, config)
    embeddings = {name: module for name, module in model.named_modules() if isinstance(module, FusedEmbedding)}
    whole = _cut_whole(model, embeddings, config, context)
    sizes = _cut_sizes(model.embedding.layout, whole, config, context)
    for name, module in embeddings.items():
        if sizes:
            replace_module(model, name, cut(module, module.layout.with_sizes(sizes), config, context))
    if len(whole) < len(model.embedding.layout.names):
        _remap_others(model, whole, config, context)
    return model


def _cut_whole(
    model: Ranker, embeddings: Mapping[str, FusedEmbedding], config: ThresholdRows, context: Context
) -> tuple[str, ...]:
    """The fields whose vocabulary may be cut: their ids are sorted, and every table of the model can be cut with it.

    A vocabulary is that of all tables: none may be quantised, tied, not selected or, in that field, not finite.
    """
    for name, module in embeddings.items():
        if not isinstance(module.table, DenseTable) or (tied_to(model, f"{name}.table") and not config.tied):
            return ()
    layout = model.embedding.layout
    return tuple(
        field
        for field, start, size in zip(layout.names, layout.starts, layout.sizes, strict=True)
        if field not in context.unsorted
        and all(selected(config, name, field) for name in embeddings)
        and not any(fault_of(module.table.rows(start, start + size)) for module in embeddings.values())
    )


def _cut_sizes(layout: Layout, whole: Sequence[str], config: ThresholdRows, context: Context) -> dict[str, int]:
    """How many ids each of the fields `whole` keeps that loses some; of the others it is noted why not."""
    sizes = {}
    for field, size in zip(layout.names, layout.sizes, strict=True):
        if field not in whole:
            continue
        if field not in context.counts:
            context.skip(field, "its ids were not counted")
            continue
        kept = kept_ids(context.counts[field][:size], config, reserved=1 + (field in layout.sequences))
        if kept == size:
            context.skip(field, _nothing_to_drop(config))
            continue
        sizes[field] = kept
        context.touch(f"{field}: {size:,} ids to {kept:,}")
    return sizes


def _nothing_to_drop(config: ThresholdRows) -> str:
    return f"every id was met at least {config.min_count} times" if config.keep is None else "all of its ids are kept"


def kept_ids(counts: np.ndarray, config: ThresholdRows, reserved: int) -> int:
    """How many ids stay: the `reserved` first ones, and the frequent ones, which follow them.

    >>> kept_ids(np.array([0, 9, 5, 2, 1, 1]), ThresholdRows(min_count=2), reserved=1)
    4
    >>> kept_ids(np.array([0, 9, 5, 2, 1, 1]), ThresholdRows(keep=0.4), reserved=1)
    3
    """
    if config.keep is not None:
        return reserved + round(config.keep * (len(counts) - reserved))
    return reserved + int((counts[reserved:] >= config.min_count).sum())


def cut(embedding: FusedEmbedding, layout: Layout, config: ThresholdRows, context: Context) -> FusedEmbedding:
    """`embedding` over the fewer ids of `layout`."""
    table, old = embedding.table, embedding.layout
    assert isinstance(table, DenseTable)
    parts = []
    for name, start, size, kept in zip(old.names, old.starts, old.sizes, layout.sizes, strict=True):
        rows = table.weight.detach()[start : start + size]
        counts = context.counts.get(name)
        parts.append(_cut_field(rows, kept, int(name in old.sequences), counts, mean=config.to == "mean"))
    smaller = DenseTable(torch.cat(parts), torch.tensor(layout.starts), sparse=table.sparse)
    return FusedEmbedding(layout, smaller, clip=True, reads=embedding.reads)


def _cut_field(rows: Tensor, kept: int, unknown: int, counts: np.ndarray | None, *, mean: bool) -> Tensor:
    """The first `kept` rows; with `mean` the row of unknown ids becomes the weighted mean of itself and the dropped.

    It stays as it is where training met none of them.
    """
    if kept == len(rows) or counts is None or not mean:
        return rows[:kept]
    weights = torch.tensor(counts[: len(rows)], dtype=rows.dtype, device=rows.device)
    weights[:kept] *= torch.arange(kept, device=rows.device) == unknown
    short = rows[:kept].clone()
    short[unknown] = weighted_mean(rows, weights, rows[unknown])
    return short


def _remap_others(model: Ranker, whole: Sequence[str], config: ThresholdRows, context: Context) -> None:
    """Fields whose vocabulary stays keep frequent rows behind a map, where that is smaller."""
    made = {}
    for part in find_parts(model, config, context, per_field=True):
        if part.fields and part.fields[0] in whole:
            continue
        if part.counts is None:
            context.skip(part.name, "its ids were not counted" if part.fields else "ids share its rows already")
            continue
        kept = frequent(part.counts, config, part.reserved[0])
        if bool(kept.all()):
            context.skip(part.name, _nothing_to_drop(config))
            continue
        shared = torch.full_like(part.table.starts, part.reserved[0] - 1)
        weight = part.table.weight.detach()
        counts = part.counts.to(weight.device)
        table = remap(weight, part.table.starts, kept.to(weight.device), shared, to=config.to, counts=counts)
        made[part] = table.with_sparse(part.table.sparse)
    replace_parts(model, made, context)


def frequent(counts: Tensor, config: ThresholdRows, reserved: int) -> Tensor:
    """Which rows of a field stay: the first `reserved`, and the frequent ones; [rows] bool."""
    if config.keep is None:
        kept = counts >= config.min_count
    else:
        kept = torch.zeros(len(counts), dtype=torch.bool)
        most = counts[reserved:].argsort(descending=True, stable=True)[: round(config.keep * (len(counts) - reserved))]
        kept[reserved + most] = True
    kept[:reserved] = True
    return kept
