"""Step: a linear model of items keeps the few weights that matter, and these are found again without the others.

For such models pruning is the right compression: their weights lose more by fewer dimensions. Which weights are kept is
told by size, all items together, so that an item has as many neighbours as it needs; found again on the train rows
(Steck 2019, arXiv 1910.09645), a tenth of them ranks as all did. Left out: dense layers (`prune-weights`).
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from functools import partial
from typing import Literal

from pydantic import ByteSize, Field, model_validator

from slimrank.compression.steps import Context, skip_others
from slimrank.config import Config, InputError, check_one_given, register
from slimrank.data.schema import JUDGED
from slimrank.models.layers import ItemScorer, Network
from slimrank.models.size import packed_bytes
from slimrank.tables.dense import DenseTable
from slimrank.tables.sparse import BLOCK, SparseTable, nbytes_of, sparse_table
from slimrank.tables.table import Table

LADDER = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0)


class PruneNeighbours(Config):
    """Keep the largest weights between items and find them again; give how many per item, bytes, or a bound on loss.

    `per_item` is a mean over items; `budget` the bytes of the whole model, packed; `max_drop` the share of validation
    quality that may be lost, of which the fewest of 2 to 128 per item are kept. `bits` of a weight, 32 being a float.
    """

    name: Literal["prune-neighbours"] = "prune-neighbours"
    per_item: float | None = Field(default=None, gt=0)
    budget: ByteSize | None = None
    max_drop: float | None = Field(default=None, ge=0, lt=1)
    bits: Literal[8, 32] = 8

    @model_validator(mode="after")
    def _one_way(self) -> PruneNeighbours:
        check_one_given(self, "per_item", "budget", "max_drop")
        return self


@register("step", PruneNeighbours)
def prune_neighbours(model: Network, config: PruneNeighbours, context: Context) -> Network:
    """The model with a sparse table of the weights that matter."""
    if not isinstance(model, ItemScorer):
        context.skip("weights", "the model has no weights between items")
        return model
    table = model.embedding.table
    if not isinstance(table, DenseTable):
        context.skip("embedding", f"is a {type(table).__name__} already")
        return model
    items = model.num_items - model.first_item
    if config.max_drop is not None:
        small = within_drop(model, config, context)
    elif config.per_item is not None:
        small = pruned(model, blocks_for(model, config.per_item), config, context)
    else:
        assert config.budget is not None
        small = pruned(model, blocks_within(model, int(config.budget), config.bits), config, context)
    if small is None:
        context.skip("embedding", f"no number of neighbours loses at most {config.max_drop:g} of validation quality")
        return model
    made = small.embedding.table
    assert isinstance(made, SparseTable)
    kept = made.kept()
    context.touch(f"embedding: {int(kept.sum()):,} of {items * (items - 1):,} weights kept")
    context.note(neighbours=float(kept.sum()) / items, items_without=float(items - kept.any(dim=0).sum()))
    skip_others(small, ("embedding",), context)
    return small


def pruned(model: ItemScorer, blocks: int, config: PruneNeighbours, context: Context) -> ItemScorer:
    """A copy of `model` with its largest weights, `blocks` blocks of eight, found again on the train rows."""
    small = copy.deepcopy(model)
    table = small.embedding.table
    assert isinstance(table, DenseTable)
    small.embedding.table = sparse_table(table.weight, blocks, table.starts, config.bits)
    small.solve(context.train.ids, context.train.label, context.train.group)
    return small


def blocks_for(model: ItemScorer, per_item: float) -> int:
    """How many blocks hold so many weights for each item, a mean."""
    return max(1, round(per_item * (model.num_items - model.first_item) / BLOCK))


def blocks_within(model: ItemScorer, budget: int, bits: int) -> int:
    """The most blocks with which the packed model takes at most `budget` bytes.

    Raises:
        InputError: one block takes more.
    """
    table = model.embedding.table
    left = budget - (packed_bytes(model) - table.nbytes)
    blocks = bisect_right(range(table.num_rows * table.dim), left, key=partial(_bytes, table, bits)) - 1
    if blocks < 1:
        least = budget - left + _bytes(table, bits, 1)
        raise InputError(f"a budget of {budget:,} bytes is below the least possible: {least:,}")
    return blocks


def _bytes(table: Table, bits: int, blocks: int) -> int:
    return nbytes_of(blocks, table.num_rows, table.dim, bits)


def within_drop(model: ItemScorer, config: PruneNeighbours, context: Context) -> ItemScorer | None:
    """The copy with the fewest neighbours whose validation quality is within the bound; None where none is."""
    before = context.quality(model)
    for per_item in LADDER:
        small = pruned(model, blocks_for(model, per_item), config, context)
        after = context.quality(small)
        if after >= before * (1 - (config.max_drop or 0.0)):
            metric = JUDGED[context.valid.answer]
            context.note(**{f"valid_{metric}_before": before, f"valid_{metric}_after": after})
            return small
    return None
