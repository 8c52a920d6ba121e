"""DeepCTR-Torch's DeepFM, trained by its own `fit` on Frappe, compressed as it comes, and both artifacts measured.

    .venv-deepctr/bin/python -m bench.peers.deepctr

Runs in the environment that `deepctr.sh` makes. Validation rows choose the epoch, and how many bits there are; the
published test rows judge.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import DeepFM
from numpy.typing import NDArray
from torch import nn

import slimrank
from bench.peers.choosing import smallest, ways
from bench.peers.row import Judged, figures, tell
from slimrank.data import load_dataset
from slimrank.data.rows import encode_dataset
from slimrank.metrics import auc

DIM, BATCH, EPOCHS, TUNING = 16, 2048, 12, 3
LOSS = 0.001
WAYS = ways("linear_model.*")
Columns = NDArray[np.float32]


def rows_of(part: Any) -> tuple[Columns, NDArray[np.float32]]:
    """The ids of a split as the library takes them, one float a column, and the labels."""
    return part.inputs.ids.astype(np.float32), part.label.astype(np.float32)


@torch.no_grad()
def answer(model: nn.Module, columns: Columns) -> NDArray[np.float32]:
    """What the model answers."""
    parts = torch.from_numpy(columns).split(1 << 14)
    found: NDArray[np.float32] = torch.cat([model.eval()(part) for part in parts]).numpy()
    return found


def fitted(model: Any, train: Any, valid: Any, epochs: int, rate: float) -> None:
    """Train by the model's own `fit`; it keeps the weights that were best on validation rows."""
    model.compile(torch.optim.Adam(model.parameters(), lr=rate), "binary_crossentropy")
    best, kept = -1.0, model.state_dict()
    for _ in range(epochs):
        with contextlib.redirect_stdout(io.StringIO()):
            model.fit(list(train[0].T[..., None]), train[1], batch_size=BATCH, epochs=1, verbose=0)
        found = float(auc(valid[1], answer(model, valid[0]).ravel()))
        if found > best:
            best, kept = found, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    model.eval()


def main() -> None:
    """Print the row."""
    data = encode_dataset(load_dataset("frappe"))
    train, valid, test = (rows_of(part) for part in (data.train, data.valid, data.test))
    features = [SparseFeat(name, rows, embedding_dim=DIM) for name, rows in data.encoding.sizes.items()]
    model = DeepFM(features, features, dnn_hidden_units=(256, 128), l2_reg_embedding=1e-5, seed=1)
    fitted(model, train, valid, EPOCHS, 2e-3)
    small, records, told = smallest(
        model,
        WAYS,
        list(torch.from_numpy(train[0][: 20 * BATCH]).split(BATCH)),
        lambda each: float(auc(valid[1], answer(each, valid[0]).ravel())),
        loss=LOSS,
        tune=lambda each: fitted(each, train, valid, TUNING, 5e-4),
    )
    rows = test[0][:1024]
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        artifacts = {name: Path(root) / name for name in ("before", "after")}
        answers = {}
        for name, each in (("before", model), ("after", small)):
            slimrank.export(each, torch.from_numpy(rows), artifacts[name])
            answers[name] = answer(each, rows)
        judged = Judged({"X": test[0]}, test[1].astype(np.int64), data.test.group, ("auc",))
        tables = 4 * (DIM + 1) * sum(data.encoding.sizes.values())
        row = figures(artifacts, answers, {"X": rows}, judged, tables, records)
    tell({"deepctr-torch": version("deepctr-torch"), **row, "choice": told})


if __name__ == "__main__":
    main()
