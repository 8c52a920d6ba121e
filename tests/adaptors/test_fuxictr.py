"""FuxiCTR's DCNv2 on rows of Frappe: compressed as it comes, trained on by its own `fit`, exported."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

pytest.importorskip("fuxictr", reason="test_elsewhere.py runs this where it is")

from bench.peers.fuxictr_train import dcnv2_class, write_inputs
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.torch_utils import seed_everything

from slimrank.api import compress

SHAPE = Namespace(dim=16, cross=2, hidden=[64, 32], dropout=0.1, batch_norm=True, regularizer=0.0, lr=3e-3)


def fit(model: Any, folder: Path, epochs: int) -> None:
    """FuxiCTR's own loop on the rows that lie in a folder."""
    paths = {f"{part}_data": str(folder / f"{part}.npz") for part in ("train", "valid")}
    loading = {"batch_size": 512, "num_workers": 0, "data_format": "npz"}
    rows, valid = RankDataLoader(model.feature_map, stage="train", shuffle=True, **paths, **loading)
    model.fit(rows, epochs=epochs, validation_data=valid)
    model.eval()


@pytest.fixture(scope="module")
def folder(frappe, tmp_path_factory) -> Path:
    """Rows as FuxiCTR's preprocessing leaves them."""
    made = tmp_path_factory.mktemp("fuxictr") / "frappe"
    made.mkdir()
    frames = []
    for part in ("train", "test"):
        columns, label = frappe.parts[part]
        frames.append(pl.DataFrame({**{name: ids.numpy() for name, ids in columns.items()}, "label": label.numpy()}))
    write_inputs(made, frames, frappe.sizes)
    return made


@pytest.fixture(scope="module")
def dcnv2(frappe, folder) -> Any:
    seed_everything(1)
    features = FeatureMap(folder.name, str(folder))
    features.load(str(folder / "feature_map.json"), {"embedding_dim": SHAPE.dim})
    told = {"verbose": 0, "model_root": str(folder.parent), "metrics": ["AUC"], "early_stop_patience": 5}
    model = dcnv2_class()(features, SHAPE, **told)
    fit(model, folder, epochs=3)
    return model


def answer(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return model(batch)["y_pred"]


@torch.no_grad()
def scores(model: Any, frappe) -> np.ndarray:
    return torch.cat([answer(model.eval(), batch) for batch in frappe.columns("test")]).numpy()


def test_it_is_compressed_as_it_comes_and_exported(dcnv2, frappe, library, tmp_path) -> None:
    example = frappe.columns("test")[0]
    given = library(dcnv2, frappe.columns("train"), example, lambda model: answer(model, example))
    given.check(tmp_path, smaller=4)
    small, _ = given.compressed()
    before = frappe.auc(scores(dcnv2, frappe))
    assert before > 0.9
    assert frappe.auc(scores(small, frappe)) > before - 0.005


def test_its_own_fit_trains_what_steps_made(dcnv2, folder, frappe) -> None:
    steps = [{"name": "prune-neurons", "keep": 0.5}, {"name": "quantize-tables", "bits": 2}, "quantize-dense"]
    small, (pruned, *_) = compress(dcnv2, steps, frappe.columns("train"))
    assert any("64 neurons to 32" in each for each in pruned["touched"])
    trained = {id(each) for group in small.optimizer.param_groups for each in group["params"]}
    assert trained == {id(each) for each in small.parameters()}
    before = frappe.auc(scores(small, frappe))
    fit(small, folder, epochs=2)
    assert frappe.auc(scores(small, frappe)) > before
    assert frappe.auc(scores(dcnv2, frappe)) > 0.9  # the copy shares nothing with it
