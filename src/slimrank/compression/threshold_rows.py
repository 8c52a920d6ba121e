"""Step: ids that training met seldom lose their rows, and count as out of vocabulary.

Where the ids of a field are sorted by falling frequency, table and vocabulary are cut and no map is needed. Where they
are not (hashed or given ids), or where not every table of the model can be cut (one is quantised, tied or not
selected), the table keeps the rows of frequent ids and a map, if both take fewer bytes. The field's out-of-vocabulary
row becomes the mean, weighted by frequency, of the rows that it now stands for, or stays as it is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from slimrank.compression.selection import Budgeted, selected
from slimrank.compression.steps import Context, replace_module
from slimrank.compression.tables import (
    Part,
    beside_tables,
    check_fields,
    find_parts,
    lookups,
    replace_parts,
    rest_bytes,
    tied_to,
    trial_of,
)
from slimrank.config import InputError, register
from slimrank.models.layers import ItemScorer, Network
from slimrank.tables.dense import DenseTable
from slimrank.tables.embedding import FusedEmbedding, Layout
from slimrank.tables.remapped import remap, weighted_mean
from slimrank.tables.table import fault_of


class ThresholdRows(Budgeted):
    """Drop ids that training met fewer than `min_count` times (2), or all but the fraction `keep` of each field.

    With a `budget` it is the fewest times, for all fields alike, with which the model fits before its tables are made
    of anything else.
    What is dropped is answered by the field's out-of-vocabulary row, which becomes the mean of what it stands for, or
    stays ("row").
    """

    name: Literal["threshold-rows"] = "threshold-rows"
    min_count: int | None = Field(default=None, ge=1)
    keep: float | None = Field(default=None, gt=0, le=1)
    to: Literal["mean", "row"] = "mean"

    @model_validator(mode="after")
    def _one_way(self) -> ThresholdRows:
        given = [name for name in ("min_count", "keep", "budget") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of min_count, keep and budget, got {given}")
        return self

    @property
    def least(self) -> int:
        """How often an id has to be met, where that decides."""
        return self.min_count or 2


@register("step", ThresholdRows)
def threshold_rows(model: nn.Module, config: ThresholdRows, context: Context) -> nn.Module:
    """The model over fewer rows, and, where ids are sorted by frequency, over a shorter vocabulary.

    Raises:
        InputError: the budget is below the least possible, which the message names.
    """
    if isinstance(model, ItemScorer):
        context.skip("embedding", "its columns are the ids of its rows: raise `min_count` of the field instead")
        return model
    check_fields(model, config)
    if config.budget is not None:
        config = _within_budget(model, config, int(config.budget), context)
    if not isinstance(model, Network):  # its vocabulary is the user's, who goes on giving ids of it
        _remap_others(model, (), config, context)
        return model
    embeddings = {name: module for name, module in model.named_modules() if isinstance(module, FusedEmbedding)}
    whole = _cut_whole(model, embeddings, config, context)
    sizes = _cut_sizes(model.embedding.layout, whole, config, context)
    for name, module in embeddings.items():
        if sizes:
            replace_module(model, name, cut(module, module.layout.with_sizes(sizes), config, context))
    if len(whole) < len(model.embedding.layout.names):
        _remap_others(model, whole, config, context)
    return model


def _within_budget(model: nn.Module, config: ThresholdRows, budget: int, context: Context) -> ThresholdRows:
    """The same with the least `min_count` at which the whole model takes at most `budget` bytes: it is tried."""
    if rest_bytes(model, [], context) <= budget:
        return config.model_copy(update={"budget": None, "keep": 1.0})
    names = [name for _, _, layout in lookups(model) for name in layout.names if name in context.counts]
    met = np.unique(np.concatenate([[0], *(context.counts[name] for name in names)]))

    def tried(place: int) -> ThresholdRows:
        return config.model_copy(update={"budget": None, "min_count": int(met[place]) + 1})

    def taken(place: int) -> int:
        trial = beside_tables(model)
        return rest_bytes(threshold_rows(trial, tried(place), trial_of(context)), [], context)

    found = bisect_left(range(len(met)), -budget, key=lambda place: -taken(place))
    if found == len(met):
        raise InputError(f"a budget of {budget:,} bytes is below the least possible: {taken(len(met) - 1):,}")
    context.note(min_count=tried(found).least)
    return tried(found)


def _cut_whole(
    model: Network, embeddings: Mapping[str, FusedEmbedding], config: ThresholdRows, context: Context
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
    return f"every id was met at least {config.least} times" if config.keep is None else "all of its ids are kept"


def kept_ids(counts: np.ndarray, config: ThresholdRows, reserved: int) -> int:
    """How many ids stay: the `reserved` first ones, and the frequent ones, which follow them.

    >>> kept_ids(np.array([0, 9, 5, 2, 1, 1]), ThresholdRows(min_count=2), reserved=1)
    4
    >>> kept_ids(np.array([0, 9, 5, 2, 1, 1]), ThresholdRows(keep=0.4), reserved=1)
    3
    """
    if config.keep is not None:
        return reserved + round(config.keep * (len(counts) - reserved))
    return reserved + int((counts[reserved:] >= config.least).sum())


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


def _remap_others(model: nn.Module, whole: Sequence[str], config: ThresholdRows, context: Context) -> None:
    """Fields whose vocabulary stays keep frequent rows behind a map, where that is smaller."""
    made = {}
    for part in find_parts(model, config, context, per_field=True):
        if part.fields and part.fields[0] in whole:
            continue
        if part.counts is None:
            context.skip(part.name, "its ids were not counted" if part.fields else "ids share its rows already")
            continue
        kept, shared_row = (_kept if isinstance(model, Network) else _kept_of_module)(part, part.counts, config)
        if bool(kept.all()):
            context.skip(part.name, _nothing_to_drop(config))
            continue
        shared = torch.full_like(part.table.starts, shared_row)
        weight = part.table.weight.detach()
        counts = part.counts.to(weight.device)
        table = remap(weight, part.table.starts, kept.to(weight.device), shared, to=config.to, counts=counts)
        made[part] = table.with_sparse(part.table.sparse)
    replace_parts(model, made, context)


def _kept(part: Part, counts: Tensor, config: ThresholdRows) -> tuple[Tensor, int]:
    """Which rows of a field stay, and that which answers for the others: the one for what is out of vocabulary."""
    return frequent(counts, config, part.reserved[0]), part.reserved[0] - 1


def _kept_of_module(part: Part, counts: Tensor, config: ThresholdRows) -> tuple[Tensor, int]:
    """The same in a module of the user's own, where every id but padding is one that somebody means.

    So no row that stays answers for others: of those that go the most frequent one does.
    """
    kept = frequent(counts, config, part.reserved[0] - 1)
    return kept, int(torch.where(kept, -1, counts).argmax())


def frequent(counts: Tensor, config: ThresholdRows, reserved: int) -> Tensor:
    """Which rows of a field stay: the first `reserved`, and the frequent ones; [rows] bool."""
    if config.keep is None:
        kept = counts >= config.least
    else:
        kept = torch.zeros(len(counts), dtype=torch.bool)
        most = counts[reserved:].argsort(descending=True, stable=True)[: round(config.keep * (len(counts) - reserved))]
        kept[reserved + most] = True
    kept[:reserved] = True
    return kept
