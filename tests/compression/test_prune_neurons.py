"""Structured pruning: the least important neurons go, and the scores are those of a model without them."""

from __future__ import annotations

import copy

import pytest
import torch

from slimrank.compression.steps import compress
from slimrank.config import InputError, as_config, entries
from slimrank.models.dlrm import DLRM
from slimrank.models.dnn import DNN
from slimrank.models.finalmlp import FinalMLP
from slimrank.models.layers import Ranker, matrices

RANKERS = {n for n, each in entries("model").items() if issubclass(each.run, Ranker) and n != "cross-encoder"}


def test_the_least_important_neurons_go(make_model, context) -> None:
    """Importance is the norm of what comes in times the norm of what goes out."""
    model = make_model(DNN(embedding_dim=4, hidden=(4,)))
    first = model.mlp.linears[0]
    first.lookups.weight.data = torch.diag(torch.tensor([3.0, 1.0, 5.0, 2.0])).repeat(1, 2)  # two fields of 4 numbers
    first.others.weight.data = torch.zeros(4, 6)
    first.others.weight.data[1, 0] = 4.0  # neuron 1: sqrt(1 + 1 + 16) in, more than the lookups alone say
    model.out.weight.data = torch.tensor([[1.0, -1.0, 0.1, 2.0]])
    # sizes: 3 sqrt(2) * 1, sqrt(18) * 1, 5 sqrt(2) * .1, 2 sqrt(2) * 2: neuron 2 is the least, 0 and 1 tie, 3 leads
    small, (record,) = compress(model, [{"name": "prune-neurons", "keep": 0.75}], context)
    assert small.out.weight.tolist() == [[1.0, -1.0, 2.0]]
    assert small.mlp.linears[0].others.weight[:, 0].tolist() == [0.0, 4.0, 0.0]
    assert record["touched"] == ["mlp.linears.0: 4 neurons to 3"]
    one, _ = compress(model, [{"name": "prune-neurons", "keep": 0.001}], context)
    assert one.out.weight.tolist() == [[2.0]]


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("config", [DNN(embedding_dim=4), DLRM(embedding_dim=4, embedding_std=0.5, bottom=())])
def test_scores_are_those_of_a_model_with_the_neurons_at_zero(config, batch_norm, make_model, context) -> None:
    model = make_model(config.model_copy(update={"hidden": (6, 5), "batch_norm": batch_norm}))
    if batch_norm:
        for norm in model.mlp.norms:
            for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
                values.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(values)))
    small, _ = compress(model, [{"name": "prune-neurons", "keep": 0.5}], context)
    zeroed = copy.deepcopy(model)
    readers = [*zeroed.mlp.linears[1:], zeroed.out]
    for index, (layer, reader) in enumerate(zip(zeroed.mlp.linears, readers, strict=True)):
        incoming = sum(part.weight.detach().square().sum(dim=1) for part in matrices(layer))
        importance = incoming.sqrt() * reader.weight.detach().norm(dim=0)
        least = importance.argsort()[: len(importance) - small.mlp.linears[index].out_features]
        reader.weight.data[:, least] = 0.0
        for part in matrices(layer):  # its own norm counts no more for the layers behind it
            part.weight.data[least] = 0.0
    given = (context.train.ids, context.train.numbers)
    torch.testing.assert_close(small(*given), zeroed(*given), rtol=1e-5, atol=1e-5)
    assert (small(*given) - model(*given)).abs().max() > 1e-3
    assert [layer.out_features for layer in small.mlp.linears] == [3, 3]
    assert small.train()(*given).isfinite().all()


@pytest.mark.parametrize("name", sorted(RANKERS - {"gmf"}))
def test_keeping_all_changes_nothing_and_says_so(name, make_model, context) -> None:
    model = make_model(as_config("model", name))
    same, (record,) = compress(model, [{"name": "prune-neurons", "keep": 1.0}], context)
    assert record["touched"] == []
    assert record["bytes_before"] == record["bytes_after"]
    given = (context.train.ids, context.train.numbers)
    assert torch.equal(same(*given), model(*given))
    if name != "logistic-regression":
        assert all("neurons are" in each["reason"] for each in record["skipped"])


def test_layers_of_equal_width_are_not_taken_for_the_reader(make_model, context) -> None:
    """The numbers' MLP of a DLRM ends in a vector that several things read, however wide `out` happens to be."""
    model = make_model(DLRM(embedding_dim=4, bottom=(6,), hidden=(8, 4)))
    small, (record,) = compress(model, [{"name": "prune-neurons", "keep": 0.5}], context)
    assert {each["name"] for each in record["skipped"]} == {"bottom.linears.1"}
    assert small.bottom.linears[1].out_features == 4
    assert small(context.train.ids, context.train.numbers).isfinite().all()


def test_streams_of_a_bilinear_form_keep_their_width(make_model, context) -> None:
    model = make_model(FinalMLP(embedding_dim=4, hidden=(6, 5), second_hidden=(8, 4)))
    small, (record,) = compress(model, [{"name": "prune-neurons", "keep": 0.5}], context)
    assert [layer.out_features for layer in small.first.mlp.linears] == [3, 5]
    assert {each["name"] for each in record["skipped"]} == {"first.mlp.linears.1", "second.mlp.linears.1"}


def test_quantised_layers_are_skipped_with_the_reason(make_model, context) -> None:
    _, records = compress(make_model(), ["quantize-dense", "prune-neurons"], context)
    assert records[1]["touched"] == []
    assert {each["reason"] for each in records[1]["skipped"]} == {
        "is quantised already: prune neurons before quantising"
    }


@pytest.mark.parametrize("keep", [0.0, -1.0, 1.5, float("nan")])
def test_what_to_keep_is_a_fraction(keep) -> None:
    with pytest.raises(InputError, match="step prune-neurons: keep: Input should be"):
        as_config("step", {"name": "prune-neurons", "keep": keep})
