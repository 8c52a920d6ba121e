"""Losses, from their formulas written out."""

import math

import pytest
import torch

from slimrank.training.losses.cross_entropy import (
    Distillation,
    cross_entropy,
    distillation,
    lookup_penalty,
    row_penalty,
    soft_cross_entropy,
)


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
    mixed = distillation(z, y, t, Distillation(soft_weight=0.9, temperature=2.0))
    assert mixed.item() == pytest.approx(0.9 * soft_cross_entropy(z, t, 2.0).item() + 0.1 * cross_entropy(z, y).item())


def test_extreme_logits_are_finite() -> None:
    z = torch.tensor([1e4, -1e4])
    assert soft_cross_entropy(z, -z, 1.0).isfinite()
    assert cross_entropy(z, torch.tensor([0.0, 1.0])).isfinite()


def test_penalties() -> None:
    assert lookup_penalty(torch.tensor([[[1.0, 2.0]], [[3.0, 0.0]]])).item() == (1 + 4 + 9) / 2 / 2
    assert row_penalty(torch.tensor([[1.0, 2.0], [3.0, 0.0]])).item() == (1 + 4 + 9) / 2
