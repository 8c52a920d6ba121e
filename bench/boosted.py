"""LightGBM on Frappe to a network in integers: AUC, bytes and latency of both, three seeds.

Two forests of 500 trees, of LightGBM's own 31 leaves and of 255, where it is best on validation rows. Ids go to it as
its own categories. Its bytes are those of its text dump, gzipped, its latency that of `Booster.predict` with one
thread. A forest has no vectors of ids that a student could start from, and says of its own train rows little but their
labels: a DCNv2 of the same rows lends the vectors, and its scores beside the forest's (an assistant, Mirzadeh et al.
2020, arXiv 1902.03393). Networks are artifacts; how they are trained was chosen on validation rows.
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
from slimrank.compression.fields import field_importance, needed_fields
from slimrank.data import load_dataset
from slimrank.data.encoding import Inputs
from slimrank.data.rows import EncodedDataset, encode_dataset
from slimrank.evaluation.cost import disk_bytes, summary, take_turns
from slimrank.evaluation.paired import compare
from slimrank.metrics import auc
from slimrank.models.architecture import build_model
from slimrank.models.dcnv2 import DCNv2
from slimrank.models.dnn import DNN
from slimrank.models.layers import Network
from slimrank.recipe import Distillation
from slimrank.runtime import Model
from slimrank.tables.embedding import FusedEmbedding, Layout
from slimrank.training.examples import Examples
from slimrank.training.teachers import Scores
from slimrank.training.warm_start import start_table

TREES, LEAVES, SEEDS = 500, (31, 255), (1, 2, 3)
CALLS = {1: 1000, 32: 300, 256: 100}  # by rows a call: a forest takes a tenth of a second for 256
STEPS = ({"name": "quantize-tables", "bits": 4}, "quantize-dense")
ASSISTANT = DCNv2(embedding_dim=10, cross_layers=3, hidden=(400, 400, 400), dropout=0.2, batch_norm=True)
ASSISTED = Training(epochs=14, batch_size=4096, learning_rate=3e-3, l2=0.05, l2_of="rows", patience=0, precision="auto")
STUDENT = DNN(embedding_dim=16, hidden=(128, 64))
TRAINING = Training(epochs=15, batch_size=1024, learning_rate=3e-3, l2=0.05, patience=0)
RETRAINING = Training(epochs=6, batch_size=1024, learning_rate=2e-3, l2=0.05, patience=0)
DISTILLATION = Distillation(soft_weight=0.9)
LEAST_IMPORTANCE = 0.001  # of a field that the student reads
GOAL = {"auc_drop": 0.0, "times_smaller": 5, "p50_ratio_256": 1.0}


def boosted() -> dict[str, Any]:
    """The figures, by leaves of a tree."""
    torch.set_num_threads(1)
    data = encode_dataset(load_dataset("frappe"))
    assistants = {seed: slimrank.train(ASSISTANT, data, ASSISTED, seed=seed) for seed in SEEDS}
    return {
        "what": f"LightGBM of {TREES} trees on Frappe beside a network distilled from it, test rows, one thread",
        **{f"leaves_{leaves}": _forest(data, leaves, assistants) for leaves in LEAVES},
        "goal": GOAL,
    }


def _forest(data: EncodedDataset, leaves: int, assistants: dict[int, Network]) -> dict[str, Any]:
    """One forest, and a network of every seed."""
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=TREES, num_leaves=leaves, random_state=1, n_jobs=1, verbose=-1)
    columns = data.train.inputs.ids
    model.fit(columns, data.train.label, categorical_feature=list(range(columns.shape[1])))
    booster = model.booster_

    def forest(columns: NDArray[Any]) -> NDArray[np.float32]:
        found = booster.predict(columns.astype(np.int32, copy=False), raw_score=True, num_threads=1)
        return np.asarray(found, dtype=np.float32)

    dump = len(gzip.compress(booster.model_to_string().encode(), mtime=0))
    scores = Scores(forest(columns))
    runs = [_run(data, forest, scores, assistant, seed) for seed, assistant in assistants.items()]
    disk = max(run["bytes_on_disk"] for run in runs)
    return {
        "auc": {name: fmean(run["auc"][name] for run in runs) for name in runs[0]["auc"]},
        "auc_drop": fmean(run["auc"]["lightgbm"] - run["auc"]["slim"] for run in runs),
        "bytes": {"lightgbm, its text dump gzipped": dump, "slim": disk},
        "times_smaller": dump / disk,
        "p50_ratio": {str(size): fmean(run["latency_ms"][str(size)]["p50_ratio"] for run in runs) for size in CALLS},
        "runs": runs,
    }


def _student(data: EncodedDataset, assistant: Network, seed: int) -> tuple[Network, tuple[str, ...]]:
    """An untrained student over the fields that matter to the assistant, with what it learned of their ids."""
    layout = Layout.of(data.encoding)
    valid = Examples.of(data.valid, torch.device("cpu"), data.encoding.schema.answer)
    kept = needed_fields(field_importance([assistant], valid, seed), LEAST_IMPORTANCE)
    model = build_model(STUDENT, layout.only(kept), seed)
    for module in model.modules():
        if isinstance(module, FusedEmbedding):
            module.reads = layout.columns_of(kept)
    start_table(model, [assistant], data.encoding.counts)
    return model, kept


def _run(
    data: EncodedDataset,
    forest: Callable[[NDArray[Any]], NDArray[np.float32]],
    scores: Scores,
    assistant: Network,
    seed: int,
) -> dict[str, Any]:
    """The network of a seed: trained on the forest's scores, in integers, trained on, exported, judged by test rows."""
    taught: dict[str, Any] = {"seed": seed, "teachers": [scores, assistant], "distillation": DISTILLATION}
    student, kept = _student(data, assistant, seed)
    slimrank.train(student, data, TRAINING, **taught)
    slim, steps = slimrank.compress(student, STEPS, data, seed=seed)
    slimrank.train(slim, data, RETRAINING, **taught)
    with tempfile.TemporaryDirectory() as folder:
        for name, model in (("slim", slim), ("assistant", assistant)):
            slimrank.export(model, data.encoding, Path(folder) / name)
        artifacts = {name: runtime.load(Path(folder) / name) for name in ("slim", "assistant")}
        found = {
            part: {"lightgbm": forest(rows.inputs.ids), **{n: each.score(rows.inputs) for n, each in artifacts.items()}}
            for part, rows in (("test", data.test), ("valid", data.valid))
        }
        test = found["test"]
        compared = compare(data.test.label, test["lightgbm"], test["slim"], "auc", group=data.test.group)
        return {
            "seed": seed,
            "fields": list(kept),
            "auc": {name: float(auc(data.test.label, score)) for name, score in test.items()},
            "change": {"mean": compared.difference, "low": compared.low, "high": compared.high},
            "valid_auc": {name: float(auc(data.valid.label, score)) for name, score in found["valid"].items()},
            "bytes_on_disk": disk_bytes(Path(folder) / "slim"),
            "latency_ms": {str(n): _latency(forest, artifacts["slim"], data.test.inputs, n) for n in CALLS},
            "steps": [each["name"] for each in steps],
        }


def _latency(predict: Callable[[NDArray[Any]], Any], artifact: Model, rows: Inputs, size: int) -> dict[str, Any]:
    """Calls of both in turns, each with other rows."""

    def stretch(sample: int) -> Inputs:
        return rows.take(np.arange(sample * size, (sample + 1) * size) % len(rows))

    def forest(sample: int) -> Callable[[], object]:
        columns = stretch(sample).ids.astype(np.int32)
        return lambda: predict(columns)

    def network(sample: int) -> Callable[[], object]:
        own = stretch(sample)
        return lambda: artifact.score(own)

    taken = take_turns({"lightgbm": forest, "slim": network}, CALLS[size])
    found = {name: summary(each / 1e6) for name, each in taken.items()}
    return {**found, "p50_ratio": found["lightgbm"]["p50"] / found["slim"]["p50"]}
