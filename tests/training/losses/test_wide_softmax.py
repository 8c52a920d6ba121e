"""Cross-entropy by parts, against torch's own of all scores at once, in values, gradients and memory."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from slimrank.training.losses import wide_softmax
from slimrank.training.losses.wide_softmax import SoftLabels, wide_cross_entropy

SOFT = [None, (1.0, 1.0, 1), (0.3, 2.0, 2)]


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def labels_of(given: tuple[float, float, int] | None, places: int, items: int) -> SoftLabels | None:
    """Soft labels of teachers whose vectors are of other lengths than the student's."""
    if given is None:
        return None
    weight, heat, teachers = given
    return SoftLabels(
        weight, heat, [(draw(places, 4 + n, seed=n), draw(items, 4 + n, seed=9 + n)) for n in range(teachers)]
    )


def at_once(vectors: Tensor, items: Tensor, place: Tensor, soft: SoftLabels | None) -> Tensor:
    """The same of all scores, by torch."""
    scores = vectors @ items.T
    hard = functional.cross_entropy(scores, place)
    if soft is None:
        return hard
    labels = torch.stack([(a @ b.T / soft.temperature).softmax(dim=1) for a, b in soft.sides]).mean(dim=0)
    softer = functional.cross_entropy(scores / soft.temperature, labels)
    return soft.weight * soft.temperature**2 * softer + (1 - soft.weight) * hard


@pytest.mark.parametrize(("given", "step"), list(product(SOFT, [1, 7, 1000])))
def test_values_and_gradients_are_those_of_all_scores_at_once(
    given: tuple[float, float, int] | None, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wide_softmax, "LEAST_PLACES", step)
    monkeypatch.setattr(wide_softmax, "AT_ONCE", {"cpu": 1})
    soft, place = labels_of(given, 23, 40), torch.randint(0, 40, (23,), generator=torch.Generator().manual_seed(5))
    found, expected = ([], [])
    for function, kept in ((wide_cross_entropy, found), (at_once, expected)):
        vectors, items = draw(23, 6, seed=1).requires_grad_(), draw(40, 6, seed=2).requires_grad_()
        loss = 3 * function(vectors, items, place, soft)
        loss.backward()
        kept.extend([loss.detach(), vectors.grad, items.grad])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("given", SOFT)
def test_gradients_are_numerical_ones(given: tuple[float, float, int] | None) -> None:
    soft, place = labels_of(given, 5, 7), torch.tensor([0, 6, 3, 3, 1])
    factors = (draw(5, 3, seed=1).requires_grad_(), draw(7, 3, seed=2).requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: wide_cross_entropy(a, b, place, soft), factors)


@pytest.mark.parametrize("given", SOFT)
def test_without_places_it_is_zero_and_so_are_gradients(given: tuple[float, float, int] | None) -> None:
    vectors, items = draw(0, 6, seed=1).requires_grad_(), draw(40, 6, seed=2).requires_grad_()
    loss = wide_cross_entropy(vectors, items, torch.zeros(0, dtype=torch.int64), labels_of(given, 0, 40))
    loss.backward()
    assert loss.item() == 0.0
    assert vectors.grad.shape == (0, 6)
    assert not items.grad.any()


def test_scores_far_apart_stay_finite() -> None:
    """An item whose chance float32 takes for 0 has a loss and a gradient all the same."""
    vectors, items = torch.tensor([[1.0]], requires_grad=True), torch.tensor([[0.0], [400.0], [-400.0]])
    loss = wide_cross_entropy(vectors, items, torch.tensor([2]))
    loss.backward()
    assert loss.item() == pytest.approx(800.0)
    assert vectors.grad.item() == pytest.approx(800.0)


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_half_precision_multiplies_in_halves_and_adds_up_in_floats(
    given: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 a number is off by 1 in 256, and a sum of 600 losses stops growing; the loss is of floats."""
    monkeypatch.setattr(wide_softmax, "LEAST_PLACES", 1)
    monkeypatch.setattr(wide_softmax, "AT_ONCE", {"cpu": 1})
    factors = [draw(600, 8, seed=1).to(given), draw(900, 8, seed=2).to(given)]
    place = torch.arange(600)
    exact = [each.float().clone().requires_grad_() for each in factors]
    whole = at_once(*exact, place, None)
    with torch.autocast("cpu", torch.bfloat16):
        vectors, items = (each.clone().requires_grad_() for each in factors)
        half = wide_cross_entropy(vectors, items, place)
    whole.backward()
    half.backward()
    assert half.dtype == torch.float32
    assert vectors.grad.dtype == items.grad.dtype == given
    assert half.item() != whole.item()
    assert half.item() == pytest.approx(whole.item(), rel=2e-3)
    for found, expected in ((vectors, exact[0]), (items, exact[1])):
        assert (found.grad - expected.grad).norm() < 0.02 * expected.grad.norm()


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    """Frozen items, and a value without any gradient."""
    vectors, items, place = draw(5, 3, seed=1), draw(7, 3, seed=2), torch.tensor([0, 6, 3, 3, 1])
    with torch.no_grad():
        expected = wide_cross_entropy(vectors, items, place)
    assert not expected.requires_grad
    loss = wide_cross_entropy(vectors.requires_grad_(), items, place)
    loss.backward()
    assert loss.item() == expected.item()
    assert vectors.grad.any()
    assert items.grad is None


def test_equal_scores_cost_the_logarithm_of_the_items() -> None:
    loss = wide_cross_entropy(torch.zeros(3, 2), torch.ones(50, 2), torch.tensor([0, 7, 49]))
    assert loss.item() == pytest.approx(math.log(50))
