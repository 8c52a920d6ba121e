"""torch-rechub's DeepFM on Frappe, trained by torch-rechub, compressed as it comes and trained on by its own trainer.

The shape and the settings are those that are published for this data (BARS, DeepFM on Frappe_x1).
Called by bench/byo.py. Prints one JSON object.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch_rechub.basic.features import SparseFeature
from torch_rechub.models.ranking import DeepFM
from torch_rechub.trainers import CTRTrainer

from bench.peers.clicks import Clicks, click_row, frappe
from bench.peers.row import tell

DIM = 10
MLP = {"dims": [400, 400, 400], "dropout": 0.2, "activation": "relu"}
EPOCHS, TUNING_EPOCHS, PATIENCE = 60, 20, 3
L2 = 0.025  # of whole tables, a batch


def fit(model: nn.Module, clicks: Clicks, epochs: int) -> None:
    """Train a model by the library's trainer until it no longer gets better on validation rows."""
    with TemporaryDirectory(prefix="rechub-") as folder, open(os.devnull, "w") as nowhere:
        settings: dict[str, Any] = {"n_epoch": epochs, "earlystop_patience": PATIENCE, "model_path": folder}
        rates = {"optimizer_params": {"lr": 1e-3}, "regularization_params": {"embedding_l2": L2}}
        trainer = CTRTrainer(model, **settings, **rates)
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):  # a bar a batch
            trainer.fit(clicks.shuffled("train"), clicks.shuffled("valid"))
        model.load_state_dict(trainer.early_stopper.best_weights)  # which it does itself only where it stops early


def main(kept: Path) -> None:
    """Print the row."""
    torch.manual_seed(1)
    clicks = Clicks(frappe())
    features = [SparseFeature(name, vocab_size=size, embed_dim=DIM) for name, size in clicks.sizes.items()]
    model = DeepFM(features, features, dict(MLP))
    first, more = (partial(fit, clicks=clicks, epochs=epochs) for epochs in (EPOCHS, TUNING_EPOCHS))
    tell({"torch_rechub": version("torch-rechub"), **click_row(model, clicks, DIM, kept, first, more)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
