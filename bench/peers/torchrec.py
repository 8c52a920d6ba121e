"""TorchRec's DLRM over an EmbeddingBagCollection on Frappe, compressed as it comes and trained on by the same loop.

The model is trained and calibrated on `KeyedJaggedTensor`s; what is exported is called with ids by feature. The numbers
beside them are how often training met user, item and city. Called by bench/byo.py, in the environment that
`torchrec.sh` makes. Prints one JSON object.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchrec.models.dlrm import DLRM
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from bench.peers.clicks import Clicks, Columns, click_row, frappe, until_no_better
from bench.peers.row import tell

DIM = 16
COUNTED = ("user", "item", "city")
EPOCHS, TUNING_EPOCHS, PATIENCE = 20, 15, 3
RATE, DECAY = 3e-3, 1e-5


def dlrm(sizes: dict[str, int], seed: int = 1) -> DLRM:
    """A small DLRM with a table for each field."""
    torch.manual_seed(seed)
    tables = [
        EmbeddingBagConfig(name=f"t_{name}", embedding_dim=DIM, num_embeddings=rows, feature_names=[name])
        for name, rows in sizes.items()
    ]
    collection = EmbeddingBagCollection(tables=tables)
    return DLRM(collection, len(COUNTED), [64, DIM], [256, 128, 1])


class Jagged(Clicks):
    """The library takes numbers, and ids of all fields one after the other."""

    def counts(self, columns: Columns) -> Tensor:
        """How often training met the ids of some fields [N, 3], as logarithms."""
        counts = [torch.from_numpy(self.encoded.encoding.counts[name])[columns[name]] for name in COUNTED]
        return torch.stack(counts, dim=1).float().log1p()

    def form(self, columns: Columns) -> dict[str, Any]:
        """Numbers, and ids by feature."""
        return {"dense_features": self.counts(columns), "sparse_features": dict(columns)}

    def given(self, columns: Columns) -> tuple[Tensor, KeyedJaggedTensor]:
        """What the model is called with."""
        ids = torch.cat(list(columns.values()))
        lengths = torch.ones(len(ids), dtype=torch.int64)
        return self.counts(columns), KeyedJaggedTensor(list(columns), ids, lengths=lengths)


def fit(model: nn.Module, clicks: Jagged, epochs: int, rate: float) -> None:
    """A loop of one's own, as TorchRec has none for one process; it keeps the weights best on validation rows."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=DECAY)

    def epoch() -> None:
        model.train()
        for columns, label in clicks.shuffled("train"):
            loss = functional.binary_cross_entropy_with_logits(model(*clicks.given(columns)).squeeze(1), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    until_no_better(model, clicks, epochs, PATIENCE, epoch)


def main(kept: Path) -> None:
    """Print the row."""
    clicks = Jagged(frappe(), probabilities=False)
    first = partial(fit, clicks=clicks, epochs=EPOCHS, rate=RATE)
    more = partial(fit, clicks=clicks, epochs=TUNING_EPOCHS, rate=RATE)
    row = click_row(dlrm(clicks.sizes), clicks, DIM, kept, first, more)
    tell({**{name: version(name) for name in ("torchrec", "fbgemm-gpu-cpu")}, **row})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
