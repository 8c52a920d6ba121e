"""Rare ids: which go, what stands for them then, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from slimrank.compression.steps import Context, compress
from slimrank.compression.threshold_rows import ThresholdRows, kept_ids
from slimrank.config import InputError
from slimrank.models.deepfm import DeepFM
from slimrank.models.dnn import DNN
from slimrank.models.size import packed_bytes
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples

LAYOUT = Layout(("user", "hashed", "tags"), (5, 4, 5), (1, 1, 2), sequences=("tags",))
COUNTS = {
    "user": np.array([2, 9, 4, 3, 1], np.int64),  # out of vocabulary twice; then 9, 4, 3, 1 times
    "tags": np.array([50, 1, 6, 2, 2], np.int64),  # padding, out of vocabulary once; then 6, 2, 2 times
}


def rows() -> Examples:
    ids = torch.tensor([[1, 0, 2, 0], [4, 3, 4, 3], [3, 1, 1, 2]], dtype=torch.int32)
    return Examples(ids, torch.zeros(3, 0), torch.tensor([0.0, 1.0, 1.0]))


@pytest.fixture
def model(make_model):
    return make_model(DNN(embedding_dim=2, hidden=(3,)), LAYOUT)


@pytest.fixture
def context() -> Context:
    return Context(rows(), rows(), COUNTS)


@pytest.mark.parametrize(
    ("counts", "least", "reserved", "kept"),
    [
        ([0, 9, 5, 2, 1, 1], 2, 1, 4),
        ([0, 9, 5, 2, 1, 1], 1, 1, 6),
        ([7, 9, 5], 100, 1, 1),  # the reserved rows stay, however rare
        ([7, 0, 5, 5], 5, 2, 4),
        ([3], 1, 1, 1),
    ],
)
def test_ids_met_often_enough_stay(counts, least, reserved, kept) -> None:
    assert kept_ids(np.array(counts), ThresholdRows(min_count=least), reserved) == kept


def test_the_table_is_cut_and_the_dropped_rows_live_on_in_the_unknown_one(model, context) -> None:
    model.embedding.table.weight.data = torch.arange(28.0).reshape(14, 2)
    small, (record,) = compress(model, [{"name": "threshold-rows", "min_count": 3}], context)
    assert small.embedding.layout.sizes == (4, 4, 3)
    rows = small.embedding.table.weight.detach()
    # user: rows 0..4 of the table; row 4 (met once) joins row 0 (met twice): (2 * [0, 1] + 1 * [8, 9]) / 3
    expected_user = [[8 / 3, 11 / 3], [2, 3], [4, 5], [6, 7]]
    # tags: rows 9..13; rows 12 and 13 (met twice each) join row 10 (once): ([20, 21] + 2 * [24, 25] + 2 * [26, 27]) / 5
    expected_tags = [[18, 19], [120 / 5, 125 / 5], [22, 23]]
    torch.testing.assert_close(rows[:4], torch.tensor(expected_user))
    torch.testing.assert_close(rows[4:8], torch.arange(10.0, 18.0).reshape(4, 2))  # the hashed field, as it was
    torch.testing.assert_close(rows[8:], torch.tensor(expected_tags))
    assert record["touched"] == ["user: 5 ids to 4", "tags: 5 ids to 3"]
    assert record["skipped"] == [{"name": "hashed", "reason": "its ids were not counted"}]
    assert record["bytes_before"] - record["bytes_after"] == 3 * 2 * 4


def test_dropped_ids_score_as_unknown_ones(model, context) -> None:
    small, _ = compress(model, [{"name": "threshold-rows", "min_count": 3}], context)
    dropped = torch.tensor([[4, 3, 3, 4]], dtype=torch.int32)
    unknown = torch.tensor([[0, 3, 1, 1]], dtype=torch.int32)
    assert torch.equal(small(dropped), small(unknown))
    kept = torch.tensor([[3, 3, 2, 0]], dtype=torch.int32)
    assert torch.equal(small(kept), model(kept))


def test_a_field_of_frequent_ids_is_skipped_with_the_reason(model, context) -> None:
    small, (record,) = compress(model, [{"name": "threshold-rows", "min_count": 1}], context)
    assert record["touched"] == []
    assert {"name": "user", "reason": "every id was met at least 1 times"} in record["skipped"]
    assert torch.equal(small(rows().ids), model(rows().ids))


def test_ids_that_training_never_met_go_and_the_unknown_row_stays_finite(model) -> None:
    never = {"user": np.zeros(5, np.int64)}
    small, _ = compress(model, ["threshold-rows"], Context(rows(), rows(), never))
    assert small.embedding.layout.sizes == (1, 4, 5)
    assert small(rows().ids).isfinite().all()


def test_quantised_tables_are_skipped_and_nothing_is_said_to_be_touched(model, context) -> None:
    small, records = compress(model, ["quantize-tables", {"name": "threshold-rows", "min_count": 3}], context)
    assert records[1]["touched"] == []
    assert records[1]["skipped"] == [{"name": "embedding.table", "reason": "is no dense table: ScaledTable"}]
    assert small.embedding.layout == LAYOUT


def test_a_model_with_two_tables_is_cut_in_both(make_model, context) -> None:
    model = make_model(DeepFM(embedding_dim=2, hidden=(3,)), LAYOUT)
    small, _ = compress(model, [{"name": "threshold-rows", "min_count": 3}], context)
    assert small.embedding.layout.sizes == small.weights.layout.sizes == (4, 4, 3)
    assert torch.equal(small(torch.tensor([[4, 0, 2, 0]])), small(torch.tensor([[0, 0, 2, 0]])))


def test_a_field_that_is_dense_still_loses_rows_beside_one_that_is_quantised(make_model) -> None:
    layout, counts = Layout(("user", "item"), (50, 40), (1, 1)), np.arange(50, 0, -1)
    context = Context(rows(), rows(), {"user": counts, "item": counts})
    model = make_model(DNN(embedding_dim=4, hidden=(3,)), layout)
    steps = [{"name": "quantize-tables", "only": ["user"]}, {"name": "threshold-rows", "min_count": 31}]
    small, records = compress(model, steps, context)
    assert [each["reason"] for each in records[1]["skipped"]] == ["is no dense table: ScaledTable"]
    assert [each.split(":")[0] for each in records[1]["touched"]] == ["embedding.table.parts.1"]
    assert small.embedding.layout == layout  # the vocabulary is that of both
    unknown, dropped = (small(torch.tensor([[3, item]])) for item in (0, 39))
    assert torch.equal(unknown, dropped)


def test_short_rows_below_a_projection_are_dropped_as_well(make_model) -> None:
    layout, counts = Layout(("user", "item"), (50, 40), (1, 1)), np.arange(50, 0, -1)
    context = Context(rows(), rows(), {"user": counts, "item": counts})
    steps = [{"name": "reduce-dimensions", "rank": 2, "fold": False}, {"name": "threshold-rows", "min_count": 31}]
    small, records = compress(make_model(DNN(embedding_dim=4, hidden=(3,)), layout), steps, context)
    assert records[1]["skipped"] == []
    assert records[1]["bytes_after"] < records[1]["bytes_before"]
    assert torch.equal(small(torch.tensor([[0, 0]])), small(torch.tensor([[49, 39]])))


@pytest.mark.parametrize("unsorted", [frozenset(), frozenset({"user", "tags"})])
def test_a_tied_table_is_left_alone_unless_asked(unsorted, model, context) -> None:
    context.unsorted = unsorted
    model.decoder = nn.Linear(2, 14, bias=False)
    model.decoder.weight = model.embedding.table.weight
    small, (record,) = compress(model, [{"name": "threshold-rows", "min_count": 3}], context)
    assert small.decoder.weight is small.embedding.table.weight
    assert record["touched"] == []
    assert [each["name"] for each in record["skipped"]] == ["embedding.table"]
    assert "tied to decoder.weight" in record["skipped"][0]["reason"]
    asked, (record,) = compress(model, [{"name": "threshold-rows", "min_count": 3, "tied": True}], context)
    assert asked.decoder.weight.shape == (14, 2)
    assert record["touched"]


@pytest.mark.parametrize("unsorted", [frozenset(), frozenset({"user", "hashed", "tags"})])
def test_a_field_that_is_not_finite_is_skipped_by_name(unsorted, model, context) -> None:
    context.unsorted = unsorted
    model.embedding.table.weight.data[4] = float("nan")
    small, (record,) = compress(model, [{"name": "threshold-rows", "min_count": 3}], context)
    assert {"name": "embedding.user", "reason": "holds NaN or infinite values"} in record["skipped"]
    assert small.embedding.layout.sizes[0] == 5
    assert small(torch.tensor([[0, 0, 2, 0]])).isfinite()


@pytest.mark.parametrize("unsorted", [frozenset(), frozenset({"user"})])
def test_the_unknown_row_stays_where_training_met_none_of_what_it_stands_for(unsorted, make_model) -> None:
    model = make_model(DNN(embedding_dim=2, hidden=(3,)), Layout(("user",), (50,), (1,)))
    model.embedding.table.weight.data.uniform_(1, 2)
    counts = np.zeros(50, np.int64)
    counts[1:5] = 9
    small, (record,) = compress(model, ["threshold-rows"], Context(rows(), rows(), {"user": counts}, unsorted=unsorted))
    assert record["touched"]
    assert torch.equal(small.embedding.table.rows(0, 5), model.embedding.table.rows(0, 5))


def test_one_table_of_two_is_selected_by_its_own_name(make_model) -> None:
    """The vocabulary is that of both tables, so it stays, and the rare rows of the one go behind a map."""
    layout, counts = Layout(("user", "item"), (50, 40), (1, 1)), np.arange(50, 0, -1)
    context = Context(rows(), rows(), {"user": counts, "item": counts})
    model = make_model(DeepFM(embedding_dim=2, hidden=(3,)), layout)
    settings = {"name": "threshold-rows", "min_count": 31, "only": ["weights.user"]}
    small, (record,) = compress(model, [settings], context)
    assert [each.split(":")[0] for each in record["touched"]] == ["weights.user"]
    left = ["embedding.user", "embedding.item", "weights.item"]
    assert record["skipped"] == [{"name": name, "reason": "is not selected"} for name in left]
    assert torch.equal(small.embedding.table.weight, model.embedding.table.weight)
    assert torch.equal(small.weights.table.rows(49, 50), small.weights.table.rows(0, 1))


def test_what_is_not_selected_is_noted(model, context) -> None:
    _, (record,) = compress(model, [{"name": "threshold-rows", "skip": ["*"]}], context)
    assert record["touched"] == []
    expected = [{"name": f"embedding.{name}", "reason": "is not selected"} for name in LAYOUT.names]
    assert record["skipped"] == expected


def test_the_columns_that_a_student_reads_stay(make_model, context) -> None:
    model = make_model(DNN(embedding_dim=2, hidden=(3,)), LAYOUT.only({"tags"}))
    model.embedding.reads = LAYOUT.columns_of({"tags"})
    small, _ = compress(model, [{"name": "threshold-rows", "min_count": 3}], context)
    assert small.embedding.layout.sizes == (3,)
    assert torch.equal(small(torch.tensor([[9, 9, 4, 2]])), small(torch.tensor([[0, 0, 1, 2]])))


@pytest.mark.parametrize("unsorted", [frozenset(), frozenset({"user"})])
def test_a_budget_drops_as_few_ids_as_fit(unsorted, make_model) -> None:
    layout = Layout(("user", "item"), (800, 300), (1, 1))
    counts = {"user": np.r_[0, np.arange(799, 0, -1)], "item": np.r_[3, np.arange(299, 0, -1)]}
    ids = torch.zeros(4, 2, dtype=torch.int32)
    seen = Examples(ids, torch.zeros(4, 0), torch.tensor([0.0, 1.0, 0.0, 1.0]))
    model, context = make_model(DNN(embedding_dim=4, hidden=(3,)), layout), Context(seen, seen, counts)
    context.unsorted = unsorted
    before = model.embedding.table.weight.detach().clone()
    taken = {
        least: packed_bytes(compress(model, [{"name": "threshold-rows", "min_count": least}], context)[0])
        for least in (1, 2, 100, 101, 900)
    }
    for least, budget in ((100, taken[100]), (101, taken[100] - 1)):
        small, (record,) = compress(model, [{"name": "threshold-rows", "budget": budget}], context)
        assert record["facts"]["min_count"] == least
        assert packed_bytes(small) == taken[least] <= budget
    assert torch.equal(model.embedding.table.weight, before)
    _, (record,) = compress(model, [{"name": "threshold-rows", "budget": packed_bytes(model)}], context)
    assert record["touched"] == []
    with pytest.raises(InputError, match=f"a budget of 100 bytes is below the least possible: {taken[900]:,}"):
        compress(model, [{"name": "threshold-rows", "budget": 100}], context)


def test_one_way_to_say_what_is_rare() -> None:
    with pytest.raises(InputError, match=r"give one of min_count, keep and budget, got \['keep', 'budget'\]"):
        ThresholdRows.parse({"keep": 0.5, "budget": 1000}, "step")
