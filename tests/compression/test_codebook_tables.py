"""Codes within a budget: fields that cannot be coded count as they stay, and say why."""

from __future__ import annotations

import pytest

from slimrank.compression.steps import Context, compress
from slimrank.config import InputError
from slimrank.models.dnn import DNN
from slimrank.models.size import packed_bytes
from slimrank.tables.codebook import CodebookTable
from slimrank.tables.embedding import Layout

LAYOUT = Layout(("user", "item"), (900, 700), (1, 1))


@pytest.fixture
def model(make_model):
    return make_model(DNN(embedding_dim=8, hidden=(4,), embedding_std=0.5), LAYOUT)


@pytest.fixture
def context(make_rows) -> Context:
    return Context(make_rows(LAYOUT, 300), make_rows(LAYOUT, 100, seed=1))


def test_the_field_of_the_interactions_stays_and_the_budget_is_kept(model, context) -> None:
    budget = packed_bytes(model) - 700 * 8 * 4 + 700 * 8
    settings = {"name": "codebook-tables", "assign": "interactions", "with_field": "user", "budget": budget}
    small, (record,) = compress(model, [settings], context)
    assert packed_bytes(small) <= budget
    assert isinstance(small.embedding.table.tables[1], CodebookTable)
    assert record["skipped"] == [{"name": "embedding.user", "reason": "has no interactions with user"}]
    with pytest.raises(InputError, match="below the least possible"):
        compress(model, [{**settings, "budget": 900 * 8 * 4}], context)


def test_a_field_that_holds_nan_is_skipped_for_that_reason(model, context) -> None:
    model.embedding.table.weight.data[5, 1] = float("nan")
    settings = {"name": "codebook-tables", "budget": packed_bytes(model) - 700 * 8 * 2}
    small, (record,) = compress(model, [settings], context)
    assert packed_bytes(small) <= settings["budget"]
    assert record["skipped"] == [{"name": "embedding.user", "reason": "holds NaN or infinite values"}]
