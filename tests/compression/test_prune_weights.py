"""Magnitude pruning: by tau, by sparsity, by what validation AUC may lose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimrank.compression.prune_weights import SPARSITIES, PruneWeights, threshold
from slimrank.compression.steps import compress
from slimrank.config import InputError
from slimrank.metrics import auc
from slimrank.models.logistic_regression import LogisticRegression
from slimrank.tables.embedding import Layout
from slimrank.training.examples import score


def dense(model) -> dict[str, torch.Tensor]:
    return {n: m.weight.detach() for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}


def test_weights_up_to_tau_become_zero_and_no_others(make_model, context) -> None:
    model = make_model()
    model.out.weight.data = torch.tensor([[0.25, -0.25, 0.2500001, -0.3, 0.0]])
    small, (record,) = compress(model, [{"name": "prune-weights", "tau": 0.25}], context)
    for name, weight in dense(model).items():
        expected = torch.where(weight.abs() <= 0.25, torch.zeros(()), weight)
        assert torch.equal(dense(small)[name], expected)
    assert small.out.weight.tolist()[0] == [0, 0, pytest.approx(0.2500001), pytest.approx(-0.3), 0]
    assert record["facts"]["tau"] == 0.25
    assert "out: 2 of 5 weights to 0" in record["touched"]
    assert torch.equal(small.embedding.table.weight, model.embedding.table.weight)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_sparsity_is_met_over_all_layers_together(sparsity, make_model, context) -> None:
    model = make_model()
    small, (record,) = compress(model, [{"name": "prune-weights", "sparsity": sparsity}], context)
    total = sum(weight.numel() for weight in dense(model).values())
    zeros = sum(int((weight == 0).sum()) for weight in dense(small).values())
    assert zeros == int(sparsity * total)
    assert record["facts"]["sparsity"] == zeros / total
    left = torch.cat([weight[weight != 0].abs() for weight in dense(small).values()])
    assert float(left.min()) > record["facts"]["tau"]


def test_a_threshold_from_arithmetic() -> None:
    weights = [torch.tensor([[3.0, -1.0]]), torch.tensor([[-4.0, 2.0]])]
    assert [threshold(weights, s) for s in (0.0, 0.2, 0.25, 0.5, 0.75, 0.99)] == [0, 0, 1, 2, 3, 3]


@pytest.mark.parametrize("bound", [0.0, 0.01, 0.05, 0.5])
def test_the_chosen_sparsity_is_the_largest_within_the_bound(bound, make_model, context) -> None:
    """Brute force: every sparsity of the grid is applied and scored on its own."""
    model = make_model()
    label = context.valid.label.numpy()
    before = auc(label, score(model, context.valid))
    allowed = [0.0]
    for sparsity in SPARSITIES:
        pruned, (record,) = compress(model, [{"name": "prune-weights", "sparsity": sparsity}], context)
        if before - auc(label, score(pruned, context.valid)) <= bound:
            allowed.append(record["facts"]["tau"])
    small, (record,) = compress(model, [{"name": "prune-weights", "max_auc_drop": bound}], context)
    assert record["facts"]["tau"] == max(allowed)
    assert before - auc(label, score(small, context.valid)) <= bound
    if record["facts"]["tau"]:
        assert record["facts"]["valid_auc_after"] == auc(label, score(small, context.valid))


def test_where_nothing_may_be_pruned_it_says_so(make_model, context) -> None:
    model = make_model()
    small, (record,) = compress(model, [{"name": "prune-weights", "tau": 0.0}], context)
    assert record["touched"] == []
    assert {each["name"] for each in record["skipped"]} == set(dense(model))
    assert torch.equal(small(context.train.ids, context.train.numbers), model(context.train.ids, context.train.numbers))


def test_bytes_are_those_of_the_mask_and_what_is_left(make_model, context) -> None:
    model = make_model()
    _, (record,) = compress(model, [{"name": "prune-weights", "tau": 1e9}], context)
    sizes = [weight.numel() for weight in dense(model).values()]
    assert record["bytes_before"] - record["bytes_after"] == sum(4 * size - (size + 7) // 8 for size in sizes)


def test_a_model_without_dense_layers_is_skipped(make_model, context) -> None:
    model = make_model(LogisticRegression(), Layout(("user",), (9,), (1,)))
    _, (record,) = compress(model, [{"name": "prune-weights", "tau": 0.1}], context)
    assert record["touched"] == []
    assert record["skipped"] == [{"name": "weights", "reason": "the model has no dense layer of floats"}]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": 1.5}, r"sparsity: Input should be less than 1, got 1\.5"),
        ({"sparsity": -0.1}, r"sparsity: Input should be greater than or equal to 0, got -0\.1"),
        ({"tau": -1}, "tau: Input should be greater than or equal to 0, got -1"),
        ({"tau": float("nan")}, "tau: Input should be a finite number, got nan"),
        ({"tau": float("inf")}, "tau: Input should be a finite number, got inf"),
        ({"tau": 0.1, "sparsity": 0.5}, r"exactly one of tau, sparsity and max_auc_drop, got \['tau', 'sparsity'\]"),
        ({}, "give exactly one of tau, sparsity and max_auc_drop, got none"),
        ({"sparsty": 0.5}, "unknown key 'sparsty'. Did you mean 'sparsity'?"),
    ],
)
def test_what_is_not_allowed_says_what_is(settings, message) -> None:
    with pytest.raises(InputError, match=message):
        PruneWeights.parse(settings, "step prune-weights")


def test_pruned_weights_are_those_of_numpy(make_model, context) -> None:
    """An independent reference: numpy's quantile of all sizes."""
    model = make_model()
    sizes = np.sort(np.concatenate([weight.abs().numpy().ravel() for weight in dense(model).values()]))
    _, (record,) = compress(model, [{"name": "prune-weights", "sparsity": 0.3}], context)
    assert record["facts"]["tau"] == sizes[int(0.3 * len(sizes)) - 1]
