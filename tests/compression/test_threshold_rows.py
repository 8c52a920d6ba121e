"""Rare ids: which go, what stands for them then, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimrank.compression.steps import Context, compress
from slimrank.compression.threshold_rows import ThresholdRows, kept_ids
from slimrank.models.deepfm import DeepFM
from slimrank.models.dnn import DNN
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
    assert records[1]["skipped"] == [
        {"name": "embedding.table", "reason": "is quantised already: drop rare ids first"},
    ]
    assert small.embedding.layout == LAYOUT


def test_a_model_with_two_tables_is_cut_in_both(make_model, context) -> None:
    model = make_model(DeepFM(embedding_dim=2, hidden=(3,)), LAYOUT)
    small, _ = compress(model, [{"name": "threshold-rows", "min_count": 3}], context)
    assert small.embedding.layout.sizes == small.weights.layout.sizes == (4, 4, 3)
    assert torch.equal(small(torch.tensor([[4, 0, 2, 0]])), small(torch.tensor([[0, 0, 2, 0]])))


def test_the_columns_that_a_student_reads_stay(make_model, context) -> None:
    model = make_model(DNN(embedding_dim=2, hidden=(3,)), LAYOUT.only({"tags"}))
    model.embedding.reads = LAYOUT.columns_of({"tags"})
    small, _ = compress(model, [{"name": "threshold-rows", "min_count": 3}], context)
    assert small.embedding.layout.sizes == (3,)
    assert torch.equal(small(torch.tensor([[9, 9, 4, 2]])), small(torch.tensor([[0, 0, 1, 2]])))
