"""Importance of fields: of one that decides everything, of one that decides nothing, of a history."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimrank.compression.fields import field_importance, needed_fields
from slimrank.metrics import auc
from slimrank.models.logistic_regression import LogisticRegression
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples

LAYOUT = Layout(("user", "item", "tags"), (3, 4, 5), (1, 1, 2), sequences=("tags",))


@pytest.fixture
def teacher(make_model):
    """logit = 1 for user 1, -1 for user 2, and 0 from everything else."""
    model = make_model(LogisticRegression(), LAYOUT)
    model.embedding.table.weight.data.zero_()
    model.embedding.table.weight.data[1:3, 0] = torch.tensor([1.0, -1.0])
    return model


@pytest.fixture
def rows() -> Examples:
    draws = torch.Generator().manual_seed(0)
    ids = (torch.rand(4000, 4, generator=draws) * torch.tensor([3, 4, 5, 5])).to(torch.int32)
    ids[:, 0] = 1 + ids[:, 0] % 2
    return Examples(ids, torch.zeros(4000, 0), (ids[:, 0] == 1).to(torch.float32))


def test_a_field_that_decides_everything_and_fields_that_decide_nothing(teacher, rows) -> None:
    importance = field_importance([teacher], rows, seed=0)
    assert list(importance) == ["user", "item", "tags"]
    assert importance["user"] == pytest.approx(0.5, abs=0.03)  # from AUC 1 to that of chance
    assert importance["item"] == importance["tags"] == 0.0


def test_it_is_the_seed_that_shuffles_and_the_rows_stay_as_they_are(teacher, rows) -> None:
    before = rows.ids.clone()
    first = field_importance([teacher], rows, seed=3)
    assert field_importance([teacher], rows, seed=3) == first
    assert field_importance([teacher], rows, seed=4)["user"] != first["user"]
    assert torch.equal(rows.ids, before)


def test_a_history_is_shuffled_with_all_its_columns(teacher, rows) -> None:
    """Were they shuffled one by one, pairs that never stood together would."""
    rows.ids[:, 2] = rows.ids[:, 3] = 1 + rows.ids[:, 0] % 2
    table = teacher.embedding.table.weight.data
    table.zero_()
    table[7 + 2, 0], table[7 + 1, 0] = 1.0, -1.0
    importance = field_importance([teacher], rows, seed=0)
    assert importance["tags"] == pytest.approx(0.5, abs=0.03)
    assert importance["user"] == 0.0


def test_several_teachers_count_by_their_mean_logit(teacher, rows, make_model) -> None:
    against = make_model(LogisticRegression(), LAYOUT)
    against.embedding.table.weight.data = -teacher.embedding.table.weight.data
    assert set(field_importance([teacher, against], rows, seed=0).values()) == {0.0}
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    mean = np.where(rows.ids[order, 0] == 1, 1.0, -1.0)
    expected = 1.0 - auc(rows.label.numpy(), mean)
    assert field_importance([teacher, teacher], rows, seed=0)["user"] == expected


@pytest.mark.parametrize(
    ("importance", "least", "kept"),
    [
        ({"a": 0.2, "b": 0.1, "c": 0.0}, 0.1, ("a", "b")),
        ({"a": 0.2, "b": 0.1}, 0.0, ("a", "b")),
        ({"a": -0.2, "b": -0.1}, 0.5, ("b",)),
        ({"a": 0.0}, 0.0, ("a",)),
    ],
)
def test_fields_at_the_bound_stay_and_one_always_does(importance, least, kept) -> None:
    assert needed_fields(importance, least) == kept
