"""Softmax over a batch's items: the formula by hand, accidental hits, corrections, and the gap of batches."""

import math

import pytest
import torch

from slimrank.config import InputError
from slimrank.models.architecture import build_model
from slimrank.models.ease import EASE
from slimrank.models.mf import MF
from slimrank.models.popularity import Popularity
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples
from slimrank.training.losses.in_batch import InBatchSoftmax, in_batch_loss, log_draws, sampled_softmax

LAYOUT = Layout(("user", "history"), (5, 12), (1, 3), 0, ("history",))


def test_two_queries_by_hand() -> None:
    query, vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    found = sampled_softmax(query, vectors, torch.tensor([7, 8]), torch.tensor([7, 8]), torch.zeros(2))
    first = -math.log(math.exp(3) / (math.exp(3) + math.exp(1)))  # scores 3 and 1
    second = -math.log(math.exp(2) / (math.exp(0) + math.exp(2)))  # scores 0 and 2
    assert float(found) == pytest.approx((first + second) / 2)


def test_temperature_and_correction_by_hand() -> None:
    query, vectors = torch.tensor([[1.0]]), torch.tensor([[0.2], [0.1], [-0.3]])
    log_expected = torch.tensor([0.5, 0.25, 2.0]).log()
    found = sampled_softmax(query, vectors, torch.tensor([4]), torch.tensor([4, 5, 6]), log_expected, 0.1)
    own, *others = math.exp(2) / 0.5, math.exp(1) / 0.25, math.exp(-3) / 2.0
    assert float(found) == pytest.approx(-math.log(own / (own + sum(others))), rel=1e-6)


def test_the_same_item_is_no_negative() -> None:
    """Of another query of the batch, and of those that were drawn."""
    query = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    vectors = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    target, candidates = torch.tensor([3, 9, 3]), torch.tensor([3, 9, 3, 9, 5])
    expected = 0.0
    for row, allowed in enumerate([[0, 1, 3, 4], [0, 1, 2, 4], [1, 2, 3, 4]]):
        scores = (query[row] @ vectors[allowed].T).exp()
        expected -= math.log(float(scores[allowed.index(row)] / scores.sum())) / 3
    assert float(sampled_softmax(query, vectors, target, candidates, torch.zeros(5))) == pytest.approx(
        expected, rel=1e-5
    )


def test_one_query_alone_has_nothing_to_learn() -> None:
    one = torch.ones(1, 2, requires_grad=True)
    loss = sampled_softmax(one, torch.ones(1, 2), torch.tensor([3]), torch.tensor([3]), torch.zeros(1))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not one.grad.any()


def test_expected_draws_of_a_batch_and_of_even_ones_add_up() -> None:
    share = torch.tensor([0.5, 0.01])
    found = log_draws(share.log(), negatives=20, items=1000)
    torch.testing.assert_close(found, torch.tensor([0.52, 0.03]).log())
    assert torch.equal(log_draws(share.log(), 0, 1000), share.log())


def test_drawn_by_popularity_and_corrected_it_is_the_softmax_over_the_catalogue() -> None:
    """In expectation: the gradient of many batches of candidates goes where that of all items does."""
    draw = torch.Generator().manual_seed(0)
    vectors, query = torch.randn(20, 3, generator=draw), torch.randn(1, 3, generator=draw)
    share = torch.arange(1.0, 21.0) / 210
    target = torch.tensor([4])
    full = torch.softmax(query @ vectors.T, dim=1) @ vectors - vectors[4]
    sums = {True: torch.zeros(1, 3), False: torch.zeros(1, 3)}
    for _ in range(300):
        candidates = torch.cat([target, torch.multinomial(share, 200, replacement=True, generator=draw)])
        for corrected, total in sums.items():
            asked = query.clone().requires_grad_()
            log_expected = (200 * share[candidates]).log() if corrected else torch.zeros(201)
            log_expected[0] = 0.0  # the query's own item is there once, for certain
            sampled_softmax(asked, vectors[candidates], target, candidates, log_expected).backward()
            total += asked.grad / 300
    assert float((sums[True] - full).norm()) < 0.05
    assert float((sums[False] - full).norm()) > 0.2


def test_gaps_between_batches() -> None:
    """An item in every fourth batch has a gap of 4, one in every batch a gap of 1, one never met that of the start."""
    popularity = Popularity(3, rate=0.2)
    for batch in range(1, 101):
        popularity.see(torch.tensor([0, 0, 1] if batch % 4 == 0 else [0]))
    torch.testing.assert_close(popularity.gap, torch.tensor([1.0, 4.0, 3.0]))
    torch.testing.assert_close(popularity.log_share(torch.tensor([1])).exp(), torch.tensor([0.25]))


def test_a_gap_follows_by_its_rate() -> None:
    popularity = Popularity(1, rate=0.25)
    for batch in range(1, 7):
        if batch in (2, 6):
            popularity.see(torch.tensor([0]))
        else:
            popularity.see(torch.tensor([], dtype=torch.int64))
    assert float(popularity.gap) == 2 + 0.25 * (4 - 2)


def examples(labels: list[int]) -> Examples:
    count = len(labels)
    ids = torch.tensor([[1 + n % 4, 2 + n % 10, 0, 0] for n in range(count)], dtype=torch.int32)
    return Examples(ids, torch.zeros(count, 0), torch.tensor(labels), answer="item")


def test_the_loss_of_a_model_is_that_of_its_vectors() -> None:
    model = build_model(MF(embedding_dim=4, embedding_std=0.5), LAYOUT, seed=0)
    batch = examples([3, 5, 3, 11])
    found = in_batch_loss(InBatchSoftmax(temperature=0.5), model, batch)
    log_share = model.popularity.log_share(batch.label)
    expected = sampled_softmax(
        model(batch.ids), model.items(batch.label), batch.label, batch.label, log_share, temperature=0.5
    )
    torch.testing.assert_close(found, expected)
    assert int(model.popularity.batch) == 1


def test_unknown_items_teach_nothing() -> None:
    batch = examples([1, 3, 0, 5])
    of_all, of_known, of_none = (
        in_batch_loss(InBatchSoftmax(), build_model(MF(embedding_dim=4, embedding_std=0.5), LAYOUT, seed=0), part)
        for part in (batch, batch.take(torch.tensor([1, 3])), batch.take(torch.tensor([0, 2])))
    )
    assert torch.equal(of_all, of_known)
    assert float(of_none.detach()) == 0.0
    of_none.backward()


@pytest.mark.parametrize("negatives", [0, 1, 50])
def test_negatives_are_items_and_give_gradients_to_their_rows(negatives: int) -> None:
    model = build_model(MF(embedding_dim=4, embedding_std=0.5), LAYOUT, seed=0)
    torch.manual_seed(0)
    in_batch_loss(InBatchSoftmax(negatives=negatives), model, examples([3, 5])).backward()
    touched = model.embedding.table.weight.grad.abs().sum(dim=1).nonzero().flatten() - 5
    items = [row for row in touched.tolist() if row >= 0]
    assert {3, 5} <= set(items)
    assert min(items) >= 2
    assert len(items) == {0: 2, 50: 10}.get(negatives, len(items))


def test_other_models_are_refused() -> None:
    model = build_model(EASE(), Layout(("history",), (12,), (3,), 0, ("history",)), seed=0)
    with pytest.raises(InputError, match=r"for models in two towers.*this is a EASEModel: take catalogue-softmax"):
        in_batch_loss(InBatchSoftmax(), model, examples([3]))
