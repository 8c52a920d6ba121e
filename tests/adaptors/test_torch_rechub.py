"""torch-rechub's DeepFM on rows of Frappe: compressed as it comes, trained on in a loop of one's own, exported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_rechub.basic.features import SparseFeature
from torch_rechub.models.ranking import DeepFM

from slimrank.api import compress, export
from slimrank.runtime import load_graph
from slimrank.tables.modules import Embedding

DIM = 16
STEPS: list[Any] = [{"name": "quantize-tables", "bits": 4}, "quantize-dense"]


def train(model: nn.Module, frappe, epochs: int, rate: float) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    model.train()
    for _ in range(epochs):
        for columns, label in frappe.batches("train", 512):
            loss = functional.binary_cross_entropy(model(columns), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()


@torch.no_grad()
def scores(model: nn.Module, frappe) -> np.ndarray:
    return torch.cat([model(columns) for columns in frappe.columns("test")]).numpy()


@pytest.fixture(scope="module")
def deepfm(frappe) -> nn.Module:
    torch.manual_seed(1)
    features = [SparseFeature(name, vocab_size=size, embed_dim=DIM) for name, size in frappe.sizes.items()]
    model = DeepFM(features, features, {"dims": [64, 32], "dropout": 0.0, "activation": "relu"})
    train(model, frappe, epochs=2, rate=3e-3)
    return model


def test_it_is_compressed_as_it_comes_and_exported(deepfm, frappe, tmp_path) -> None:
    small, (tables, dense) = compress(deepfm, STEPS, frappe.columns("train"))
    assert type(small) is DeepFM
    assert tables["touched_bytes"] == 4 * DIM * sum(frappe.sizes.values())
    assert tables["skipped"] == []
    assert all(isinstance(each, Embedding) for each in small.embedding.embed_dict.values())
    assert set(dense["touched"]) == {name for name, each in deepfm.named_modules() if isinstance(each, nn.Linear)}
    found = {}
    for name, model in (("before", deepfm), ("after", small)):
        export(model, frappe.columns("test")[0], tmp_path / name)
        graph = load_graph(tmp_path / name)
        assert {each: bounds[0][2] for each, bounds in graph.bounds.items()} == frappe.sizes
        asked = [{key: value.numpy() for key, value in columns.items()} for columns in frappe.columns("test")]
        found[name] = np.concatenate([graph.run(columns)["output"] for columns in asked])
        np.testing.assert_allclose(found[name], scores(model, frappe), atol=1e-5 if name == "before" else 0.02)
    sizes = {name: (tmp_path / name / "model.onnx").stat().st_size for name in found}
    assert sizes["before"] > 6 * sizes["after"]
    assert frappe.auc(found["before"]) > 0.9
    assert frappe.auc(found["after"]) > frappe.auc(found["before"]) - 0.005


def test_its_own_loop_trains_what_steps_made(deepfm, frappe) -> None:
    steps = [{"name": "quantize-tables", "bits": 2}, "quantize-dense"]
    small, _ = compress(deepfm, steps, frappe.columns("train"))
    before = frappe.auc(scores(small, frappe))
    train(small, frappe, epochs=1, rate=1e-3)
    assert frappe.auc(scores(small, frappe)) > before


def test_half_of_its_hidden_neurons_go_and_training_makes_up_for_them(deepfm, frappe) -> None:
    small, (record,) = compress(deepfm, [{"name": "prune-neurons", "keep": 0.5}], frappe.columns("train"))
    assert record["touched"] == ["mlp.mlp.0: 64 neurons to 32", "mlp.mlp.4: 32 neurons to 16"]
    assert {each["name"] for each in record["skipped"]} == {"linear.fc", "mlp.mlp.8"}
    train(small, frappe, epochs=1, rate=1e-3)
    assert frappe.auc(scores(small, frappe)) > frappe.auc(scores(deepfm, frappe)) - 0.005
