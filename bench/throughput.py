"""Training throughput: slimrank's loop beside FuxiCTR's, on the same rows, shape, batch size and number of threads.

Both train a DCNv2 for the same number of epochs, in turns, so that a slow moment of the machine hits both. Rows a
second count the steps and the reading of batches; evaluations and checkpoints are left out on both sides. Beside the
wall time stands the processor time, which other work on the machine stretches less. Left out: several processes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from slimrank.config import Config, InputError
from slimrank.data import load_dataset
from slimrank.data.datasets.frappe import Frappe
from slimrank.data.datasets.synthetic import Synthetic
from slimrank.data.rows import EncodedDataset, Rows, encode_dataset
from slimrank.models.architecture import build_model
from slimrank.models.dcnv2 import DCNv2
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples
from slimrank.training.loop import Hook, State, Training, fit

PEER = Path(__file__).parent / "peers" / "fuxictr_train.py"
PEER_PYTHON = Path(__file__).parents[1] / ".venv-fuxictr" / "bin" / "python"
BATCH = 4096


@dataclass(frozen=True)
class Case:
    """One dataset and shape: our model and training, and what the peer is told beyond the shape."""

    data: Config
    model: DCNv2
    training: Training
    peer: tuple[str, ...]


def _synthetic(fields: int) -> Case:
    """About 5M ids at dim 16: nearly all of a dense optimiser's work is rows that the batch does not hold."""
    return Case(
        Synthetic(rows=512_000, fields=fields, ids=5_000_000 // fields),
        DCNv2(embedding_dim=16, cross_layers=3, embedding_std=1e-4),
        Training(
            epochs=1,
            batch_size=BATCH,
            learning_rate=1e-3,
            sparse_learning_rate=0.01,
            schedule="constant",
            patience=0,
            precision="auto",
        ),
        (),
    )


CASES = {
    "frappe": Case(
        Frappe(),
        DCNv2(embedding_dim=10, cross_layers=3, dropout=0.2, batch_norm=True),
        Training(epochs=6, batch_size=BATCH, learning_rate=3e-3, l2=0.05, l2_of="rows", patience=0, precision="auto"),
        ("--batch-norm", "--regularizer", "0.05"),
    ),
    "synthetic-10": _synthetic(10),
    "synthetic-26": _synthetic(26),
}


def throughput(case: str, pairs: int = 3, threads: int = 2) -> dict[str, Any]:
    """Train `case` with both, `pairs` times in turns; every run, and the medians of the pairs' ratios.

    Raises:
        InputError: the peer's environment is missing.
    """
    if not PEER_PYTHON.exists():
        raise InputError("the peer is not installed: sh bench/peers/fuxictr.sh")
    chosen = CASES[case]
    encoded = encode_dataset(load_dataset(chosen.data))
    runs: dict[str, list[dict[str, Any]]] = {"slimrank": [], "fuxictr": []}
    load = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        _write_rows(encoded, Path(folder))
        for seed in range(1, pairs + 1):
            load.append(os.getloadavg()[0])
            runs["slimrank"].append(_ours(chosen, encoded, seed, threads))
            runs["fuxictr"].append(_peers(chosen, Path(folder), seed, threads))
    return {
        "what": f"training throughput of DCNv2 on {case}, slimrank beside FuxiCTR, medians of {pairs} pairs",
        "shape": {"rows": len(encoded.train), "ids": sum(encoded.encoding.sizes.values()), "batch_size": BATCH}
        | chosen.model.model_dump(mode="json"),
        "threads": threads,
        "epochs": chosen.training.epochs,
        "training": chosen.training.model_dump(mode="json"),
        "peer_arguments": list(chosen.peer),
        "rows_per_second": _medians(runs, "rows_per_second"),
        "rows_per_processor_second": _medians(runs, "rows_per_processor_second"),
        "ratio": _ratio(runs, "rows_per_second"),
        "ratio_of_processor_time": _ratio(runs, "rows_per_processor_second"),
        "validation_auc": _medians(runs, "validation_auc"),
        "load_average": load,
        "runs": runs,
    }


class _Clock(Hook):
    """Seconds from the start of each epoch to its last step."""

    def on_start(self, state: State) -> None:
        self.seconds = self.processor = 0.0
        self._begin()

    def _begin(self) -> None:
        self.start, self.used = time.perf_counter(), time.process_time()

    def on_step(self, state: State) -> None:
        self.last, self.last_used = time.perf_counter(), time.process_time()

    def on_epoch(self, state: State) -> None:
        self.seconds += self.last - self.start
        self.processor += self.last_used - self.used
        self._begin()


def _ours(case: Case, encoded: EncodedDataset, seed: int, threads: int) -> dict[str, Any]:
    """One training with slimrank."""
    torch.set_num_threads(threads)
    train, valid = Examples.of(encoded.train), Examples.of(encoded.valid)
    model = build_model(case.model, Layout.of(encoded.encoding), seed)
    clock = _Clock()
    history = fit(model, train, valid, case.training, seed=seed, hooks=[clock])
    seen = len(train) * len(history)
    return {
        "rows_per_second": seen / clock.seconds,
        "rows_per_processor_second": seen / clock.processor,
        "validation_auc": max(epoch["valid_auc"] for epoch in history),
        "epoch_auc": [epoch["valid_auc"] for epoch in history],
    }


def _peers(case: Case, folder: Path, seed: int, threads: int) -> dict[str, Any]:
    """One training with FuxiCTR, in its own environment; no loader processes, which were slower."""
    model = case.model
    options = {
        "train": folder / "train.parquet",
        "valid": folder / "valid.parquet",
        "sizes": folder / "sizes.json",
        "dim": model.embedding_dim,
        "cross": model.cross_layers,
        "dropout": model.dropout,
        "batch": BATCH,
        "epochs": case.training.epochs,
        "threads": threads,
        "seed": seed,
        "workers": 0,
    }
    command = [str(PEER_PYTHON), str(PEER), *(f"--{name}={value}" for name, value in options.items()), *case.peer]
    command += ["--hidden", *map(str, model.hidden)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    kept = ("rows_per_second", "validation_auc", "epoch_auc", "versions")
    seen = found["rows_per_second"] * found["seconds"]
    return {"rows_per_processor_second": seen / found["processor_seconds"]} | {name: found[name] for name in kept}


def _write_rows(encoded: EncodedDataset, folder: Path) -> None:
    """The encoded rows, as the peer's script reads them."""
    sizes = {name: int(size) for name, size in encoded.encoding.sizes.items()}
    (folder / "sizes.json").write_text(json.dumps(sizes))
    for name, rows in (("train", encoded.train), ("valid", encoded.valid)):
        _frame(rows, list(sizes)).write_parquet(folder / f"{name}.parquet")


def _frame(rows: Rows, names: list[str]) -> pl.DataFrame:
    ids = {name: rows.inputs.ids[:, place] for place, name in enumerate(names)}
    return pl.DataFrame({"label": rows.label, **ids})


def _medians(runs: dict[str, list[dict[str, Any]]], key: str) -> dict[str, float]:
    return {name: statistics.median(run[key] for run in each) for name, each in runs.items()}


def _ratio(runs: dict[str, list[dict[str, Any]]], key: str) -> float:
    """The median over pairs of ours / peer's."""
    pairs = zip(runs["slimrank"], runs["fuxictr"], strict=True)
    return statistics.median(ours[key] / peers[key] for ours, peers in pairs)
