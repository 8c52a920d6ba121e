"""Losses over the catalogue: by hand, by a loop over places, and what is left out of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from slimrank.models.architecture import Architecture, build_model
from slimrank.models.gru4rec import GRU4Rec
from slimrank.models.layers import Encoder, SequenceEncoder
from slimrank.models.sasrec import take_places, trimmed
from slimrank.models.two_tower import TwoTower
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples
from slimrank.training.losses.catalogue import (
    CatalogueSoftmax,
    catalogue_softmax,
    distilled_catalogue,
    drawn_items,
    drawn_logits,
    next_items,
    targets,
)
from slimrank.training.losses.loss import Distillation

LAYOUT = Layout(("history",), (6,), (3,), 0, ("history",))
WHOLE = CatalogueSoftmax()


class Last(SequenceEncoder):
    """The state after a place is the vector of its item."""

    def states(self, met: Tensor) -> Tensor:
        return self.item_vectors(trimmed(met))

    def encode(self, met: Tensor) -> Tensor:
        final = ((met != 0).sum(dim=1) - 1).clamp(min=0).unsqueeze(1)
        return take_places(self.item_vectors(met), final).squeeze(1)


def last() -> Last:
    """Vectors of items 2 to 5: (1, 0), (0, 2), (1, 1), (-1, 0); that of the unknown is (0.5, 0)."""
    model = Last(Architecture(embedding_dim=2).embed(LAYOUT))
    rows = [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.0]]
    with torch.no_grad():
        model.embedding.table.weight.copy_(torch.tensor(rows))
    return model


def batch(ids: list[list[int]], label: list[int]) -> Examples:
    given = torch.tensor(ids, dtype=torch.int32)
    return Examples(given, torch.zeros(len(ids), 0), torch.tensor(label), answer="item")


def missed(scores: list[float], place: int) -> float:
    """-log of the softmax of `scores` at `place`."""
    return math.log(sum(math.exp(each) for each in scores)) - scores[place]


def value(loss: Tensor) -> float:
    return float(loss.detach())


def test_every_place_of_a_history_by_hand() -> None:
    # After item 2 the scores of items 2 to 5 are 1, 0, 1, -1, and item 3 comes; after item 3 they are 0, 4, 2, 0.
    found = catalogue_softmax(WHOLE, last(), batch([[2, 3, 0]], [4]))
    assert value(found) == pytest.approx((missed([1, 0, 1, -1], 1) + missed([0, 4, 2, 0], 2)) / 2)


def test_unknown_items_are_met_and_not_to_be_found() -> None:
    found = catalogue_softmax(WHOLE, last(), batch([[2, 1, 3], [4, 0, 0]], [5, 1]))
    # after 2 an unknown one comes: left out; after the unknown one 3 comes; 5 comes last; the second row's is unknown
    assert value(found) == pytest.approx((missed([0.5, 0, 0.5, -0.5], 1) + missed([0, 4, 2, 0], 3)) / 2)


def test_a_batch_with_nothing_to_find_changes_nothing() -> None:
    model, nothing = last(), batch([[2, 0, 0]], [1])
    mix = Distillation(soft_weight=0.5)
    for config in (WHOLE, CatalogueSoftmax(negatives=2)):
        for loss in (
            catalogue_softmax(config, model, nothing),
            distilled_catalogue(model, nothing, loss=config, mix=mix, teachers=[last()]),
        ):
            assert value(loss) == 0.0
            model.zero_grad()
            loss.backward()
            assert not model.embedding.table.weight.grad.any()


def test_an_empty_history_has_no_place_and_its_label_is_left_out() -> None:
    full, other = batch([[2, 3, 0]], [4]), batch([[2, 3, 0], [0, 0, 0]], [4, 5])
    assert value(catalogue_softmax(WHOLE, last(), other)) == pytest.approx(
        value(catalogue_softmax(WHOLE, last(), full))
    )


def test_next_items_by_hand() -> None:
    met = torch.tensor([[5, 6, 0, 0], [7, 8, 9, 4], [0, 0, 0, 0]])
    assert next_items(met, torch.tensor([2, 3, 5])).tolist() == [[6, 2, 0, 0], [8, 9, 4, 3], [0, 0, 0, 0]]


@pytest.mark.parametrize("kind", ["gru4rec", "two-tower"])
def test_a_loop_over_places_gives_the_same(kind: str) -> None:
    layout = Layout(("history",), (15,), (6,), 0, ("history",))
    config = GRU4Rec(embedding_dim=8, dropout=0) if kind == "gru4rec" else TwoTower(embedding_dim=8, vector_dim=4)
    model = build_model(config, layout, seed=0).eval()
    assert isinstance(model, Encoder)
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 15, (7, 6), generator=draw)
    lengths = torch.randint(1, 7, (7, 1), generator=draw)
    rows = batch((ids * (torch.arange(6) < lengths)).tolist(), torch.randint(1, 15, (7,), generator=draw).tolist())
    losses = []
    for history, length, label in zip(rows.ids, lengths.flatten().tolist(), rows.label.tolist(), strict=True):
        whole = [*history[:length].tolist(), label]
        for place in range(1, len(whole)) if kind == "gru4rec" else [len(whole) - 1]:
            if whole[place] < 2:
                continue
            query = torch.tensor([whole[:place] + [0] * (6 - place)], dtype=torch.int32)
            scores = (model(query) @ model.all_items()[2:].T)[0].tolist()
            losses.append(missed(scores, whole[place] - 2))
    assert value(catalogue_softmax(WHOLE, model, rows)) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_a_drawn_item_that_is_to_be_found_does_not_count_twice() -> None:
    model, rows = last(), batch([[2, 3, 0]], [4])
    target, known = targets(model, rows)
    assert target.tolist() == [3, 4]
    logits = drawn_logits(model, rows, target, known, torch.tensor([4, 2, 3]))
    assert logits.tolist() == [[0, 1, 1, -math.inf], [2, -math.inf, 0, 4]]


def test_drawn_items_are_items_and_as_many_as_asked() -> None:
    model, target = last(), torch.tensor([3])
    assert drawn_items(WHOLE, model, target) is None
    assert drawn_items(CatalogueSoftmax(negatives=4), model, target) is None  # as many as there are
    drawn = torch.cat([drawn_items(CatalogueSoftmax(negatives=3), model, target) for _ in range(50)])
    assert len(drawn) == 150
    assert set(drawn.tolist()) == {2, 3, 4, 5}


@pytest.mark.parametrize("negatives", [None, 3])
def test_a_teacher_that_is_the_student_teaches_nothing(negatives: int | None) -> None:
    torch.manual_seed(0)
    model, rows = last(), batch([[2, 3, 5], [4, 4, 0]], [4, 3])
    mix = Distillation(soft_weight=1.0, temperature=2.0)
    distilled_catalogue(
        model, rows, loss=CatalogueSoftmax(negatives=negatives), mix=mix, teachers=[last(), last()]
    ).backward()
    torch.testing.assert_close(model.embedding.table.weight.grad, torch.zeros(6, 2), atol=1e-6, rtol=0)


def test_soft_labels_by_hand() -> None:
    """One place, two teachers of whom one prefers what the other does not."""
    model, rows = last(), batch([[2, 0, 0]], [3])
    other = last()
    with torch.no_grad():
        other.embedding.table.weight.neg_()  # the same scores, from the negative of both vectors
        other.embedding.table.weight[2].mul_(3)  # item 2, which is asked with: 9, 0, 3, -3
    heat = 2.0

    def softmax(scores: list[float]) -> list[float]:
        powers = [math.exp(each / heat) for each in scores]
        return [each / sum(powers) for each in powers]

    means = [(a + b) / 2 for a, b in zip(softmax([1, 0, 1, -1]), softmax([9, 0, 3, -3]), strict=True)]
    soft = -sum(mean * math.log(own) for mean, own in zip(means, softmax([1, 0, 1, -1]), strict=True))
    expected = 0.25 * heat**2 * soft + 0.75 * missed([1, 0, 1, -1], 1)
    settings: dict[str, Any] = {"mix": Distillation(soft_weight=0.25, temperature=heat), "teachers": [last(), other]}
    found = distilled_catalogue(model, rows, loss=WHOLE, **settings)
    assert value(found) == pytest.approx(expected)
    found.backward()
    assert other.embedding.table.weight.grad is None
