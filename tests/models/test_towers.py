"""Encoders in two towers: what a vector is, what unknown users and items get, and which rows they refuse."""

import pytest
import torch

from slimrank.compression.steps import Context, compress
from slimrank.config import InputError
from slimrank.exporting.pack import pack
from slimrank.models.architecture import build_model
from slimrank.models.layers import Encoder
from slimrank.models.mf import MF
from slimrank.models.two_tower import TwoTower
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples
from slimrank.training.loop import Training, fit
from slimrank.training.losses.in_batch import InBatchSoftmax
from slimrank.training.quality import quality

LAYOUT = Layout(("user", "history"), (9, 22), (1, 4), 0, ("history",))
CONFIGS = {
    "mf": MF(embedding_dim=8, embedding_std=0.3),
    "two-tower": TwoTower(embedding_dim=8, embedding_std=0.3, hidden=(16,), item_hidden=(12,), vector_dim=6),
    "two-tower, not normalised": TwoTower(embedding_dim=8, embedding_std=0.3, hidden=(16,), normalised=False),
}


def rows(count: int, seed: int = 0) -> Examples:
    """A user likes items of their own remainder of 4; the history is of such items too."""
    draw = torch.Generator().manual_seed(seed)
    user = torch.randint(1, 9, (count,), generator=draw)
    items = 2 + (torch.randint(0, 5, (count, 5), generator=draw) * 4 + (user % 4).unsqueeze(1))
    ids = torch.cat([user.unsqueeze(1), items[:, :4]], dim=1).to(torch.int32)
    return Examples(ids, torch.zeros(count, 0), items[:, 4], group=user, answer="item")


@pytest.fixture(params=CONFIGS, ids=lambda name: name)
def model(request: pytest.FixtureRequest) -> Encoder:
    made = build_model(CONFIGS[request.param], LAYOUT, seed=0)
    assert isinstance(made, Encoder)
    return made


def test_vectors_of_queries_and_items_multiply_and_do_not_depend_on_neighbours(model: Encoder) -> None:
    batch = rows(6)
    vectors, items = model(batch.ids, batch.numbers), model.all_items()
    assert items.shape == (22, vectors.shape[1])
    alone = torch.cat([model(batch.ids[n : n + 1], batch.numbers[n : n + 1]) for n in range(6)])
    torch.testing.assert_close(alone, vectors)
    torch.testing.assert_close(torch.cat([model.items(torch.tensor([n])) for n in range(22)]), items)


def test_it_learns_what_can_be_learned(model: Encoder) -> None:
    train, valid = rows(1500), rows(300, seed=1)
    before = quality(model, valid)
    loss = InBatchSoftmax(negatives=8, temperature=0.2 if getattr(model, "normalised", False) else 1.0)
    fit(model, train, valid, Training(epochs=4, batch_size=64, learning_rate=0.02, loss=loss), seed=0)
    after = quality(model, valid)
    assert after > before + 0.1
    scores = model(valid.ids, valid.numbers) @ model.all_items().T
    liked = (torch.arange(22) - 2) % 4 == (valid.ids[:, :1] % 4)
    assert (scores[:, 2:][liked[:, 2:]].mean() - scores[:, 2:][~liked[:, 2:]].mean()).item() > 0


def test_every_parameter_learns(model: Encoder) -> None:
    batch = rows(64)
    (model(batch.ids, batch.numbers).square().mean() + model.items(batch.label).square().mean() * 2).backward()
    (model(batch.ids, batch.numbers) * model.items(batch.label)).sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_tables_shrink_and_the_packed_form_agrees(model: Encoder) -> None:
    batch = rows(40)
    small, (record,) = compress(model, [{"name": "quantize-tables", "bits": 8}], Context(batch, batch))
    assert len(record["touched"]) == 1
    assert record["bytes_after"] < record["bytes_before"]
    packed = pack(small)
    for one, other in (
        (small.eval()(batch.ids, batch.numbers), packed(batch.ids, batch.numbers)),
        (small.all_items(), packed.all_items()),
    ):
        torch.testing.assert_close(one.detach(), other.detach(), atol=1e-5, rtol=1e-4)


def test_a_user_that_training_never_met_is_answered_with_what_is_popular() -> None:
    """Their row is 0, so that the biases of items alone are left."""
    model = build_model(CONFIGS["mf"], LAYOUT, seed=0)
    vector = model(torch.tensor([[0, 3, 4, 0, 0]], dtype=torch.int32))
    torch.testing.assert_close(vector, torch.tensor([[0.0] * 8 + [1.0]]))
    torch.testing.assert_close(vector @ model.all_items().T, model.all_items()[:, -1].unsqueeze(0))


def test_matrix_factorisation_is_a_product_and_a_bias() -> None:
    model = build_model(CONFIGS["mf"], LAYOUT, seed=0)
    table = model.embedding.table.weight
    score = model(torch.tensor([[5, 3, 0, 0, 0]], dtype=torch.int32)) @ model.items(torch.tensor([7])).T
    torch.testing.assert_close(score[0, 0], table[5, :8] @ table[9 + 7, :8] + table[9 + 7, 8])


def test_cosines_are_of_vectors_of_length_one() -> None:
    model = build_model(CONFIGS["two-tower"], LAYOUT, seed=0)
    batch = rows(6)
    torch.testing.assert_close(model(batch.ids, batch.numbers).norm(dim=1), torch.ones(6))
    torch.testing.assert_close(model.all_items()[2:].norm(dim=1), torch.ones(20))


def test_an_empty_history_has_a_vector(model: Encoder) -> None:
    assert model(torch.tensor([[3, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.int32)).isfinite().all()


def test_two_histories_need_a_name() -> None:
    layout = Layout(("user", "tags", "history"), (9, 5, 22), (1, 2, 4), 0, ("tags", "history"))
    with pytest.raises(InputError, match=r"there is 2 sequence fields: take one. Allowed: history, tags"):
        build_model(MF(), layout, seed=0)
    with pytest.raises(InputError, match=r"no sequence field 'histori': take one. Did you mean 'history'"):
        build_model(TwoTower(catalogue="histori"), layout, seed=0)
    model = build_model(TwoTower(catalogue="history"), layout, seed=0)
    assert (model.num_items, model.first_item) == (22, 2)
    torch.testing.assert_close(model.item_rows(torch.tensor([3])), model.embedding.table.weight[[9 + 5 + 3]])


def test_matrix_factorisation_needs_a_user() -> None:
    with pytest.raises(InputError, match="model mf multiplies a vector of the query's categorical fields"):
        build_model(MF(), Layout(("history",), (22,), (4,), 0, ("history",)), seed=0)
