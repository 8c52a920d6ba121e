"""Dimensions by frequency: bands of ids with ranks of their own, under a budget and by energy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimrank.compression.bands import cuts
from slimrank.compression.steps import Context, compress
from slimrank.config import InputError
from slimrank.models.dnn import DNN
from slimrank.models.size import packed_bytes
from slimrank.tables.banded import BandedTable
from slimrank.tables.embedding import Layout

LAYOUT = Layout(("user", "item"), (400, 30), (1, 1))
BY_FREQUENCY = {"name": "reduce-dimensions", "by_frequency": True}


@pytest.fixture
def model(make_model):
    """Users whose first 100 spread along all eight directions and whose others along one."""
    made = make_model(DNN(embedding_dim=8, hidden=(4,), embedding_std=0.5), LAYOUT)
    rows = made.embedding.table.weight.data
    rows[100:400] = rows[100:400, :1] * torch.ones(8)
    return made


@pytest.fixture
def context(make_rows) -> Context:
    counts = {
        name: np.array([0, *range(size - 1, 0, -1)], np.int64)
        for name, size in zip(LAYOUT.names, LAYOUT.sizes, strict=True)
    }
    return Context(make_rows(LAYOUT, 50), make_rows(LAYOUT, 50, seed=1), counts)


def test_bands_that_spread_less_get_fewer_numbers(model, context) -> None:
    small, (record,) = compress(model, [{**BY_FREQUENCY, "energy": 0.999, "only": ["user"]}], context)
    table = small.embedding.table.tables[0]
    assert isinstance(table, BandedTable)
    assert [part.num_rows for part in table.tables] == np.diff(cuts(0, 400)).tolist()
    ranks = [getattr(part, "rank", 8) for part in table.tables]
    assert set(ranks[: cuts(0, 400).index(100)]) == {8}
    assert set(ranks[cuts(0, 400).index(100) :]) == {1}
    assert "1 numbers for 50 ids" in record["touched"][-1]
    ids = torch.arange(400)
    torch.testing.assert_close(small.embedding.table.rows(0, 400), model.embedding.table.weight[ids], atol=1e-5, rtol=0)


def test_a_budget_is_kept_and_bands_are_nearer_than_one_rank_for_all(model, context) -> None:
    before, errors = model.embedding.table.weight.detach()[:400], []
    counts = torch.as_tensor(context.counts["user"]).float()
    budget = packed_bytes(model) - 6000
    for settings in ({"name": "reduce-dimensions", "fold": False}, BY_FREQUENCY):
        small, _ = compress(model, [{**settings, "budget": budget}], context)
        assert packed_bytes(small) <= budget
        errors.append(float(((small.embedding.table.rows(0, 400) - before).square().sum(dim=1) * counts).sum()))
    assert errors[1] < 0.1 * errors[0]


def test_ids_in_no_order_of_frequency_are_one_band(model, context) -> None:
    context.unsorted = frozenset({"user", "item"})
    small, _ = compress(model, [{**BY_FREQUENCY, "energy": 0.5}], context)
    assert not any(isinstance(module, BandedTable) for module in small.modules())


def test_a_rank_for_all_bands_is_refused(model, context) -> None:
    with pytest.raises(InputError, match="by_frequency finds the rank of every band by energy or budget"):
        compress(model, [{**BY_FREQUENCY, "rank": 2}], context)
