"""FuxiCTR's DCNv2 on Frappe, trained by FuxiCTR, compressed as it comes and trained on by FuxiCTR's own `fit`.

The shape and the settings are those that its authors publish for this data (BARS, DCNv2 on Frappe_x1).
Called by bench/byo.py, in the environment that `fuxictr.sh` makes. Prints one JSON object.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fuxictr
import polars as pl
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.torch_utils import seed_everything
from torch import nn

from bench.peers.clicks import BATCH, Clicks, click_row, frappe
from bench.peers.fuxictr_train import dcnv2_class, write_inputs
from bench.peers.row import tell

SHAPE = Namespace(dim=10, cross=3, hidden=[400, 400, 400], dropout=0.2, batch_norm=True, regularizer=0.05, lr=1e-3)
EPOCHS, TUNING_EPOCHS, PATIENCE = 60, 20, 3


class Trainer:
    """FuxiCTR's loop on the rows of a folder that it reads."""

    def __init__(self, clicks: Clicks, folder: Path):
        parts = [{**clicks.columns(part), "label": clicks.label(part)} for part in ("train", "valid")]
        frames = [pl.DataFrame({name: column.__array__() for name, column in part.items()}) for part in parts]
        folder.mkdir()
        write_inputs(folder, frames, clicks.sizes)
        self.map = FeatureMap(folder.name, str(folder))
        self.map.load(str(folder / "feature_map.json"), {"embedding_dim": SHAPE.dim})
        self.folder = folder

    def model(self) -> nn.Module:
        """A new one."""
        seed_everything(1)
        told = {"verbose": 0, "model_root": str(self.folder.parent), "metrics": ["AUC", "logloss"]}
        made: nn.Module = dcnv2_class()(self.map, SHAPE, **told, early_stop_patience=PATIENCE)
        return made

    def fit(self, model: Any, epochs: int) -> None:
        """Train a model until it no longer gets better on validation rows; it keeps what was best."""
        paths = {f"{part}_data": str(self.folder / f"{part}.npz") for part in ("train", "valid")}
        loading = {"batch_size": BATCH, "num_workers": 1, "data_format": "npz"}
        rows, valid = RankDataLoader(self.map, stage="train", shuffle=True, **paths, **loading)
        model.fit(rows, epochs=epochs, validation_data=valid)


def main(kept: Path) -> None:
    """Print the row."""
    os.environ.setdefault("RAY_TQDM", "0")
    clicks = Clicks(frappe())
    with TemporaryDirectory(prefix="fuxictr-") as root:
        trainer = Trainer(clicks, Path(root) / "frappe")
        fit, tune = (partial(trainer.fit, epochs=epochs) for epochs in (EPOCHS, TUNING_EPOCHS))
        row = click_row(trainer.model(), clicks, SHAPE.dim, kept, fit, tune)
    tell({"fuxictr": fuxictr.__version__, **row})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
