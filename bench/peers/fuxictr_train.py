"""The peer's side of the training benchmark: FuxiCTR's DCNv2 through FuxiCTR's own loader and `fit`.

Runs in the environment that `fuxictr.sh` makes. The wheel carries the layers, the base model, the loaders and the
loop, but not the model zoo's DCNv2, so the class below puts FuxiCTR's layers together as its zoo does with
`model_structure: parallel`. Nothing of the loop is changed; only its evaluations and checkpoints are timed apart.

    .venv-fuxictr/bin/python bench/peers/fuxictr_train.py --train TRAIN.parquet --valid VALID.parquet --threads 2

The files hold a `label` and integer columns, each a categorical field. Ids may start anywhere (each field's smallest
is taken off); with `--sizes` they are local already, and it names the rows of each table. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl


def read_splits(train: Path, valid: Path, sizes: Mapping[str, int] | None) -> tuple[list[pl.DataFrame], dict[str, int]]:
    """Both splits with ids local to their field, and the rows of each field's table."""
    frames = [pl.read_parquet(path) for path in (train, valid)]
    fields = [name for name in frames[0].columns if name != "label"]
    if sizes is not None:
        return frames, {name: sizes[name] for name in fields}
    low = {name: min(frame[name].min() for frame in frames) for name in fields}
    frames = [frame.with_columns(pl.col(name) - low[name] for name in fields) for frame in frames]
    return frames, {name: 1 + max(frame[name].max() for frame in frames) for name in fields}


def write_inputs(folder: Path, frames: list[pl.DataFrame], sizes: Mapping[str, int]) -> None:
    """What FuxiCTR's preprocessing would leave: feature_map.json and the encoded rows, as npz and as parquet."""
    features = [{name: {"source": "", "type": "categorical", "vocab_size": size}} for name, size in sizes.items()]
    counts = {"num_fields": len(sizes), "total_features": sum(sizes.values()), "input_length": len(sizes)}
    content = {"dataset_id": folder.name, **counts, "labels": ["label"], "features": features}
    (folder / "feature_map.json").write_text(json.dumps(content))
    for split, frame in zip(("train", "valid"), frames, strict=True):
        np.savez(folder / f"{split}.npz", **{name: frame[name].to_numpy() for name in frame.columns})
        frame.write_parquet(folder / f"{split}.parquet")


def dcnv2_class() -> type:
    """FuxiCTR's base model with its embedding, CrossNetV2 and MLP side by side into one linear output."""
    import torch
    from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    class DCNv2(BaseModel):
        def __init__(self, feature_map: Any, shape: argparse.Namespace, **options: Any) -> None:
            super().__init__(feature_map, model_id="DCNv2", embedding_regularizer=shape.regularizer, **options)
            width = feature_map.sum_emb_out_dim()
            self.embedding_layer = FeatureEmbedding(feature_map, shape.dim)
            self.crossnet = CrossNetV2(width, shape.cross)
            self.parallel_dnn = MLP_Block(
                input_dim=width,
                hidden_units=shape.hidden,
                dropout_rates=shape.dropout,
                batch_norm=shape.batch_norm,
            )
            self.fc = torch.nn.Linear(width + shape.hidden[-1], 1)
            self.history: list[dict[str, float]] = []
            self.compile("adam", "binary_crossentropy", shape.lr)
            self.reset_parameters()

        def forward(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
            row = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
            out = torch.cat([self.crossnet(row), self.parallel_dnn(row)], dim=-1)
            return {"y_pred": self.output_activation(self.fc(out))}

        def eval_step(self) -> None:
            start, used = time.perf_counter(), time.process_time()
            super().eval_step()
            spent = {"seconds": time.perf_counter() - start, "processor": time.process_time() - used}
            self.history.append(spent | {"auc": float(self.last_auc)})

        def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
            logs: dict[str, float] = super().evaluate(*arguments, **options)
            self.last_auc = logs["AUC"]
            return logs

    return DCNv2


def train(folder: Path, shape: argparse.Namespace) -> dict[str, Any]:
    """Fits for `shape.epochs` epochs (or until FuxiCTR's early stop); seconds are of the training steps and the
    loader, evaluations and checkpoints apart. `processor_seconds` are those of this process, loader processes apart."""
    import torch
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.dataloaders import RankDataLoader
    from fuxictr.pytorch.torch_utils import seed_everything

    torch.set_num_threads(shape.threads)
    seed_everything(shape.seed)
    feature_map = FeatureMap(folder.name, str(folder))
    feature_map.load(str(folder / "feature_map.json"), {"embedding_dim": shape.dim})
    options = {"verbose": 0, "model_root": str(folder.parent), "metrics": ["AUC", "logloss"], "early_stop_patience": 2}
    model = dcnv2_class()(feature_map, shape, **options)
    suffix = ".npz" if shape.data_format == "npz" else ".parquet"
    paths = {f"{split}_data": str(folder / f"{split}{suffix}") for split in ("train", "valid")}
    loading = {"batch_size": shape.batch, "num_workers": shape.workers, "data_format": shape.data_format}
    rows, valid = RankDataLoader(feature_map, stage="train", shuffle=True, **paths, **loading)
    epochs: list[dict[str, float]] = []
    step = model.train_epoch

    def timed_epoch(generator: Any) -> None:
        start, used, seen = time.perf_counter(), time.process_time(), len(model.history)
        step(generator)
        seconds, processor = time.perf_counter() - start, time.process_time() - used
        for each in model.history[seen:]:
            seconds, processor = seconds - each["seconds"], processor - each["processor"]
        epochs.append({"seconds": seconds, "processor": processor, "auc": model.history[-1]["auc"]})

    model.train_epoch = timed_epoch
    model.fit(rows, epochs=shape.epochs, validation_data=valid)
    seconds = sum(each["seconds"] for each in epochs)
    best = model.evaluate(valid, metrics=["AUC", "logloss"])
    return {
        "rows_per_second": rows.num_samples * len(epochs) / seconds,
        "seconds": seconds,
        "processor_seconds": sum(each["processor"] for each in epochs),
        "validation_auc": float(best["AUC"]),
        "validation_logloss": float(best["logloss"]),
        "epoch_seconds": [each["seconds"] for each in epochs],
        "epoch_auc": [each["auc"] for each in epochs],
        "steps": len(epochs) * rows.num_batches,
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--sizes", type=Path, help='JSON {"field": rows of its table}')
    parser.add_argument("--dim", type=int, default=10)
    parser.add_argument("--cross", type=int, default=3)
    parser.add_argument("--hidden", type=int, nargs="+", default=[400, 400, 400])
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--batch-norm", action="store_true")
    parser.add_argument("--regularizer", type=float, default=0.0, help="L2 on whole tables, as FuxiCTR has it")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes of FuxiCTR's loader")
    parser.add_argument("--data-format", choices=("npz", "parquet"), default="npz")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Train once and print what came of it."""
    shape = arguments()
    os.environ.setdefault("RAY_TQDM", "0")
    sizes = json.loads(shape.sizes.read_text()) if shape.sizes else None
    with tempfile.TemporaryDirectory(prefix="fuxictr-") as folder:
        frames, rows_of = read_splits(shape.train, shape.valid, sizes)
        write_inputs(Path(folder), frames, rows_of)
        result = train(Path(folder), shape)
    import fuxictr
    import torch

    versions = {"fuxictr": fuxictr.__version__, "torch": torch.__version__}
    result |= {"versions": versions, "threads": torch.get_num_threads(), "workers": shape.workers}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
