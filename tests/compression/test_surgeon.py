"""Neurons that are missed least: least squares as numpy has it, exact where others can stand in, far smaller errors."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from slimrank.api import compress
from slimrank.compression import surgeon
from slimrank.compression.steps import compress as compress_network
from slimrank.compression.surgeon import DAMPING, Moments, Reader, least_missed
from slimrank.config import InputError
from slimrank.models.dnn import DNN

HALF = {"name": "prune-neurons", "keep": 0.5}
COMPENSATED = {**HALF, "compensate": True}


def reader(inputs: torch.Tensor, out: int = 3, bias: bool = True, own: list[int] | None = None) -> Reader:
    torch.manual_seed(1)
    layer = nn.Linear(inputs.shape[1], out, bias=bias)
    columns = torch.arange(inputs.shape[1]) if own is None else torch.tensor(own)
    return Reader(layer, moments(inputs), columns, torch.arange(len(columns)))


def moments(inputs: torch.Tensor) -> Moments:
    """Counted in two parts."""
    found = Moments.none(inputs.shape[1])
    found.add(inputs[:7])
    found.add(inputs[7:])
    return found


def narrowed(read: Reader, kept: list[int]) -> nn.Linear:
    """The layer as it is written once its columns are gone."""
    layer = read.layer
    layer.weight.data = layer.weight.data[:, kept]
    read.write()
    return layer


@pytest.mark.parametrize("bias", [True, False])
def test_what_stays_is_the_least_squares_of_what_was(bias: bool) -> None:
    draw = np.random.default_rng(0)
    mixing = draw.normal(size=(6, 6))
    inputs = draw.normal(size=(500, 6)) @ mixing + draw.normal(size=6)
    read = reader(torch.from_numpy(inputs).float(), bias=bias)
    before = read.layer(torch.from_numpy(inputs).float()).detach().double().numpy()
    kept = least_missed([read], 6, 3).tolist()
    layer = narrowed(read, kept)
    found = layer(torch.from_numpy(inputs[:, kept]).float()).detach().numpy()
    # The same by numpy: rows of the damping below, for all columns, which are what the weights had been there.
    mean = inputs.mean(axis=0) if bias else np.zeros(6)
    centred = inputs - mean
    variances = np.mean(centred**2, axis=0)
    damping = DAMPING * np.maximum(variances, variances.mean())
    rows = np.vstack([centred, np.diag(np.sqrt(damping * len(inputs)))])
    solved = np.linalg.lstsq(rows[:, kept], rows @ read.before.numpy().T, rcond=None)[0]
    expected = centred[:, kept] @ solved + mean @ read.before.numpy().T
    if bias:
        expected += before[0] - inputs[0] @ read.before.numpy().T
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_of_two_that_say_the_same_one_goes_and_nothing_is_lost() -> None:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 4, generator=draw)
    inputs[:, 2] = 2 * inputs[:, 0]
    read = reader(inputs)
    before = read.layer(inputs).detach()
    (gone,) = {0, 1, 2, 3} - set(least_missed([read], 4, 3).tolist())
    assert gone in (0, 2)
    kept = [place for place in range(4) if place != gone]
    found = narrowed(read, kept)(inputs[:, kept]).detach()
    assert (found - before).square().mean().sqrt() < 0.02 * before.std()  # what the damping costs


def test_what_always_says_the_same_goes_into_the_bias() -> None:
    inputs = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    inputs[:, 1] = 7.0
    read = reader(inputs)
    before = read.layer(inputs).detach()
    assert least_missed([read], 3, 2).tolist() == [0, 2]
    torch.testing.assert_close(narrowed(read, [0, 2])(inputs[:, [0, 2]]).detach(), before)


def test_other_inputs_of_a_reader_make_up_and_stay() -> None:
    """A column that is no neuron says what one of them said."""
    inputs = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    inputs[:, 3] = inputs[:, 0]
    read = reader(inputs, own=[0, 1])
    before = read.layer(inputs).detach()
    assert least_missed([read], 2, 1).tolist() == [1]
    found = narrowed(read, [1, 2, 3])(inputs[:, 1:]).detach()
    assert (found - before).square().mean().sqrt() < 0.02 * before.std()


def of_weights(weights: list[list[float]], inputs: torch.Tensor, own: list[int], roots: list[int]) -> Reader:
    layer = nn.Linear(inputs.shape[1], len(weights))
    layer.weight.data = torch.tensor(weights)
    return Reader(layer, moments(inputs), torch.tensor(own), torch.tensor(roots))


def test_all_readers_are_asked_each_by_what_it_says() -> None:
    """The first hears less of neuron 1, and the second, however softly it speaks, nothing else."""
    inputs = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    first = of_weights([[1.0, 0.5]], inputs, [0, 1], [0, 1])
    assert least_missed([first], 2, 1).tolist() == [0]
    reads = [of_weights(weights, inputs, [0, 1], [0, 1]) for weights in ([[1.0, 0.5]], [[0.0, 1e-3]])]
    assert least_missed(reads, 2, 1).tolist() == [1]


def test_a_reader_that_always_says_the_same_has_no_say() -> None:
    """It hears only neuron 0, which never moves there, and the other hears mostly neuron 0."""
    inputs = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    loud = of_weights([[1.0, 0.1]], inputs, [0, 1], [0, 1])
    for still in (torch.zeros(400, 2), torch.full((400, 2), 3.0)):
        dead = of_weights([[0.0, 5.0]], still, [0, 1], [0, 1])
        reads = [of_weights([[1.0, 0.1]], inputs, [0, 1], [0, 1]), dead]
        assert least_missed(reads, 2, 1).tolist() == least_missed([loud], 2, 1).tolist() == [0]


def test_a_neuron_that_is_read_twice_does_not_stand_in_for_itself() -> None:
    """Neuron 0 is heard most, by two columns that say the same."""
    inputs = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    twice = torch.cat([inputs, inputs[:, :1]], dim=1)
    read = of_weights([[5.0, 2.0, 1.0, 5.0]], twice, [0, 1, 2, 3], [0, 1, 2, 0])
    assert least_missed([read], 3, 2).tolist() == [0, 1]
    assert read.gone.tolist() == [False, False, True, False]


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_an_input_of_another_size_does_not_spoil_the_others(scale: float) -> None:
    """Neurons 0 and 1 say the same; beside them is a raw number."""
    inputs = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    inputs[:, 1] = inputs[:, 0]
    inputs[:, 2] *= scale
    read = reader(inputs, own=[0, 1])
    before = read.layer(inputs).detach()
    (kept,) = least_missed([read], 2, 1).tolist()
    left = [kept, 2]
    found = narrowed(read, left)(inputs[:, left]).detach()
    lost = (found - before).square().mean().sqrt()
    assert lost < 0.02 * (inputs[:, :1] @ read.before[:, :1].T.float()).std()


def test_nan_is_an_error_and_no_layer_of_nans() -> None:
    for wrong in (float("nan"), float("inf"), 1e300):
        inputs = torch.randn(20, 3, dtype=torch.float64)
        inputs[4, 1] = wrong
        with pytest.raises(InputError, match="is given NaN or infinity on the calibration rows"):
            reader(inputs)


def test_of_wide_layers_several_go_at_once_and_little_more_is_lost(monkeypatch) -> None:
    draw = torch.Generator().manual_seed(0)
    inputs = (torch.randn(2000, 24, generator=draw) @ torch.randn(24, 64, generator=draw)).relu()
    lost = {}
    for several in (1, 8):
        monkeypatch.setattr(surgeon, "ONE_BY_ONE", 64 // several)
        read = reader(inputs)
        before = read.layer(inputs).detach()
        kept = least_missed([read], 64, 32)
        assert len(kept) == 32
        lost[several] = float((narrowed(read, kept.tolist())(inputs[:, kept]).detach() - before).square().mean())
    assert lost[8] < 2 * lost[1]


def test_neurons_that_never_say_anything_go_first() -> None:
    inputs = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    inputs[:, [1, 3]] = 0.0
    assert least_missed([reader(inputs)], 5, 3).tolist() == [0, 2, 4]
    assert least_missed([reader(torch.zeros(20, 5))], 5, 2).shape == (2,)


class Clicks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.user = nn.Embedding(50, 8)
        self.mlp = nn.Sequential(nn.Linear(16, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.out = nn.Linear(48 + 16, 1)

    def forward(self, user: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        row = torch.cat([self.user(user), self.user(other)], dim=1)
        return self.out(torch.cat([self.mlp(row), row], dim=1))


def batch(rows: int, seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randint(0, 50, (rows,), generator=draw) for name in ("user", "other")}


def error(model: nn.Module, small: nn.Module) -> float:
    """The share of what answers to other rows vary by that is lost."""
    rows = batch(2000, seed=9)
    with torch.no_grad():
        before = model.eval()(**rows)
        return float((small.eval()(**rows) - before).square().mean() / before.var())


def test_a_module_loses_far_less_than_by_norms() -> None:
    torch.manual_seed(0)
    model = Clicks()
    model(**batch(500, seed=1))  # the batch normalisation has statistics
    kept = copy.deepcopy(model.state_dict())
    rows = [batch(1000, seed=seed) for seed in range(2, 6)]
    by_norms, found = (error(model, compress(model, [step], rows)[0]) for step in (HALF, COMPENSATED))
    assert found < 0.25 * by_norms
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, kept[name], rtol=0, atol=0)
    small, (record,) = compress(model, [COMPENSATED], rows)
    assert record["touched"] == ["mlp.0: 48 neurons to 24", "mlp.3: 48 neurons to 24"]
    assert small.out.weight.shape == (1, 24 + 16)
    small.train()(**rows[0]).sum().backward()
    assert all(each.grad is not None for each in small.parameters())


def test_a_network_of_slimrank_loses_far_less_than_by_norms(make_model, context) -> None:
    model = make_model(DNN(embedding_dim=4, hidden=(48, 32)))
    given = (context.train.ids, context.train.numbers)
    losses = {}
    for name, step in (("norms", HALF), ("compensated", COMPENSATED)):
        small, _ = compress_network(model, [step], context)
        assert [layer.out_features for layer in small.mlp.linears] == [24, 16]
        with torch.no_grad():
            losses[name] = float((small(*given) - model.eval()(*given)).square().mean())
    assert losses["compensated"] < 0.1 * losses["norms"]


class Convolved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 8, 1), nn.Conv1d(8, 8, 3)
        self.out = nn.Linear(8, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.out(self.second(self.first(values).relu()).relu().mean(dim=2))


def test_where_a_convolution_reads_them_norms_decide() -> None:
    torch.manual_seed(0)
    model = Convolved()
    rows = [torch.randn(64, 4, 7)]
    (plain, _), (small, (record,)) = (compress(model, [step], rows) for step in (HALF, COMPENSATED))
    torch.testing.assert_close(small.first.weight, plain.first.weight)
    assert small.out.weight.shape == plain.out.weight.shape
    assert not torch.equal(small.out.weight, plain.out.weight)
    by_norms = " by norms: not all that reads them is a linear layer that was run"
    assert record["touched"] == [f"first: 8 neurons to 4{by_norms}", "second: 8 neurons to 4"]
