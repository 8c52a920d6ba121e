"""Shared rows within a budget: bytes are known to the last one before a table is made, of every kind."""

from __future__ import annotations

from typing import Any

import pytest

from slimrank.compression.hash_tables import HashTables, hashed_bytes, hashed_part
from slimrank.compression.steps import Context, compress
from slimrank.compression.tables import find_parts
from slimrank.config import InputError
from slimrank.models.dnn import DNN
from slimrank.models.layers import Ranker
from slimrank.models.size import packed_bytes
from slimrank.tables.embedding import Layout

LAYOUT = Layout(("user", "item", "tags"), (500, 803, 61), (1, 1, 3), sequences=("tags",))
KINDS: list[dict[str, Any]] = [
    {"method": "plain"},
    {"method": "weighted", "bias": True},
    {"method": "weighted", "weight_bits": 16},
    {"method": "clustered"},
    {"method": "clustered", "chunks": 2},
    {"method": "plain", "inner": {"name": "scaled", "bits": 4}},
    {"method": "clustered", "chunks": 2, "inner": {"name": "scaled", "bits": 2, "scale": "row"}},
    {"method": "weighted", "inner": {"name": "low-rank", "rank": 2, "centred": True}},
]


@pytest.fixture
def model(make_model) -> Ranker:
    return make_model(DNN(embedding_dim=8, hidden=(4,), embedding_std=0.5), LAYOUT)


@pytest.fixture
def context(make_rows) -> Context:
    return Context(make_rows(LAYOUT, 200), make_rows(LAYOUT, 100, seed=1))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("ratio", [1.0, 3.0, 7.5, 60.0, 2000.0])
def test_the_bytes_of_a_table_are_known_before_it_is_made(kind, ratio, model, context) -> None:
    config = HashTables(**kind)
    for part in find_parts(model, config, context, per_field=True):
        assert hashed_bytes(part, config, ratio) == hashed_part(part, config, ratio, seed=0).nbytes


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_budget_is_kept_to_the_byte(kind, model, context) -> None:
    config = HashTables(least_rows=8, **kind)
    parts = find_parts(model, config, context, per_field=True)
    rest = packed_bytes(model) - sum(part.table.nbytes for part in parts)
    for ratio in (5.0, 20.0):
        budget = rest + sum(hashed_bytes(part, config, ratio) for part in parts)
        settings = {"name": "hash-tables", "least_rows": 8, "budget": budget, **kind}
        small, (record,) = compress(model, [settings], context)
        assert 0.9 * budget <= packed_bytes(small) <= budget
        assert record["facts"]["ratio"] <= 1.01 * ratio


@pytest.mark.parametrize("settings", [{"least_rows": 1000}, {"skip": ["*"]}, {}])
def test_a_budget_that_cannot_be_met_is_refused_also_where_nothing_is_hashed(settings, model, context) -> None:
    with pytest.raises(InputError, match="a budget of 100 bytes is below the least possible"):
        compress(model, [{"name": "hash-tables", "budget": 100, **settings}], context)


def test_collisions_are_those_of_tables_that_were_put_in_place(model, context) -> None:
    _, (record,) = compress(model, [{"name": "hash-tables", "ratio": 1, "only": ["user", "item"]}], context)
    assert record["touched"] == []
    assert record["facts"] == {}
