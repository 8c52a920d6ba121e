"""The loop: it learns, it repeats itself, it goes on where it was, and it stops."""

from pathlib import Path

import numpy as np
import pytest
import torch

from slimrank.config import InputError
from slimrank.models.architecture import build_model
from slimrank.models.dnn import DNN
from slimrank.models.layers import Ranker
from slimrank.tables.embedding import Layout
from slimrank.training.checkpoint import Checkpoint, load_tensors, save_tensors
from slimrank.training.examples import Examples, score
from slimrank.training.loop import Hook, KeepZeros, State, Training, fit
from slimrank.training.optimizers import RowAdagrad, one_cycle, optimizers

LAYOUT = Layout(("user", "item"), (30, 40), (1, 1), numbers=1)
CONFIG = Training(epochs=4, batch_size=64, learning_rate=0.02, patience=0, l2=1e-3)


def examples(count: int = 600, seed: int = 0) -> Examples:
    """Clicks that the sum of two hidden effects decides."""
    numpy = np.random.default_rng(seed)
    ids = np.stack([numpy.integers(0, 30, count), numpy.integers(0, 40, count)], axis=1)
    effects = np.random.default_rng(99).normal(size=(2, 40))
    logit = 3 * (effects[0, ids[:, 0]] + effects[1, ids[:, 1]])
    label = numpy.random(count) < 1 / (1 + np.exp(-logit))
    columns = (ids.astype(np.int32), np.zeros((count, 1), np.float32), label.astype(np.float32))
    return Examples(*(torch.from_numpy(column) for column in columns))


def model(dropout: float = 0.2) -> Ranker:
    return build_model(DNN(embedding_dim=4, hidden=(8,), dropout=dropout, embedding_std=0.1), LAYOUT, seed=2)


class Killed(Exception):
    """Stands for the end of the process."""


class KillAfter(Hook):
    def __init__(self, epochs: int):
        self.epochs = epochs

    def on_epoch(self, state: State) -> None:
        if state.epoch == self.epochs:
            raise Killed


def weights(trained: Ranker) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trained.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_what_there_is_to_learn() -> None:
    history = fit(model(), examples(3000), examples(1000, seed=1), CONFIG, seed=1)
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    assert history[-1]["valid_auc"] > 0.9
    assert history[-1]["loss"] < history[0]["loss"]


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    trained = [model() for _ in range(3)]
    for one, seed in zip(trained, (1, 1, 2), strict=True):
        fit(one, examples(), examples(seed=1), CONFIG, seed=seed)
    assert same(weights(trained[0]), weights(trained[1]))
    assert not same(weights(trained[0]), weights(trained[2]))


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(tmp_path: Path, epochs: int) -> None:
    whole, killed, resumed = model(), model(), model()
    history = fit(whole, examples(), examples(seed=1), CONFIG, seed=1)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        fit(killed, examples(), examples(seed=1), CONFIG, seed=1, hooks=[Checkpoint(checkpoint), KillAfter(epochs)])
    seen = []

    class Count(Hook):
        def on_epoch(self, state: State) -> None:
            seen.append(state.epoch)

    again = fit(resumed, examples(), examples(seed=1), CONFIG, seed=1, hooks=[Checkpoint(checkpoint), Count()])
    assert seen == list(range(epochs + 1, 5))
    assert again == history
    assert same(weights(whole), weights(resumed))


def test_sparse_tables_resume_as_well(tmp_path: Path) -> None:
    def sparse_model() -> Ranker:
        made = model()
        made.embedding.table.sparse = True
        return made

    for kind in ("adagrad", "adam"):
        config = CONFIG.model_copy(update={"sparse_optimizer": kind})
        path = tmp_path / f"{kind}.safetensors"
        whole, killed, resumed = sparse_model(), sparse_model(), sparse_model()
        fit(whole, examples(), examples(seed=1), config, seed=1)
        with pytest.raises(Killed):
            fit(killed, examples(), examples(seed=1), config, seed=1, hooks=[Checkpoint(path), KillAfter(2)])
        fit(resumed, examples(), examples(seed=1), config, seed=1, hooks=[Checkpoint(path)])
        assert same(weights(whole), weights(resumed)), kind


def test_sparse_tables_may_have_a_learning_rate_of_their_own() -> None:
    """The first step of row-wise Adagrad moves a row by its rate, root mean square, whatever the other rate is."""
    for rate, expected in ((0.3, 0.3), (None, 0.02)):
        trained = model(dropout=0.0)
        table = trained.embedding.table
        table.sparse = True
        before = table.weight.detach().clone()
        config = CONFIG.model_copy(
            update={"sparse_learning_rate": rate, "epochs": 1, "batch_size": 600, "schedule": "constant"}
        )
        fit(trained, examples(), examples(seed=1), config, seed=1)
        moved = (table.weight.detach() - before).square().mean(dim=1).sqrt()
        assert moved[moved > 0].numpy() == pytest.approx(expected, rel=1e-3)


