"""Shorter vectors: what a budget means where layers get narrower with them, and which tables are left alone."""

from __future__ import annotations

import re

import pytest
import torch

from slimrank.compression.steps import compress
from slimrank.config import InputError
from slimrank.models.dnn import DNN
from slimrank.models.size import packed_bytes
from slimrank.tables.dense import DenseTable
from slimrank.tables.low_rank import LowRankTable, wide


@pytest.fixture
def model(make_model):
    """A first layer that takes far more bytes than the table."""
    return make_model(DNN(embedding_dim=8, hidden=(64, 4), embedding_std=0.5))


@pytest.mark.parametrize("later", [[], ["quantize-dense"], [{"name": "prune-neurons", "keep": 0.5}, "quantize-dense"]])
def test_the_highest_rank_that_fits_with_the_later_steps_is_taken(later, model, context) -> None:
    taken = {}
    for rank in range(1, 9):
        small, _ = compress(model, [{"name": "reduce-dimensions", "rank": rank}, *later], context)
        taken[rank] = packed_bytes(small)
    for rank in range(1, 9):
        for budget in (taken[rank], taken.get(rank + 1, taken[8] + 5) - 1):
            small, _ = compress(model, [{"name": "reduce-dimensions", "budget": budget}, *later], context)
            assert (small.embedding.dim, packed_bytes(small)) == (rank, taken[rank])
    with pytest.raises(
        InputError, match=re.escape(f"{taken[1] - 1:,} bytes is below the least possible: {taken[1]:,}")
    ):
        compress(model, [{"name": "reduce-dimensions", "budget": taken[1] - 1}, *later], context)


def test_a_budget_is_refused_where_nothing_can_be_made_shorter(model, context) -> None:
    least = packed_bytes(model)
    with pytest.raises(InputError, match=f"a budget of 100 bytes is below the least possible: {least:,}"):
        compress(model, [{"name": "reduce-dimensions", "budget": 100, "skip": ["*"]}], context)
    compress(model, [{"name": "reduce-dimensions", "budget": least, "skip": ["*"]}], context)


@pytest.mark.parametrize(("skip", "kind"), [(["*"], LowRankTable), (["user", "item"], DenseTable)])
def test_a_table_trained_wide_is_merged_if_any_of_its_fields_is_selected(skip, kind, model, context) -> None:
    table = model.embedding.table
    model.embedding.table = wide(table.weight.detach(), table.starts, 16)
    settings = {"name": "reduce-dimensions", "rank": 8, "fold": False, "skip": skip}
    small, (record,) = compress(model, [settings], context)
    assert isinstance(small.embedding.table, kind)
    assert bool(record["touched"]) == (kind is DenseTable)
    torch.testing.assert_close(small.embedding.table.rows(0, 27), table.weight.detach())
