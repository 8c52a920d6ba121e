"""LightGBM on Frappe to a network in integers: AUC, bytes and latency of both, three seeds.

Two forests of 500 trees, of LightGBM's own 31 leaves and of 255, where it is best on validation rows. Ids go to it as
its own categories. Its bytes are those of its text dump, gzipped, its latency that of `Booster.predict` with one
thread. Networks are artifacts; how they are trained was chosen on validation rows.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import slimrank
from slimrank import Training, runtime
from slimrank.data import load_dataset
from slimrank.data.encoding import Inputs
from slimrank.data.rows import EncodedDataset, encode_dataset
from slimrank.evaluation.cost import disk_bytes, summary, take_turns
from slimrank.evaluation.paired import compare
from slimrank.metrics import auc
from slimrank.models.dnn import DNN
from slimrank.recipe import Distillation
from slimrank.runtime import Model

TREES, LEAVES, SEEDS = 500, (31, 255), (1, 2, 3)
SIZES = (1, 32, 256)
CALLS = 1000
STEPS = ({"name": "quantize-tables", "bits": 4}, "quantize-dense")
STUDENT = DNN(embedding_dim=16, hidden=(128, 64))
TRAINING = Training(epochs=15, batch_size=1024, learning_rate=3e-3, l2=0.05, patience=0)
RETRAINING = Training(epochs=6, batch_size=1024, learning_rate=2e-3, l2=0.05, patience=0)
DISTILLATION = Distillation(soft_weight=0.5)
GOAL = {"auc_drop": 0.0, "times_smaller": 5, "p50_ratio_256": 1.0}


def boosted() -> dict[str, Any]:
    """The figures, by leaves of a tree."""
    torch.set_num_threads(1)
    data = encode_dataset(load_dataset("frappe"))
    return {
        "what": f"LightGBM of {TREES} trees on Frappe beside a network distilled from it, test rows, one thread",
        **{f"leaves_{leaves}": _forest(data, leaves) for leaves in LEAVES},
        "goal": GOAL,
    }


def _forest(data: EncodedDataset, leaves: int) -> dict[str, Any]:
    """One forest, and a network of every seed."""
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=TREES, num_leaves=leaves, random_state=1, n_jobs=1, verbose=-1)
    columns = data.train.inputs.ids
    model.fit(columns, data.train.label, categorical_feature=list(range(columns.shape[1])))
    booster = model.booster_

    def teacher(columns: NDArray[Any]) -> NDArray[np.float32]:
        found = booster.predict(columns.astype(np.int32, copy=False), raw_score=True, num_threads=1)
        return np.asarray(found, dtype=np.float32)

    dump = len(gzip.compress(booster.model_to_string().encode(), mtime=0))
    runs = [_run(data, teacher, seed) for seed in SEEDS]
    disk = max(run["bytes_on_disk"] for run in runs)
    return {
        "auc": {name: fmean(run["auc"][name] for run in runs) for name in runs[0]["auc"]},
        "bytes": {"lightgbm, its text dump gzipped": dump, "slim": disk},
        "times_smaller": dump / disk,
        "p50_ratio": {str(size): fmean(run["latency_ms"][str(size)]["p50_ratio"] for run in runs) for size in SIZES},
        "runs": runs,
    }


def _run(data: EncodedDataset, teacher: Callable[[NDArray[Any]], NDArray[np.float32]], seed: int) -> dict[str, Any]:
    """The network of a seed: trained on the forest's scores, in integers, trained on, exported, judged by test rows."""
    taught: dict[str, Any] = {"seed": seed, "teachers": [teacher], "distillation": DISTILLATION}
    student = slimrank.train(STUDENT, data, TRAINING, **taught)
    slim, steps = slimrank.compress(student, STEPS, data, seed=seed)
    slimrank.train(slim, data, RETRAINING, **taught)
    with tempfile.TemporaryDirectory() as folder:
        slimrank.export(slim, data.encoding, Path(folder) / "slim")
        artifact = runtime.load(Path(folder) / "slim")
        scores = {"lightgbm": teacher(data.test.inputs.ids), "slim": artifact.score(data.test.inputs)}
        compared = compare(data.test.label, scores["lightgbm"], scores["slim"], "auc", group=data.test.group)
        valid = {"lightgbm": teacher(data.valid.inputs.ids), "slim": artifact.score(data.valid.inputs)}
        return {
            "seed": seed,
            "auc": {name: float(auc(data.test.label, score)) for name, score in scores.items()},
            "change": {"mean": compared.difference, "low": compared.low, "high": compared.high},
            "valid_auc": {name: float(auc(data.valid.label, score)) for name, score in valid.items()},
            "bytes_on_disk": disk_bytes(Path(folder) / "slim"),
            "latency_ms": {str(size): _latency(teacher, artifact, data.test.inputs, size) for size in SIZES},
            "steps": [each["name"] for each in steps],
        }


def _latency(teacher: Callable[[NDArray[Any]], Any], artifact: Model, rows: Inputs, size: int) -> dict[str, Any]:
    """Calls of both in turns, each with other rows."""

    def stretch(sample: int) -> Inputs:
        return rows.take(np.arange(sample * size, (sample + 1) * size) % len(rows))

    def forest(sample: int) -> Callable[[], object]:
        columns = stretch(sample).ids.astype(np.int32)
        return lambda: teacher(columns)

    def network(sample: int) -> Callable[[], object]:
        own = stretch(sample)
        return lambda: artifact.score(own)

    taken = take_turns({"lightgbm": forest, "slim": network}, CALLS)
    found = {name: summary(each / 1e6) for name, each in taken.items()}
    return {**found, "p50_ratio": found["lightgbm"]["p50"] / found["slim"]["p50"]}
