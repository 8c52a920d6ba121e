"""EASE as a model: rows of histories in, scores of all items out, and what is not an item adds nothing."""

import numpy as np
import pytest
import torch

from slimrank.compression.steps import Context, compress
from slimrank.config import InputError
from slimrank.models.architecture import build_model
from slimrank.models.ease import EASE, EASEModel
from slimrank.models.item_weights import weights_of_all
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples
from slimrank.training.loop import Training, fit

ITEMS, LENGTH = 7, 6
LAYOUT = Layout(("history",), (ITEMS + 2,), (LENGTH,), 0, ("history",))


def rows(count: int = 40, seed: int = 0) -> Examples:
    """Histories without repetitions, and the item that came next; local ids of items are 2..8."""
    draw = np.random.default_rng(seed)
    ids, label = np.zeros((count, LENGTH), np.int32), np.zeros(count, np.int64)
    for row in range(count):
        chosen = 2 + draw.permutation(ITEMS)[: draw.integers(2, LENGTH + 1)]
        ids[row, : len(chosen) - 1], label[row] = chosen[:-1], chosen[-1]
    return Examples(torch.from_numpy(ids), torch.zeros(count, 0), torch.from_numpy(label), answer="item")


def fitted(train: Examples, l2: float = 2.0) -> EASEModel:
    model = build_model(EASE(l2=l2), LAYOUT, seed=0)
    fit(model, train, rows(seed=1), Training(), seed=0)
    assert isinstance(model, EASEModel)
    return model


def multi_hot(train: Examples) -> np.ndarray:
    met = np.zeros((len(train), ITEMS + 2))
    met[np.arange(len(train))[:, None], np.column_stack([train.ids.numpy(), train.label.numpy()])] = 1
    met[:, :2] = 0
    return met


def test_scores_are_sums_of_the_weights_of_a_history() -> None:
    train = rows()
    model, met = fitted(train), multi_hot(train)
    weights = weights_of_all(met.T @ met, 2.0)
    ids = torch.tensor([[4, 2, 8, 0, 0, 0]], dtype=torch.int32)
    np.testing.assert_allclose(model(ids)[0].detach(), weights[[4, 2, 8]].sum(axis=0), atol=1e-6)


def test_rows_of_one_user_are_one_user() -> None:
    train = rows()
    user = torch.arange(len(train)) // 4
    together = Examples(train.ids, train.numbers, train.label, group=user, answer="item")
    met = multi_hot(train).reshape(-1, 4, ITEMS + 2).max(axis=1)
    expected = weights_of_all(met.T @ met, 2.0)
    np.testing.assert_allclose(fitted(together).embedding.table.weight.detach(), expected, atol=1e-6)


def test_padding_unknown_items_and_repetitions_add_nothing() -> None:
    model = fitted(rows())
    plain = model(torch.tensor([[4, 2, 0, 0, 0, 0]], dtype=torch.int32))
    for other in ([2, 4, 4, 2, 2, 0], [1, 4, 1, 2, 0, 0]):
        torch.testing.assert_close(model(torch.tensor([other], dtype=torch.int32)), plain)
    assert not model(torch.zeros(2, LENGTH, dtype=torch.int32)).any()


def test_the_history_tells_of_its_items_and_never_of_itself() -> None:
    """An item's weight for itself is 0: a history of one item gives it no score."""
    model = fitted(rows())
    for item in range(2, ITEMS + 2):
        assert model(torch.tensor([[item, 0, 0, 0, 0, 0]], dtype=torch.int32))[0, item] == 0


def test_history_and_record_of_the_one_epoch() -> None:
    train = rows()
    model = build_model(EASE(l2=2.0), LAYOUT, seed=0)
    (record,) = fit(model, train, rows(seed=1), Training(epochs=9), seed=0)
    weights = model.embedding.table.weight.detach().double().numpy()
    met = multi_hot(train)
    loss = (np.square(met - met @ weights).sum() + 2.0 * np.square(weights).sum()) / len(train)
    assert record["loss"] == pytest.approx(loss)
    assert 0 < record["valid_ndcg@10"] <= 1


def test_a_pruned_model_that_is_fitted_again_keeps_its_places() -> None:
    train, valid = rows(), rows(seed=1)
    small, _ = compress(fitted(train), [{"name": "prune-neighbours", "per_item": 3}], Context(train, valid))
    before = small.embedding.table.kept()
    fit(small, rows(60, seed=5), valid, Training(), seed=0)
    assert torch.equal(small.embedding.table.kept(), before)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(("user", "history"), (5, 9), (1, 4), 0, ("history",)),
        Layout(("user",), (5,), (1,)),
        Layout(("history",), (9,), (4,), 2, ("history",)),
        Layout((), (), (), 3),
    ],
)
def test_rows_that_are_no_history_are_refused(layout: Layout) -> None:
    with pytest.raises(InputError, match=r"model ease multiplies one history .*: take a sequence field of items alone"):
        build_model(EASE(), layout, seed=0)


def test_a_catalogue_whose_pairs_fill_the_memory_is_refused() -> None:
    with pytest.raises(InputError, match=r"54,544 items make 23,800,383,488 bytes .* allowed are 20,000"):
        build_model(EASE(), Layout(("history",), (54_544,), (4,), 0, ("history",)), seed=0)


def test_a_table_of_another_kind_cannot_be_fitted() -> None:
    train = rows()
    small, _ = compress(fitted(train), [{"name": "quantize-tables", "bits": 8}], Context(train, train))
    with pytest.raises(InputError, match="cannot be found in a ScaledTable: prune them instead"):
        fit(small, train, train, Training(), seed=0)
