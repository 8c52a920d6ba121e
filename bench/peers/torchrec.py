"""TorchRec's DLRM over an EmbeddingBagCollection, trained on Frappe, compressed as it comes; both artifacts measured.

    .venv-torchrec/bin/python -m bench.peers.torchrec

Runs in the environment that `torchrec.sh` makes. The model is trained on `KeyedJaggedTensor`s and calibrated on them;
what is exported is called with ids by feature. The numbers beside them are how often training met user, app and city.
Validation rows choose the epoch, and how many bits there are; the published test rows judge.
"""

from __future__ import annotations

import copy
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchrec.models.dlrm import DLRM
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

import slimrank
from bench.peers.choosing import smallest, ways
from bench.peers.row import Judged, figures, tell
from slimrank.data import load_dataset
from slimrank.data.rows import EncodedDataset, encode_dataset
from slimrank.metrics import auc

DIM, BATCH, EPOCHS, TUNING = 16, 1024, 10, 3
COUNTED = ("user", "item", "city")
LOSS = 0.001
WAYS = ways()
Batch = tuple[Tensor, KeyedJaggedTensor]


def dlrm(sizes: dict[str, int], seed: int = 1) -> DLRM:
    """A small DLRM with a table for each field."""
    torch.manual_seed(seed)
    tables = [
        EmbeddingBagConfig(name=f"t_{name}", embedding_dim=DIM, num_embeddings=rows, feature_names=[name])
        for name, rows in sizes.items()
    ]
    collection = EmbeddingBagCollection(tables=tables)
    return DLRM(collection, len(COUNTED), [32, DIM], [128, 64, 1])


class Rows:
    """The rows of a split: what is counted [N, 3], ids [N, F] and labels [N]."""

    def __init__(self, data: EncodedDataset, part: str):
        rows = getattr(data, part)
        self.fields = list(data.encoding.sizes)
        self.ids = torch.from_numpy(rows.inputs.ids.astype(np.int64))
        seen = [torch.from_numpy(data.encoding.counts[name]) for name in COUNTED]
        columns = [count[self.ids[:, self.fields.index(name)]] for name, count in zip(COUNTED, seen, strict=True)]
        self.counts = torch.stack(columns, dim=1).float().log1p()
        self.label = torch.from_numpy(rows.label.astype(np.float32))

    def keyed(self, places: Any) -> Batch:
        """Some rows as the model takes them."""
        ids = self.ids[places]
        lengths = torch.ones(ids.numel(), dtype=torch.int64)
        return self.counts[places], KeyedJaggedTensor(self.fields, ids.T.reshape(-1), lengths=lengths)

    def by_feature(self, places: Any) -> dict[str, Any]:
        """The same with ids by feature, as its graph takes them."""
        ids = dict(zip(self.fields, self.ids[places].T.contiguous(), strict=True))
        return {"dense_features": self.counts[places], "sparse_features": ids}

    def arrays(self, places: Any) -> dict[str, NDArray[Any]]:
        """The same by the names of the graph's inputs."""
        batch = self.by_feature(places)
        ids = {f"sparse_features_{name}": each.numpy() for name, each in batch["sparse_features"].items()}
        return {"dense_features": batch["dense_features"].numpy(), **ids}


@torch.no_grad()
def answer(model: nn.Module, rows: Rows, places: slice = slice(None)) -> NDArray[np.float32]:
    """The model's logits."""
    parts = torch.arange(len(rows.label))[places].split(1 << 14)
    found: NDArray[np.float32] = torch.cat([model.eval()(*rows.keyed(part)) for part in parts]).numpy()
    return found


def fitted(model: nn.Module, train: Rows, valid: Rows, epochs: int, rate: float, seed: int = 0) -> None:
    """A loop of one's own, as TorchRec has none for one process; it keeps the weights best on validation rows."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    draw = torch.Generator().manual_seed(seed)
    best, kept = -1.0, model.state_dict()
    for _ in range(epochs):
        model.train()
        for places in torch.randperm(len(train.label), generator=draw).split(BATCH):
            logit = model(*train.keyed(places)).squeeze(1)
            loss = functional.binary_cross_entropy_with_logits(logit, train.label[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found = area(model, valid)
        if found > best:
            best, kept = found, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    model.eval()


def area(model: nn.Module, rows: Rows) -> float:
    """AUC."""
    return float(auc(rows.label.numpy(), answer(model, rows).ravel()))


def main() -> None:
    """Print the row."""
    data = encode_dataset(load_dataset("frappe"))
    train, valid, test = (Rows(data, part) for part in ("train", "valid", "test"))
    model = dlrm(dict(data.encoding.sizes))
    fitted(model, train, valid, EPOCHS, 3e-3)
    small, records, told = smallest(
        model,
        WAYS,
        [train.keyed(slice(start, start + BATCH)) for start in range(0, 40 * BATCH, BATCH)],
        lambda each: area(each, valid),
        loss=LOSS,
        tune=lambda each: fitted(each, train, valid, TUNING, 1e-3),
    )
    some = slice(0, 1024)
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        artifacts = {name: Path(root) / name for name in ("before", "after")}
        answers = {}
        for name, each in (("before", model), ("after", small)):
            slimrank.export(each, test.by_feature(some), artifacts[name])
            answers[name] = answer(each, test, some)
        label = test.label.numpy().astype(np.int64)
        judged = Judged(test.arrays(slice(None)), label, data.test.group, ("auc", "logloss"))
        tables = 4 * DIM * sum(data.encoding.sizes.values())
        row = figures(artifacts, answers, test.arrays(some), judged, tables, records)
    tell({**{name: version(name) for name in ("torchrec", "fbgemm-gpu-cpu")}, **row, "choice": told})


if __name__ == "__main__":
    main()
