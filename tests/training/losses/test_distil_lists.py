"""Losses of lists and vectors against a teacher, from their formulas written out, and from loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from slimrank.config import InputError
from slimrank.training.losses.distil_lists import (
    embedding_alignment,
    ensemble,
    margin_mse,
    relaxed_ranking,
    soft_list,
)

Loss = Callable[..., Tensor]
LOSSES: dict[str, Loss] = {
    "margin": margin_mse,
    "soft": partial(soft_list, temperature=2.0),
    "anchored": partial(soft_list, temperature=2.0, anchor=True),
    "relaxed": partial(relaxed_ranking, interesting=2),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def full(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.bool)


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_margin_mse_of_triples() -> None:
    """One relevant document, two that are not: Hofstaetter's triples."""
    scores, teacher = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[5.0, 4.0, 0.0]])
    expected = (((1 - 3) - (5 - 4)) ** 2 + ((1 - 2) - (5 - 0)) ** 2) / 2
    assert margin_mse(scores, teacher, full(1, 3), torch.tensor([[1.0, 0.0, 0.0]])).item() == expected


def test_margin_mse_without_labels_is_of_all_pairs() -> None:
    scores, teacher = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[5.0, 4.0, 0.0]])
    expected = (((1 - 3) - (5 - 4)) ** 2 + ((1 - 2) - (5 - 0)) ** 2 + ((3 - 2) - (4 - 0)) ** 2) / 3
    assert margin_mse(scores, teacher, full(1, 3)).item() == expected


def test_margin_mse_by_confidence() -> None:
    scores, teacher = torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[5.0, 4.0, 0.0]])
    weight = torch.tensor([[1.0, 0.5, 0.25]])
    expected = (0.5 * ((1 - 3) - (5 - 4)) ** 2 + 0.25 * ((1 - 2) - (5 - 0)) ** 2) / 0.75
    found = margin_mse(scores, teacher, full(1, 3), torch.tensor([[1.0, 0.0, 0.0]]), weight)
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_list(temperature: float) -> None:
    p, q = softmax([2 / temperature, 0.0, -1 / temperature]), softmax([0.5 / temperature, 1 / temperature, 0.0])
    found = soft_list(
        torch.tensor([[0.5, 1.0, 0.0]]), torch.tensor([[2.0, 0.0, -1.0]]), full(1, 3), temperature=temperature
    )
    assert found.item() == pytest.approx(temperature**2 * divergence(p, q), rel=1e-5)


def test_soft_list_with_an_anchor() -> None:
    p, q = softmax([2.0, -1.0, 0.0]), softmax([0.5, 1.0, 0.0])
    found = soft_list(torch.tensor([[0.5, 1.0]]), torch.tensor([[2.0, -1.0]]), full(1, 2), anchor=True)
    assert found.item() == pytest.approx(divergence(p, q), rel=1e-5)


def test_the_anchor_alone_keeps_the_size_of_scores() -> None:
    """A constant added to all scores costs nothing without it."""
    teacher = torch.tensor([[2.0, -1.0, 0.5]])
    assert soft_list(teacher + 3, teacher, full(1, 3)).item() == pytest.approx(0, abs=1e-6)
    assert soft_list(teacher + 3, teacher, full(1, 3), anchor=True).item() > 0.1
    assert soft_list(teacher, teacher, full(1, 3), anchor=True).item() == pytest.approx(0, abs=1e-6)


def test_an_anchored_list_of_one_is_binary_cross_entropy() -> None:
    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    found = soft_list(torch.tensor([[-1.0]]), torch.tensor([[2.0]]), full(1, 1), anchor=True)
    assert found.item() == pytest.approx(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)), rel=1e-5)


def test_relaxed_ranking() -> None:
    """The teacher puts the third first, then the first; the other two have no order."""
    e = math.exp
    everything = e(1) + e(3) + e(2) + e(0)
    expected = -math.log(e(2) / everything) - math.log(e(1) / (everything - e(2)))
    scores, teacher = torch.tensor([[1.0, 3.0, 2.0, 0.0]]), torch.tensor([[8.0, 1.0, 9.0, 2.0]])
    assert relaxed_ranking(scores, teacher, full(1, 4), interesting=2).item() == pytest.approx(expected)
    swapped = torch.tensor([[8.0, 2.0, 9.0, 1.0]])
    assert relaxed_ranking(scores, swapped, full(1, 4), interesting=2).item() == pytest.approx(expected)


def test_relaxed_ranking_of_more_than_there_are_is_the_whole_order() -> None:
    e = math.exp
    expected = -math.log(e(2) / (e(1) + e(2))) - math.log(e(1) / e(1))
    scores, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]])
    assert relaxed_ranking(scores, teacher, full(1, 2), interesting=5).item() == pytest.approx(expected)


