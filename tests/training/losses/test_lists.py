"""Losses of lists, from their formulas written out, and from loops over documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from slimrank.training.losses.lists import Lists, approx_ndcg, lambda_rank, pairwise_logistic, ranks, softmax_list

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "pairwise": pairwise_logistic,
    "softmax": softmax_list,
    "approx": lambda s, y, m: approx_ndcg(s, y, m, temperature=0.7),
    "lambda": lambda_rank,
    "lambda@1": lambda s, y, m: lambda_rank(s, y, m, k=1),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def one_list(loss: Loss, scores: Sequence[float], labels: Sequence[float]) -> float:
    """The loss of one list without padding."""
    mask = torch.ones(1, len(scores), dtype=torch.bool)
    return loss(torch.tensor([scores], dtype=torch.float64), torch.tensor([labels]), mask).item()


def logistic(x: float) -> float:
    return math.log(1 + math.exp(-x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_pairwise() -> None:
    """Grades 2, 1, 0 make three pairs; the fourth document, 0 too, makes two more and none with the third."""
    expected = (logistic(1 - 3) + logistic(1 - 2) + logistic(1 - 5) + logistic(3 - 2) + logistic(3 - 5)) / 5
    assert one_list(pairwise_logistic, [1, 3, 2, 5], [2, 1, 0, 0]) == pytest.approx(expected)


def test_softmax() -> None:
    total = math.exp(1) + math.exp(3) + math.exp(2)
    expected = -(2 / 3 * math.log(math.exp(1) / total) + 1 / 3 * math.log(math.exp(3) / total))
    assert one_list(softmax_list, [1, 3, 2], [2, 1, 0]) == pytest.approx(expected)


def test_approx_ndcg() -> None:
    rank = [1 + sigmoid((3 - 1) / 0.1) + sigmoid((2 - 1) / 0.1), 1 + sigmoid(-2 / 0.1) + sigmoid(-1 / 0.1)]
    reached = 3 / math.log2(1 + rank[0]) + 1 / math.log2(1 + rank[1])
    assert one_list(approx_ndcg, [1, 3, 2], [2, 1, 0]) == pytest.approx(1 - reached / (3 + 1 / math.log2(3)))


def test_approx_ndcg_is_ndcg_where_scores_are_far_apart() -> None:
    assert one_list(approx_ndcg, [30, 20, 10], [2, 1, 0]) == pytest.approx(0, abs=1e-12)
    reached = 3 / math.log2(3) + 1
    assert one_list(approx_ndcg, [20, 30, 10], [2, 1, 0]) == pytest.approx(1 - reached / (3 + 1 / math.log2(3)))


def test_lambda_rank() -> None:
    """Ranks by score: the second document first, then the third, then the first, which has grade 2."""
    best = 3 + 1 / math.log2(3)
    third_first, third_second, first_second = 1 / 2 - 1, 1 / 2 - 1 / math.log2(3), 1 - 1 / math.log2(3)
    expected = (
        abs((3 - 1) * third_first) / best * logistic(1 - 3)
        + abs((3 - 0) * third_second) / best * logistic(1 - 2)
        + abs((1 - 0) * first_second) / best * logistic(3 - 2)
    )
    assert one_list(lambda_rank, [1, 3, 2], [2, 1, 0]) == pytest.approx(expected)


def test_lambda_rank_with_truncation_leaves_out_pairs_below_it() -> None:
    best, third_first = 3 + 1 / math.log2(3), 1 / 2 - 1
    first_second = 1 - 1 / math.log2(3)
    expected = abs((3 - 1) * third_first) / best * logistic(1 - 3) + first_second / best * logistic(3 - 2)
    assert one_list(LOSSES["lambda@1"], [1, 3, 2], [2, 1, 0]) == pytest.approx(expected)


def test_no_gradient_goes_through_the_weights_of_lambda_rank() -> None:
    """The gradient of a pair is its weight times that of the logistic loss."""
    scores = torch.tensor([[0.5, 1.5]], requires_grad=True)
    lambda_rank(scores, torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool)).backward()  # type: ignore[no-untyped-call]
    weight = 1 - 1 / math.log2(3)
    assert scores.grad is not None
    assert scores.grad[0].tolist() == pytest.approx([-weight * sigmoid(1), weight * sigmoid(1)])


def brute(name: str, scores: list[float], labels: list[float]) -> float | None:
    """The loss of one list by loops; None where the list has nothing to teach."""
    n = len(scores)
    pairs = [(i, j) for i in range(n) for j in range(n) if labels[i] > labels[j]]
    best = sum((2**y - 1) / math.log2(place + 2) for place, y in enumerate(sorted(labels, reverse=True)))
    order = sorted(range(n), key=lambda i: (-scores[i], i))
    discount = {i: 1 / math.log2(place + 2) for place, i in enumerate(order)}
    if name == "softmax":
        total, norm = sum(labels), math.log(sum(math.exp(s) for s in scores))
        return -sum(y / total * (s - norm) for s, y in zip(scores, labels, strict=True)) if total else None
    if name == "approx":
        rank = [1 + sum(sigmoid((scores[j] - scores[i]) / 0.7) for j in range(n) if j != i) for i in range(n)]
        return 1 - sum((2 ** labels[i] - 1) / math.log2(1 + rank[i]) for i in range(n)) / best if best else None
    if name == "pairwise":
        return sum(logistic(scores[i] - scores[j]) for i, j in pairs) / len(pairs) if pairs else None
    kept = [(i, j) for i, j in pairs if name == "lambda" or order[0] in (i, j)]
    if not kept:
        return None
    swap = {(i, j): abs((2 ** labels[i] - 2 ** labels[j]) * (discount[i] - discount[j])) / best for i, j in kept}
    return sum(swap[i, j] * logistic(scores[i] - scores[j]) for i, j in kept)


@pytest.mark.parametrize("name", LOSSES)
def test_padded_lists_are_as_loops_over_each(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    group = torch.randint(0, 9, (60,), generator=generator)
    scores = torch.randn(60, generator=generator, dtype=torch.float64)
    scores[::7] = 0.5  # ties
    labels = torch.randint(0, 3, (60,), generator=generator).float()
    labels[group == 4] = 0
    lists = Lists.of(group)
    found = LOSSES[name](lists.pad(scores), lists.pad(labels), lists.mask)
    each = [brute(name, scores[group == g].tolist(), labels[group == g].tolist()) for g in group.unique()]
    counted = [value for value in each if value is not None]
    assert len(counted) < len(each)
    assert found.item() == pytest.approx(sum(counted) / len(counted))


@every_loss
def test_gradients_are_those_of_finite_differences(loss: Loss) -> None:
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 3, (4, 5), generator=generator)
    mask = torch.arange(5) < torch.tensor([[5], [3], [1], [0]])
    assert torch.autograd.gradcheck(lambda s: loss(s, labels, mask), (scores,))


@every_loss
def test_masked_places_change_nothing_and_have_no_gradient(loss: Loss) -> None:
    scores, labels = torch.tensor([[0.3, -1.0, 0.7]]), torch.tensor([[1.0, 0.0, 2.0]])
    alone = loss(scores, labels, torch.ones(1, 3, dtype=torch.bool))
    wide = torch.tensor([[0.3, -1.0, 0.7, math.nan, math.inf]], requires_grad=True)
    mask = torch.tensor([[True, True, True, False, False]])
    found = loss(wide, torch.tensor([[1.0, 0.0, 2.0, math.nan, -3.0]]), mask)
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == pytest.approx(alone.item())
    assert wide.grad is not None
    assert wide.grad.isfinite().all()
    assert wide.grad[0, 3:].tolist() == [0.0, 0.0]


@every_loss
@pytest.mark.parametrize(
    ("scores", "labels", "mask"),
    [
        ([[0.1, 0.2]], [[0.0, 0.0]], [[True, True]]),  # nothing relevant
        ([[0.1, 9.0]], [[0.0, 9.0]], [[True, False]]),  # one document, not relevant
        ([[0.1, 0.2]], [[0.0, 0.0]], [[False, False]]),
    ],
)
def test_lists_with_nothing_to_teach_cost_nothing(loss: Loss, scores: object, labels: object, mask: object) -> None:
    z = torch.tensor(scores, requires_grad=True)
    found = loss(z, torch.tensor(labels), torch.tensor(mask))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == 0
    assert z.grad is not None
    assert z.grad.tolist() == [[0.0, 0.0]]


@every_loss
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_no_documents_cost_nothing(loss: Loss, shape: tuple[int, int]) -> None:
    z = torch.zeros(shape, requires_grad=True)
    found = loss(z, torch.zeros(shape), torch.ones(shape, dtype=torch.bool))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == 0


@every_loss
@pytest.mark.parametrize("scores", [[[2.0, 2.0, 2.0]], [[1e4, -1e4, 0.0]], [[-1e30, 1e30, 0.0]]])
def test_ties_and_extreme_scores_are_finite(loss: Loss, scores: list[list[float]]) -> None:
    z = torch.tensor(scores, requires_grad=True)
    found = loss(z, torch.tensor([[2.0, 0.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@every_loss
def test_a_group_of_one_relevant_document(loss: Loss) -> None:
    """Nothing to order: no loss, and no gradient."""
    z = torch.tensor([[0.4]], requires_grad=True)
    found = loss(z, torch.tensor([[2.0]]), torch.ones(1, 1, dtype=torch.bool))
    found.backward()  # type: ignore[no-untyped-call]
    assert found.item() == pytest.approx(0)
    assert z.grad is not None
    assert z.grad.item() == 0


def test_lists_keep_the_order_of_rows_and_of_groups() -> None:
    lists = Lists.of(torch.tensor([7, -3, 7, 7, -3, 5]))
    assert lists.mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    assert lists.pad(torch.arange(6)).tolist() == [[1, 4, 0], [5, 0, 0], [0, 2, 3]]


def test_lists_of_nothing() -> None:
    lists = Lists.of(torch.zeros(0, dtype=torch.int64))
    assert lists.pad(torch.zeros(0)).shape == lists.mask.shape == (0, 0)


def test_padding_gives_gradients_to_rows_alone() -> None:
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    Lists.of(torch.tensor([1, 0, 1])).pad(values).sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 1.0, 1.0]


def test_ranks_put_masked_places_last_and_ties_in_order() -> None:
    mask = torch.tensor([[True, False, True, True]])
    assert ranks(torch.tensor([[1.0, 9.0, 2.0, 1.0]]), mask).tolist() == [[1, 3, 0, 2]]
