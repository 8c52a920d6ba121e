"""Bits by frequency: what padding has no part in, and what is left where nothing can be mixed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from slimrank.compression.steps import Context, compress
from slimrank.config import InputError
from slimrank.models.dnn import DNN
from slimrank.models.size import packed_bytes
from slimrank.tables.embedding import Layout

LAYOUT = Layout(("user", "tags"), (300, 200), (1, 3), sequences=("tags",))
DENSE = DNN(embedding_dim=8, hidden=(6,), embedding_std=0.5)


@pytest.fixture
def context(make_rows) -> Context:
    rows = make_rows(LAYOUT, 400)
    counts = {"user": np.arange(300, 0, -1), "tags": np.array([100, 7, *range(198, 0, -1)])}
    return Context(rows, rows, counts)


def padded(context: Context, columns: int) -> Context:
    """The same rows with more columns of padding, and counts that hold it."""
    empty = torch.zeros(len(context.train), columns, dtype=torch.int32)
    rows = replace(context.train, ids=torch.cat([context.train.ids, empty], dim=1))
    counts = {name: own.copy() for name, own in context.counts.items()}
    counts["tags"][0] += 400 * columns
    return Context(rows, rows, counts)


@pytest.mark.parametrize("counted", [True, False])
def test_padding_that_no_score_reads_changes_no_bits(counted, make_model, context) -> None:
    contexts = [context, padded(context, 40)]
    found = []
    for one, layout in zip(contexts, (LAYOUT, replace(LAYOUT, widths=(1, 43))), strict=True):
        one.counts = one.counts if counted else {}
        model = make_model(DENSE, layout)
        for bits in (1, 2, 3, 4, 5, 6):
            budget = packed_bytes(model) - 500 * 8 * 4 + 500 * bits + 200
            small, (record,) = compress(model, [{"name": "mix-bits", "budget": budget}], one)
            assert packed_bytes(small) <= budget
            found.append(record["facts"])
    assert found[:6] == found[6:]
    assert found[0] != found[1]


@pytest.mark.parametrize(("widths", "least"), [((2,), 2), ((0, 2, 4), 2), ((0, 1), 8)])
def test_padding_stays_zero_at_the_fewest_bits_that_hold_it(widths, least, make_model, context) -> None:
    model = make_model(DENSE, LAYOUT)
    with pytest.raises(InputError, match="below the least possible") as error:
        compress(model, [{"name": "mix-bits", "budget": 1, "widths": widths}], context)
    budget = int(str(error.value).rpartition(" ")[2].replace(",", ""))
    small, (record,) = compress(model, [{"name": "mix-bits", "budget": budget, "widths": widths}], context)
    (said,) = [each for each in record["touched"] if each.startswith("tags:")]
    assert said.startswith(f"tags: {least} bits for ")
    assert not small.embedding.table.rows(300, 301).any()


def test_a_budget_is_refused_where_nothing_can_be_mixed(make_model, context) -> None:
    model = make_model(DENSE, LAYOUT)
    with pytest.raises(InputError, match=f"of 100 bytes is below the least possible: {packed_bytes(model):,}"):
        compress(model, [{"name": "mix-bits", "budget": 100, "skip": ["*"]}], context)


def test_a_field_that_is_not_finite_is_skipped_by_name_and_the_other_is_mixed(make_model, context) -> None:
    model = make_model(DENSE, LAYOUT)
    model.embedding.table.weight.data[7] = float("nan")
    budget = packed_bytes(model) - 200 * 8 * 3
    small, (record,) = compress(model, [{"name": "mix-bits", "budget": budget}], context)
    assert packed_bytes(small) <= budget
    assert record["skipped"] == [{"name": "embedding.user", "reason": "holds NaN or infinite values"}]
