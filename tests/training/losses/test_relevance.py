"""Losses of relevance as they are registered: the formula, on the rows of a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from slimrank.config import InputError, as_config
from slimrank.training.examples import Examples
from slimrank.training.losses import distil_lists, lists
from slimrank.training.losses.lists import Lists
from slimrank.training.losses.loss import Distillation, Objective, distilled, objective_of

GROUP = torch.tensor([5, 2, 5, 9, 2, 5])
LABEL = torch.tensor([2.0, 0.0, 0.0, 1.0, 1.0, 1.0])
LOGIT = torch.tensor([0.1, 0.4, -0.3, 2.0, 0.2, 0.6])
TEACHER = torch.tensor([1.0, -0.4, 0.3, 0.0, 0.2, 0.5])
NAMES = ("softmax-list", "pairwise-logistic", "approx-ndcg", "lambda-rank")
SOFT = ("soft-list", "margin-mse", "relaxed-ranking")


def batch(**columns: Any) -> Examples:
    nothing = torch.zeros(len(GROUP), 0)
    return replace(Examples(nothing, nothing, LABEL, TEACHER, GROUP, "relevance"), **columns)


def chosen(**settings: Any) -> Objective:
    return objective_of(as_config("loss", settings), "relevance")


def padded(values: Tensor) -> Tensor:
    return Lists.of(GROUP).pad(values)


MASK = Lists.of(GROUP).mask
LIST = (padded(LOGIT), padded(LABEL), MASK)
SOFT_LIST = (padded(LOGIT), padded(TEACHER), MASK)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "softmax-list"}, lists.softmax_list(LIST[0], 2 ** LIST[1] - 1, MASK)),
        ({"name": "softmax-list", "gain": "linear"}, lists.softmax_list(*LIST)),
        ({"name": "pairwise-logistic"}, lists.pairwise_logistic(*LIST)),
        ({"name": "approx-ndcg", "temperature": 0.5}, lists.approx_ndcg(*LIST, temperature=0.5)),
        ({"name": "lambda-rank"}, lists.lambda_rank(*LIST)),
        ({"name": "lambda-rank", "k": 1}, lists.lambda_rank(*LIST, k=1)),
        ({"name": "soft-list"}, distil_lists.soft_list(*SOFT_LIST)),
        (
            {"name": "soft-list", "temperature": 2.0, "anchor": True},
            distil_lists.soft_list(*SOFT_LIST, temperature=2.0, anchor=True),
        ),
        ({"name": "margin-mse"}, distil_lists.margin_mse(*SOFT_LIST, LIST[1])),
        ({"name": "margin-mse", "pairs": "all"}, distil_lists.margin_mse(*SOFT_LIST)),
        ({"name": "relaxed-ranking", "interesting": 2}, distil_lists.relaxed_ranking(*SOFT_LIST, interesting=2)),
    ],
)
def test_a_batch_is_its_lists(settings: dict[str, Any], expected: Tensor) -> None:
    assert chosen(**settings)(LOGIT, batch()).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", SOFT)
def test_confidence_counts(name: str) -> None:
    sure = torch.tensor([1.0, 0.5, 0.2, 1.0, 0.1, 0.7])
    found = chosen(name=name)(LOGIT, batch(confidence=sure))
    assert found.item() != pytest.approx(chosen(name=name)(LOGIT, batch()).item())
    one = chosen(name=name)(LOGIT, batch(confidence=torch.ones(6)))
    assert one.item() == pytest.approx(chosen(name=name)(LOGIT, batch()).item())


@pytest.mark.parametrize("name", NAMES + SOFT)
def test_rows_of_clicks_are_no_lists(name: str) -> None:
    with pytest.raises(InputError, match=f"loss '{name}' orders the documents of a query: .* got 'click'"):
        chosen(name=name)(LOGIT, batch(answer="click"))


@pytest.mark.parametrize("name", SOFT)
def test_soft_labels_need_a_teacher(name: str) -> None:
    with pytest.raises(InputError, match=f"loss '{name}' learns from teachers"):
        chosen(name=name)(LOGIT, batch(teacher=None))


def test_relevance_is_distilled_list_by_list_where_nothing_else_is_said() -> None:
    found = distilled(Distillation(soft_weight=0.75, temperature=2.0), None, "relevance")(LOGIT, batch())
    soft, hard = distil_lists.soft_list(*SOFT_LIST, temperature=2.0), chosen(name="softmax-list")(LOGIT, batch())
    assert found.item() == pytest.approx(0.75 * soft.item() + 0.25 * hard.item())


def test_the_loss_of_soft_labels_may_be_named() -> None:
    mix = Distillation.parse({"soft_weight": 0.5, "loss": {"name": "margin-mse", "pairs": "all"}})
    found = distilled(mix, as_config("loss", "lambda-rank"), "relevance")(LOGIT, batch())
    expected = (distil_lists.margin_mse(*SOFT_LIST) + lists.lambda_rank(*LIST)) / 2
    assert found.item() == pytest.approx(expected.item())


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="loss lambda-rank: k: Input should be greater than or equal to 1, got 0"):
        as_config("loss", {"name": "lambda-rank", "k": 0})
    with pytest.raises(InputError, match=r"unknown key 'temprature'\. Did you mean 'temperature'"):
        as_config("loss", {"name": "approx-ndcg", "temprature": 1})
