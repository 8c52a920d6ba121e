"""LightGBM on Frappe to a network in integers: AUC, bytes and latency of both, three seeds.

Two forests of 500 trees, of LightGBM's own 31 leaves and of 255, where it is best on validation rows. Ids go to it as
its own categories. Its bytes are those of its text dump, gzipped, its latency that of `Booster.predict` with one
thread. A forest has no vectors of ids that a student could start from, and says of its own train rows little but their
labels. So a DCNv2 of the same rows lends the vectors, and scores (an assistant, Mirzadeh et al. 2020, arXiv
1902.03393), and what the forest knows is asked for rows that it never met: train rows with another row's item, which
both of them score. Networks are artifacts; how they are trained was chosen on validation rows.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from dataclasses import replace
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
from slimrank.runtime.model import sigmoid
from slimrank.tables.embedding import FusedEmbedding, Layout
from slimrank.training.examples import Examples, score
from slimrank.training.teachers import Scores
from slimrank.training.warm_start import start_table

TREES, LEAVES, SEEDS = 500, (31, 255), (1, 2, 3)
CALLS = {1: 1000, 32: 400, 256: 400}  # by rows a call, for the first seed: a forest takes a tenth of a second for 256
STEPS = ({"name": "quantize-tables", "bits": 4}, "quantize-dense")
ASSISTANT = DCNv2(embedding_dim=10, cross_layers=3, hidden=(400, 400, 400), dropout=0.2, batch_norm=True)
ASSISTED = Training(epochs=14, batch_size=4096, learning_rate=3e-3, l2=0.05, l2_of="rows", patience=0, precision="auto")
STUDENT = DNN(embedding_dim=16, hidden=(128, 64))
TRAINING = Training(epochs=15, batch_size=1024, learning_rate=3e-3, l2=0.05, patience=0)
RETRAINING = Training(epochs=6, batch_size=1024, learning_rate=2e-3, l2=0.05, patience=0)
DISTILLATION = Distillation(soft_weight=0.9)
DRAWN = 1  # rows with other items, for every train row
LEAST_IMPORTANCE = 0.001  # of a field that the student reads
CPU = torch.device("cpu")
GOAL = {"auc_drop": 0.0, "times_smaller": 5, "p50_ratio.256": 1.0}  # of each forest


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
    drawn = with_other_items(data, seed=0)
    scores = forest(drawn)
    runs = [_run(data, forest, lessons(data, drawn, scores, each), each, seed) for seed, each in assistants.items()]
    disk = max(run["bytes_on_disk"] for run in runs)
    return {
        "auc": {name: fmean(run["auc"][name] for run in runs) for name in runs[0]["auc"]},
        "auc_drop": fmean(run["auc"]["lightgbm"] - run["auc"]["slim"] for run in runs),
        "bytes": {"lightgbm, its text dump gzipped": dump, "slim": disk},
        "times_smaller": dump / disk,
        "p50_ratio": {size: each["p50_ratio"] for size, each in runs[0]["latency_ms"].items()},
        "runs": runs,
    }


def with_other_items(data: EncodedDataset, seed: int) -> NDArray[np.int32]:
    """The ids [`DRAWN` x N, K] of the train rows, each with the item of another one: as frequent as they are."""
    draw, item = np.random.default_rng(seed), list(data.encoding.sizes).index("item")
    ids = np.concatenate([data.train.inputs.ids] * DRAWN)
    ids[:, item] = ids[draw.permutation(len(ids)), item]
    return ids


def lessons(
    data: EncodedDataset, drawn: NDArray[np.int32], forest: NDArray[np.float32], assistant: Network
) -> tuple[EncodedDataset, Scores]:
    """Train rows and drawn ones, and what is learned of them.

    Train rows have their label and the assistant's score; drawn ones, in the place of both, what the forest and the
    assistant say in the mean.
    """
    rows = data.train
    inputs = Inputs(np.concatenate([rows.inputs.ids, drawn]), np.concatenate([rows.inputs.numbers] * (1 + DRAWN)))
    said = score(assistant, Examples.of(replace(rows, inputs=inputs, label=np.zeros(len(inputs), np.float32)), CPU))
    mean = (forest + said[len(rows.label) :]) / 2
    label = np.concatenate([rows.label, sigmoid(mean)]).astype(np.float32)
    train = replace(rows, inputs=inputs, label=label, group=None)
    return replace(data, train=train), Scores(np.concatenate([said[: len(rows.label)], mean]))


def _student(data: EncodedDataset, assistant: Network, seed: int) -> tuple[Network, tuple[str, ...]]:
    """An untrained student over the fields that matter to the assistant, with what it learned of their ids."""
    layout = Layout.of(data.encoding)
    valid = Examples.of(data.valid, CPU)
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
    learned: tuple[EncodedDataset, Scores],
    assistant: Network,
    seed: int,
) -> dict[str, Any]:
    """The network of a seed: trained on what it is taught, in integers, trained on, exported, judged by test rows."""
    rows, scores = learned
    taught: dict[str, Any] = {"seed": seed, "teachers": [scores], "distillation": DISTILLATION}
    student, kept = _student(data, assistant, seed)
    slimrank.train(student, rows, TRAINING, **taught)
    slim, steps = slimrank.compress(student, STEPS, data, seed=seed)
    slimrank.train(slim, rows, RETRAINING, **taught)
    timed = CALLS if seed == SEEDS[0] else ()
    with tempfile.TemporaryDirectory() as folder:
        for name, model in (("slim", slim), ("assistant", assistant)):
            slimrank.export(model, data.encoding, Path(folder) / name)
        artifacts = {name: runtime.load(Path(folder) / name) for name in ("slim", "assistant")}
        found = {
            part: {
                "lightgbm": forest(rows.inputs.ids),
                **{name: each.score(_read(each, rows.inputs, data)) for name, each in artifacts.items()},
            }
            for part, rows in (("test", data.test), ("valid", data.valid))
        }
        test = found["test"]
        compared = compare(data.test.label, test["lightgbm"], test["slim"], "auc", group=data.test.group)
        return {
            "seed": seed,
            "fields": list(kept),
            "auc": {name: float(auc(data.test.label, each)) for name, each in test.items()},
            "change": {"mean": compared.difference, "low": compared.low, "high": compared.high},
            "valid_auc": {name: float(auc(data.valid.label, each)) for name, each in found["valid"].items()},
            "bytes_on_disk": disk_bytes(Path(folder) / "slim"),
            "latency_ms": {str(size): _latency(forest, artifacts["slim"], data, size) for size in timed},
            "steps": [each["name"] for each in steps],
        }


def _read(artifact: Model, inputs: Inputs, data: EncodedDataset) -> Inputs:
    """The columns that an artifact reads."""
    every = list(data.encoding.sizes)
    return Inputs(
        np.ascontiguousarray(inputs.ids[:, [every.index(name) for name in artifact.encoding.sizes]]), inputs.numbers
    )


def _latency(
    predict: Callable[[NDArray[Any]], Any], artifact: Model, data: EncodedDataset, size: int
) -> dict[str, Any]:
    """Calls of both in turns, each with other rows."""
    rows = data.test.inputs

    def stretch(sample: int) -> Inputs:
        return rows.take(np.arange(sample * size, (sample + 1) * size) % len(rows))

    def forest(sample: int) -> Callable[[], object]:
        columns = stretch(sample).ids.astype(np.int32)
        return lambda: predict(columns)

    def network(sample: int) -> Callable[[], object]:
        own = _read(artifact, stretch(sample), data)
        return lambda: artifact.score(own)

    taken = take_turns({"lightgbm": forest, "slim": network}, CALLS[size])
    found = {name: summary(each / 1e6) for name, each in taken.items()}
    return {**found, "p50_ratio": found["lightgbm"]["p50"] / found["slim"]["p50"]}
