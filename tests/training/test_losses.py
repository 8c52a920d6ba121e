"""Losses, from their formulas written out."""

import math

import pytest
import torch

from slimrank.config import InputError
from slimrank.training.examples import Examples
from slimrank.training.losses.cross_entropy import cross_entropy, lookup_penalty, row_penalty, soft_cross_entropy
from slimrank.training.losses.loss import Distillation, distilled, objective_of


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_cross_entropy() -> None:
    loss = cross_entropy(torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx((-math.log(sigmoid(2)) - math.log(1 - sigmoid(-1))) / 2)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_cross_entropy(temperature: float) -> None:
    z, t = 1.5, -0.5
    p, q = sigmoid(z / temperature), sigmoid(t / temperature)
    expected = temperature**2 * -(q * math.log(p) + (1 - q) * math.log(1 - p))
    loss = soft_cross_entropy(torch.tensor([z]), torch.tensor([t]), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_soft_cross_entropy_is_least_where_the_student_equals_the_teacher() -> None:
    z = torch.tensor([0.7], requires_grad=True)
    soft_cross_entropy(z, torch.tensor([0.7]), 2.0).backward()
    assert z.grad is not None
    assert abs(z.grad.item()) < 1e-7


def test_mixture() -> None:
    z, y, t = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]), torch.tensor([0.5, -0.5])
    batch = Examples(torch.zeros(2, 0), torch.zeros(2, 0), y).with_teacher(t)
    mixed = distilled(Distillation(soft_weight=0.9, temperature=2.0), None, "click")(z, batch)
    assert mixed.item() == pytest.approx(0.9 * soft_cross_entropy(z, t, 2.0).item() + 0.1 * cross_entropy(z, y).item())
    soft = distilled(Distillation(soft_weight=1.0), None, "click")(z, batch)
    assert soft.item() == pytest.approx(soft_cross_entropy(z, t, 1.0).item())


def test_soft_cross_entropy_by_confidence() -> None:
    z, t, sure = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -0.5]), torch.tensor([3.0, 1.0])
    each = [soft_cross_entropy(z[i : i + 1], t[i : i + 1], 2.0).item() for i in range(2)]
    assert soft_cross_entropy(z, t, 2.0, sure).item() == pytest.approx((3 * each[0] + each[1]) / 4)
    assert soft_cross_entropy(z, t, 2.0, 0 * sure).item() == 0
    batch = Examples(torch.zeros(2, 0), torch.zeros(2, 0), t).with_teacher(t, sure)
    found = distilled(Distillation(soft_weight=1.0, temperature=2.0), None, "click")(z, batch)
    assert found.item() == pytest.approx((3 * each[0] + each[1]) / 4)


def test_distillation_without_teachers_or_without_a_loss_is_refused() -> None:
    z = torch.zeros(2)
    with pytest.raises(InputError, match="loss 'soft-labels' learns from teachers, and there are none"):
        distilled(Distillation(), None, "click")(z, Examples(torch.zeros(2, 0), torch.zeros(2, 0), z))
    with pytest.raises(InputError, match="distillation of answer 'item' needs a loss of soft labels to be named"):
        distilled(Distillation(), None, "item")


def test_a_loss_is_named_in_plain_data_only_where_it_was_chosen() -> None:
    assert "loss" not in Distillation().model_dump(mode="json")
    chosen = Distillation.parse({"loss": {"name": "soft-labels", "temperature": 3.0}})
    assert Distillation.parse(chosen.model_dump(mode="json")) == chosen
    with pytest.raises(InputError, match="Did you mean 'soft-labels'"):
        Distillation.parse({"loss": "soft-label"})
    assert objective_of(None, "click")(torch.zeros(2), Examples(z := torch.zeros(2, 0), z, torch.ones(2))).item() > 0


def test_extreme_logits_are_finite() -> None:
    z = torch.tensor([1e4, -1e4])
    assert soft_cross_entropy(z, -z, 1.0).isfinite()
    assert cross_entropy(z, torch.tensor([0.0, 1.0])).isfinite()


def test_penalties() -> None:
    assert lookup_penalty(torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])).item() == (1 + 4 + 9) / 2 / 2
    assert row_penalty(torch.tensor([[1.0, 2.0], [3.0, 0.0]])).item() == (1 + 4 + 9) / 2