def test_embedding_alignment() -> None:
    student, teacher = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [0.0, 2.0]])
    assert embedding_alignment(student, teacher).item() == pytest.approx((1 - 24 / 25 + 1 - 0) / 2)
    assert embedding_alignment(student, teacher, form="mse").item() == pytest.approx(((1 + 1) / 2 + (1 + 4) / 2) / 2)
    weight = torch.tensor([3.0, 1.0])
    found = embedding_alignment(student, teacher, weight=weight)
    assert found.item() == pytest.approx((3 * (1 - 24 / 25) + 1 * 1) / 4)


def test_embedding_alignment_through_a_matrix_that_learns() -> None:
    student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    matrix = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], requires_grad=True)
    assert embedding_alignment(student, teacher, matrix=matrix, form="mse").item() == 0
    embedding_alignment(student, teacher + 1, matrix=matrix, form="mse").backward()  # type: ignore[no-untyped-call]
    assert matrix.grad is not None
    assert matrix.grad[0].tolist() == pytest.approx([-2 / 3 * 1] * 3)
    assert matrix.grad[1].tolist() == pytest.approx([-2 / 3 * 2] * 3)


@pytest.mark.parametrize("form", ["cosine", "mse"])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, math.nan, 1.0]), torch.tensor([1.0, 9.0, 1.0])])
def test_masked_vectors_change_nothing_and_have_no_gradient(form: str, weight: Tensor | None) -> None:
    student = torch.tensor([[3.0, 4.0], [math.nan, 1.0], [1.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[4.0, 3.0], [math.inf, 0.0], [0.0, 2.0]])
    matrix = torch.eye(2, requires_grad=True)
    mask = torch.tensor([True, False, True])
    found = embedding_alignment(student, teacher, mask, form=form, matrix=matrix, weight=weight)  # type: ignore[arg-type]
    found.backward()  # type: ignore[no-untyped-call]
    alone = embedding_alignment(student[mask], teacher[mask], form=form)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(alone.item())
    assert student.grad is not None
    assert student.grad[1].tolist() == [0.0, 0.0]
    assert student.grad.isfinite().all()
    assert matrix.grad is not None
    assert matrix.grad.isfinite().all()


@pytest.mark.parametrize("form", ["cosine", "mse"])
def test_the_gradient_of_alignment_is_that_of_finite_differences(form: str) -> None:
    generator = torch.Generator().manual_seed(5)
    student, matrix = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((4, 3), (3, 2)))
    teacher, weight = torch.randn(4, 2, generator=generator, dtype=torch.float64), torch.tensor([1.0, 0.5, 0.0, 2.0])
    assert torch.autograd.gradcheck(
        lambda s, m: embedding_alignment(s, teacher, form=form, matrix=m, weight=weight),  # type: ignore[arg-type]
        (student.requires_grad_(), matrix.requires_grad_()),
    )


