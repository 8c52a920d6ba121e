"""The first look: what it measures is what touching a part by hand costs, and the model is left as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from slimrank.metrics import auc
from slimrank.pipeline.first_look import first_look
from slimrank.pipeline.models import baseline, train_teacher
from slimrank.pipeline.workspace import Run
from slimrank.recipe import Recipe
from slimrank.searching.automatic import BITS, SPARSITIES
from slimrank.training.examples import score


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> Run:
    """A run with its teacher trained."""
    made = Run(Recipe.parse(tiny()), tmp_path_factory.mktemp("look"))
    train_teacher(made, 1)
    return made


def test_every_field_and_layer_is_looked_at(run: Run) -> None:
    found = first_look(run, 1)
    assert set(found.fields) == set(found.tables) == {"user", "item", "tags"}
    assert all(set(each) == set(BITS) for each in found.tables.values())
    assert all(set(each) == set(SPARSITIES) for each in found.layers.values())
    assert all(np.isfinite(loss) for each in found.tables.values() for loss in each.values())
    assert max(found.fields, key=lambda name: found.fields[name]) in ("user", "item")


def test_eight_bits_lose_next_to_nothing_and_one_bit_more_than_four(run: Run) -> None:
    tables = first_look(run, 1).tables
    assert all(abs(each[8]) < 1e-3 for each in tables.values())
    assert sum(each[1] for each in tables.values()) > sum(each[4] for each in tables.values())


def test_zeros_in_a_layer_cost_what_setting_them_costs(run: Run) -> None:
    found = first_look(run, 1)
    model = baseline(run, 1).eval()
    label = run.valid.label.numpy()
    before = auc(label, score(model, run.valid))
    name = max(found.layers, key=lambda each: abs(found.layers[each][0.7]))
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    sizes = layer.weight.data.abs().flatten()
    limit = sizes.sort().values[int(0.7 * len(sizes)) - 1]
    layer.weight.data[layer.weight.data.abs() <= limit] = 0.0
    assert before - auc(label, score(model, run.valid)) == pytest.approx(found.layers[name][0.7], abs=1e-9)


def test_the_teacher_is_left_as_it_was(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {}

    def keeping(of: Run, seed: int):
        kept["model"] = baseline(of, seed)
        kept["before"] = {name: value.clone() for name, value in kept["model"].state_dict().items()}
        return kept["model"]

    monkeypatch.setattr("slimrank.pipeline.first_look.baseline", keeping)
    first_look(run, 1)
    after = kept["model"].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in kept["before"].items())