def test_it_stops_when_nothing_gets_better_and_keeps_the_best() -> None:
    trained = model()
    config = Training(epochs=50, batch_size=64, learning_rate=0.05, patience=2, schedule="constant")
    valid = examples(seed=1)
    history = fit(trained, examples(), valid, config, seed=1)
    aucs = [record["valid_auc"] for record in history]
    assert len(history) == int(np.argmax(aucs)) + 1 + 2 < 50
    from slimrank.metrics import auc

    assert auc(valid.label.numpy(), score(trained, valid)) == max(aucs)


def test_a_loss_that_is_not_finite_is_an_error_that_says_what_to_do() -> None:
    bad = examples()
    bad.numbers[:] = torch.inf
    with pytest.raises(InputError, match=r"diverged in epoch 1: .* lower learning_rate"):
        fit(model(), bad, examples(seed=1), CONFIG, seed=1)


def test_zeros_stay_zero_while_all_else_moves() -> None:
    trained = model(dropout=0.0)
    layer = trained.mlp.linears[0].lookups
    with torch.no_grad():
        layer.weight[:, ::2] = 0.0
    before = layer.weight.detach().clone()
    fit(trained, examples(), examples(seed=1), CONFIG, seed=1, hooks=[KeepZeros()])
    assert (layer.weight[:, ::2] == 0).all()
    assert (layer.weight[:, 1::2] != before[:, 1::2]).any()


def test_batches_hold_every_row_once_in_an_order_of_their_own() -> None:
    rows = examples(100)
    rows.numbers[:, 0] = torch.arange(100.0)
    orders = [torch.cat([b.numbers[:, 0] for b in rows.batches(32, seed=1, epoch=e)]) for e in (0, 1, 0)]
    assert all(sorted(order.tolist()) == list(range(100)) for order in orders)
    assert torch.equal(orders[0], orders[2])
    assert not torch.equal(orders[0], orders[1])


def test_row_adagrad_from_its_formula() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 2))
    optimizer = RowAdagrad([weight], lr=0.1)
    gradients = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    for _ in range(2):
        weight.grad = torch.sparse_coo_tensor(torch.tensor([[2, 0]]), gradients, (4, 2), check_invariants=True)
        optimizer.step()
    square = (9 + 16) / 2
    expected = 1 - 0.1 * 3 / square**0.5 - 0.1 * 3 / (2 * square) ** 0.5
    assert weight[2, 0].item() == pytest.approx(expected)
    assert weight[1].tolist() == weight[3].tolist() == [1.0, 1.0]


def test_row_adagrad_adds_up_repeated_rows_first() -> None:
    weight = torch.nn.Parameter(torch.zeros(2, 1))
    indices, values = torch.tensor([[1, 1]]), torch.tensor([[1.0], [2.0]])
    weight.grad = torch.sparse_coo_tensor(indices, values, (2, 1), check_invariants=True)
    RowAdagrad([weight], lr=1.0).step()
    assert weight[1].item() == pytest.approx(-3.0 / 3.0)


def test_one_cycle_is_that_of_pytorch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=2000, cycle_momentum=False)
    for step in range(2000):  # PyTorch's phases end one step earlier
        assert one_cycle(step / 2000, 0.3) == pytest.approx(optimizer.param_groups[0]["lr"], abs=0.003)
        optimizer.step()
        scheduler.step()


def test_tensors_and_metadata_survive_the_disk(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "empty": torch.zeros(0, 3)}
    save_tensors(tmp_path / "x.safetensors", tensors, {"epoch": 3})
    loaded, metadata = load_tensors(tmp_path / "x.safetensors")
    assert torch.equal(loaded["a"], tensors["a"])
    assert loaded["empty"].shape == (0, 3)
    assert metadata == {"epoch": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_last_row_alone_joins_the_batch_before() -> None:
    sizes = [len(batch) for batch in examples(65).batches(32, seed=1, epoch=0)]
    assert sizes == [32, 33]
    assert [len(batch) for batch in examples(66).batches(32, seed=1, epoch=0)] == [32, 32, 2]
    assert [len(batch) for batch in examples(1).batches(32, seed=1, epoch=0)] == [1]


def test_batch_normalisation_bears_a_last_row_alone() -> None:
    config = DNN(embedding_dim=4, hidden=(8,), batch_norm=True)
    history = fit(build_model(config, LAYOUT, seed=2), examples(65), examples(seed=1), CONFIG, seed=1)
    assert len(history) == 4


def test_weight_decay_leaves_scales_and_biases_alone() -> None:
    groups = optimizers(model(), learning_rate=0.1, sparse_learning_rate=0.1, sparse="adagrad", weight_decay=0.5)[
        0
    ].param_groups
    decays = {parameter.dim() >= 2: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays == {True: 0.5, False: 0.0}


def test_dropout_can_be_left_out_of_a_training() -> None:
    with_it, without, plain = model(dropout=0.5), model(dropout=0.5), model(dropout=0.0)
    train, valid = examples(), examples(200, seed=1)
    off = CONFIG.model_copy(update={"dropout": False})
    histories = [fit(each, train, valid, config, seed=3) for each, config in ((without, off), (plain, CONFIG))]
    assert histories[0] == histories[1]
    assert fit(with_it, train, valid, CONFIG, seed=3) != histories[0]
    assert "dropout" not in CONFIG.model_dump()
    assert off.model_dump()["dropout"] is False
