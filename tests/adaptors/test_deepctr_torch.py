"""DeepCTR-Torch's DeepFM on rows of Frappe: compressed as it comes, trained on by its own `fit`, exported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("deepctr_torch", reason="test_elsewhere.py runs this where it is")

from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import DeepFM

from slimrank.api import compress

DIM = 16
STEPS: list[Any] = [
    {"name": "quantize-tables", "bits": 4, "skip": ["linear_model.*"]},
    {"name": "quantize-tables", "bits": 8, "only": ["linear_model.*"]},  # one number a row, which takes a byte anyway
    "quantize-dense",
]


def columns(frappe, part: str) -> torch.Tensor:
    """All fields of the rows, as one tensor of floats."""
    return torch.stack(list(frappe.parts[part][0].values()), dim=1).float()


def fit(model: Any, frappe, epochs: int) -> None:
    given = [column.numpy()[:, None].astype(np.float32) for column in frappe.parts["train"][0].values()]
    model.fit(given, frappe.parts["train"][1].numpy(), batch_size=512, epochs=epochs, verbose=0)
    model.eval()


@torch.no_grad()
def scores(model: Any, frappe) -> np.ndarray:
    return model.eval()(columns(frappe, "test")).numpy()


@pytest.fixture(scope="module")
def deepfm(frappe) -> Any:
    features = [SparseFeat(name, size, embedding_dim=DIM) for name, size in frappe.sizes.items()]
    model = DeepFM(features, features, dnn_hidden_units=(64, 32), seed=1)
    model.compile(torch.optim.Adam(model.parameters(), lr=3e-3), "binary_crossentropy")
    fit(model, frappe, epochs=2)
    return model


@pytest.fixture(scope="module")
def batches(frappe) -> list[torch.Tensor]:
    return list(columns(frappe, "train")[:8192].split(2048))


def test_it_is_compressed_as_it_comes_and_exported(deepfm, batches, frappe, library, tmp_path) -> None:
    example = columns(frappe, "test")[:512]
    given = library(deepfm, batches, example, lambda model: model(example), steps=STEPS)
    given.check(tmp_path, smaller=5)
    small, _ = given.compressed()
    before = frappe.auc(scores(deepfm, frappe))
    assert before > 0.9
    assert frappe.auc(scores(small, frappe)) > before - 0.005


def test_its_own_fit_trains_what_steps_made(deepfm, batches, frappe) -> None:
    small, _ = compress(deepfm, [{"name": "quantize-tables", "bits": 2}, "quantize-dense"], batches)
    before = frappe.auc(scores(small, frappe))
    rows = small.embedding_dict["user"].table.weight.detach().clone()
    fit(small, frappe, epochs=1)
    assert not torch.equal(small.embedding_dict["user"].table.weight, rows)
    assert frappe.auc(scores(small, frappe)) > before


def test_what_it_regularises_is_what_is_there_now(deepfm, batches) -> None:
    """All tables by the model's own factor: with tables that lose nothing, the loss is what it was."""
    assert deepfm.get_regularization_loss().item() > 0
    same, _ = compress(deepfm, [], batches)
    assert same.get_regularization_loss().item() == pytest.approx(deepfm.get_regularization_loss().item())
    small, _ = compress(deepfm, STEPS, batches)
    listed = [each for weights, *_ in small.regularization_weight for each in weights]
    own = {id(parameter) for parameter in small.parameters()}
    assert listed
    assert all(id(each) in own for each in listed)
    tables = [small.embedding_dict[name].table.weight for name in small.embedding_dict]
    assert all(any(each is table for each in listed) for table in tables)
    deepfm.zero_grad()  # its own training left some
    loss = small.get_regularization_loss()
    loss.backward()
    assert all(table.grad is not None and table.grad.any() for table in tables)
    assert all(each.grad is None for each in deepfm.embedding_dict.parameters())
