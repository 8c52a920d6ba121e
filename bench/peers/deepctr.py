"""DeepCTR-Torch's DeepFM on Frappe, trained by its own `fit`, compressed as it comes and trained on by it.

Called by bench/byo.py, in the environment that `deepctr.sh` makes. Prints one JSON object.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import DeepFM
from torch import Tensor

from bench.peers.clicks import Clicks, click_row, frappe, until_no_better
from bench.peers.row import tell

DIM, BATCH = 16, 2048
HIDDEN, DROPOUT = (400, 400), 0.2
L2 = 1e-3  # of whole tables, a batch
EPOCHS, TUNING_EPOCHS, PATIENCE = 30, 15, 3


class OneTensor(Clicks):
    """The library takes ids as one tensor, a float a column."""

    def form(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The one argument of its models."""
        return {"X": torch.stack(list(columns.values()), dim=1).float()}


def fit(model: Any, clicks: OneTensor, epochs: int, rate: float) -> None:
    """Train by the model's own `fit`, until it no longer gets better on validation rows; it keeps what was best."""
    columns, label = (clicks.columns("train"), clicks.label("train").astype("float32"))
    model.compile(torch.optim.Adam(model.parameters(), lr=rate), "binary_crossentropy")

    def epoch() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            inputs = [column.float().numpy()[:, None] for column in columns.values()]
            model.fit(inputs, label, batch_size=BATCH, epochs=1, verbose=0)

    until_no_better(model, clicks, epochs, PATIENCE, epoch)


def main(kept: Path) -> None:
    """Print the row."""
    clicks = OneTensor(frappe())
    features = [SparseFeat(name, rows, embedding_dim=DIM) for name, rows in clicks.sizes.items()]
    settings: dict[str, Any] = {"dnn_hidden_units": HIDDEN, "dnn_dropout": DROPOUT, "dnn_use_bn": True, "seed": 1}
    model = DeepFM(features, features, l2_reg_embedding=L2, l2_reg_linear=L2, **settings)
    first = partial(fit, clicks=clicks, epochs=EPOCHS, rate=1e-3)
    more = partial(fit, clicks=clicks, epochs=TUNING_EPOCHS, rate=1e-3)
    row = click_row(model, clicks, DIM + 1, kept, first, more, narrow=["linear_model.*"])
    tell({"deepctr-torch": version("deepctr-torch"), **row})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