def test_embedding_alignment_of_zeros_is_finite() -> None:
    student = torch.zeros(2, 3, requires_grad=True)
    found = embedding_alignment(student, torch.ones(2, 3))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == 1
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_vectors_that_do_not_fit() -> None:
    with pytest.raises(InputError, match=r"student \[2, 3\] without a matrix, teacher \[2, 4\]"):
        embedding_alignment(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(InputError, match=r"through a matrix \[3, 5\], teacher \[2, 4\]"):
        embedding_alignment(torch.ones(2, 3), torch.ones(2, 4), matrix=torch.ones(3, 5))


def test_too_few_interesting() -> None:
    with pytest.raises(InputError, match="interesting: got 0, allowed 1 or more"):
        relaxed_ranking(torch.ones(1, 2), torch.ones(1, 2), full(1, 2), interesting=0)


def test_ensemble() -> None:
    teachers = torch.tensor([[1.0, 2.0, math.nan], [3.0, math.nan, math.nan]])
    assert ensemble(teachers[:, :1]).tolist() == [(1 + 3) / 2]
    assert ensemble(teachers, ~teachers.isnan()).tolist() == [(1 + 3) / 2, 2.0, 0.0]


def brute(name: str, s: list[float], t: list[float], w: list[float]) -> float:
    """The loss of one list by loops, a document of weight w as w copies."""
    n = len(s)
    if name == "margin":
        pairs = [(i, j) for i in range(n) for j in range(i)]
        total = sum(w[i] * w[j] for i, j in pairs)
        return sum(w[i] * w[j] * ((s[i] - s[j]) - (t[i] - t[j])) ** 2 for i, j in pairs) / total
    if name == "relaxed":
        order = sorted(range(n), key=lambda i: (-t[i], i))
        left = [sum(w[i] * math.exp(s[i]) for i in order[k:]) for k in range(n)]
        return -sum(w[order[k]] * math.log(w[order[k]] * math.exp(s[order[k]]) / left[k]) for k in range(min(2, n)))
    if name == "anchored":
        s, t, w = [*s, 0.0], [*t, 0.0], [*w, 1.0]
    p, q = ([math.log(c) + value / 2 for value, c in zip(values, w, strict=True)] for values in (t, s))
    return 4 * divergence(softmax(p), softmax(q))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_padded_lists_are_as_loops_over_each(name: str, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    scores, teacher = (torch.randn(6, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    weight = torch.rand(6, 7, generator=generator, dtype=torch.float64) + 0.1 if weighted else torch.ones(6, 7)
    teacher[:, 2:4] = 0.5  # ties
    sizes = [7, 2, 5, 3, 4, 6]
    mask = torch.arange(7) < torch.tensor(sizes).unsqueeze(1)
    found = LOSSES[name](scores, teacher, mask, weight=weight if weighted else None)
    rows = [(scores[g, :n].tolist(), teacher[g, :n].tolist(), weight[g, :n].tolist()) for g, n in enumerate(sizes)]
    shares = [sum(w) / len(w) for _, _, w in rows]
    expected = sum(share * brute(name, *row) for share, row in zip(shares, rows, strict=True)) / sum(shares)
    assert found.item() == pytest.approx(expected)


@every_loss
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_those_of_finite_differences(loss: Loss, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    weight = torch.rand(4, 5, generator=generator, dtype=torch.float64) if weighted else None
    mask = torch.arange(5) < torch.tensor([[5], [3], [1], [0]])
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, mask, weight=weight), (scores,))


@every_loss
def test_masked_places_and_those_of_no_weight_change_nothing(loss: Loss) -> None:
    scores, teacher = torch.tensor([[0.3, -1.0, 0.7]]), torch.tensor([[1.0, 0.0, 2.0]])
    alone = loss(scores, teacher, full(1, 3))
    wide = torch.tensor([[0.3, 5.0, -1.0, 0.7, math.nan]], requires_grad=True)
    mask = torch.tensor([[True, True, True, True, False]])
    weight = torch.tensor([[1.0, 0.0, 1.0, 1.0, math.nan]])
    found = loss(wide, torch.tensor([[1.0, 9.0, 0.0, 2.0, math.nan]]), mask, weight=weight)
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == pytest.approx(alone.item(), rel=1e-5)
    assert wide.grad is not None
    assert wide.grad.isfinite().all()
    assert wide.grad[0, [1, 4]].tolist() == [0.0, 0.0]


@every_loss
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_no_documents_cost_nothing(loss: Loss, shape: tuple[int, int]) -> None:
    z = torch.zeros(shape, requires_grad=True)
    found = loss(z, torch.zeros(shape), full(*shape))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == 0


@every_loss
@pytest.mark.parametrize("weight", [None, [[0.0, 0.0], [0.0, 0.0]]])
def test_lists_with_nothing_to_teach_cost_nothing(loss: Loss, weight: list[list[float]] | None) -> None:
    """A list of one (anchored, it agrees with the teacher) and one of none."""
    z = torch.tensor([[0.5, 1.0], [0.0, 0.0]], requires_grad=True)
    mask = torch.tensor([[True, False], [False, False]])
    found = loss(
        z, torch.tensor([[0.5, 0.0], [0.0, 0.0]]), mask, weight=None if weight is None else torch.tensor(weight)
    )
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == pytest.approx(0, abs=1e-6)
    assert z.grad is not None
    assert z.grad.flatten().tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0], abs=1e-6)


@every_loss
@pytest.mark.parametrize("scores", [[[2.0, 2.0, 2.0]], [[1e4, -1e4, 0.0]], [[-1e15, 1e15, 0.0]]])
def test_ties_and_extreme_scores_are_finite(loss: Loss, scores: list[list[float]]) -> None:
    z = torch.tensor(scores, requires_grad=True)
    found = loss(z, -z.detach(), full(1, 3))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@every_loss
def test_a_shift_of_a_whole_list_costs_nothing_without_an_anchor(loss: Loss) -> None:
    scores, teacher = torch.tensor([[0.3, -1.0, 0.7]]), torch.tensor([[1.0, 0.0, 2.0]])
    same = loss(scores, teacher, full(1, 3)).item() == pytest.approx(loss(scores + 2, teacher, full(1, 3)).item())
    assert same == (loss is not LOSSES["anchored"])
