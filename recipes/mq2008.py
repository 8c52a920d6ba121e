"""Learning to rank on MQ2008: boosted trees teach a network of 5 KB. A fold takes a quarter of a minute.

    python recipes/mq2008.py --data DIRECTORY      (the directory that holds mq2008/; needs `pip install lightgbm`)

LightGBM's LambdaRank is hard to beat on raw features, and a network that learns from grades alone falls behind it. So
three of its models teach a small network, list by list (their softmax over the documents of a query); its layers then
become integers, and it learns on. All was chosen on validation rows; docs/log.md says what was tried.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import slimrank
from slimrank import Distillation, Training
from slimrank.data.rows import EncodedDataset, Rows
from slimrank.metrics.top_k import average_precision, ndcg
from slimrank.training.teachers import columns

MODEL = {"name": "dnn", "hidden": (64,)}
HARD = Training(epochs=15, batch_size=600, learning_rate=3e-3, weight_decay=0.01, patience=0)
SOFT = Training(epochs=30, batch_size=600, learning_rate=5e-3, patience=0)
AGAIN = Training(epochs=8, batch_size=600, learning_rate=2e-3, patience=0)
MIX = Distillation(soft_weight=1.0)
TREES = {
    **{"objective": "lambdarank", "label_gain": [0, 1, 3], "lambdarank_truncation_level": 20, "verbose": -1},
    **{"num_leaves": 4, "learning_rate": 0.03, "min_data_in_leaf": 20, "num_threads": 1},
    **{"bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.3},
}
ROUNDS = 200
TEACHERS = 3
Scorer = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def boosted(rows: Rows, seed: int) -> list[Scorer]:
    """What scores encoded columns: LightGBM rankers fitted to the grades of `rows`, which differ by their draws."""
    import lightgbm

    assert rows.group is not None
    order = np.argsort(rows.group, kind="stable")
    sizes = np.unique(rows.group, return_counts=True)[1]
    table = lightgbm.Dataset(columns(rows.inputs)[order], rows.label[order], group=sizes, free_raw_data=False)
    seeds = range(TEACHERS * seed, TEACHERS * (seed + 1))
    return [lightgbm.train({**TREES, "seed": each}, table, ROUNDS).predict for each in seeds]


def networks(data: EncodedDataset, teachers: list[Scorer], seed: int, out: Path) -> dict[str, Path]:
    """Artifacts: a network that learned from grades alone, one that learned from teachers, and that one as integers."""
    hard = slimrank.train(MODEL, data, HARD, seed=seed)
    soft = slimrank.train(MODEL, data, SOFT, seed=seed, teachers=teachers, distillation=MIX)
    slim, _ = slimrank.compress(soft, ["quantize-dense"], data, seed=seed)
    slim = slimrank.train(slim, data, AGAIN, seed=seed, teachers=teachers, distillation=MIX)
    out.mkdir(parents=True, exist_ok=True)
    paths = {name: out / name for name in ("grades", "distilled", "slim")}
    for model, path in zip((hard, soft, slim), paths.values(), strict=True):
        slimrank.export(model, data.encoding, path)
    return paths


def quality(rows: Rows, score: NDArray[Any]) -> dict[str, float]:
    """NDCG@10 with gains 2**grade - 1, and MAP: means over the queries that have a relevant document."""
    of = (rows.label, score, rows.group)
    return {"ndcg@10": ndcg(*of, 10, gain="exponential").mean, "map": average_precision(*of).mean}


def fold(number: int, seed: int, out: Path, data: Path | None = None) -> tuple[Rows, dict[str, Any], dict[str, Path]]:
    """One fold with one seed: its test rows, their scores by teacher and artifacts, and where the artifacts are."""
    encoded = slimrank.encode_dataset(slimrank.load_dataset({"name": "mq2008", "fold": number}, data=data))
    teachers = boosted(encoded.train, seed)
    artifacts = networks(encoded, teachers, seed, out / f"fold-{number}" / f"seed-{seed}")
    scores = {"teacher": np.mean([each(columns(encoded.test.inputs)) for each in teachers], axis=0)}
    scores |= {name: slimrank.load(path).score(encoded.test.inputs) for name, path in artifacts.items()}
    return encoded.test, scores, artifacts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the directory that holds mq2008/")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folds = [fold(number, options.seed, Path("runs/mq2008"), options.data)[:2] for number in range(1, 6)]
    for name in folds[0][1]:
        found = [quality(rows, scores[name]) for rows, scores in folds]
        print(f"{name}:", ", ".join(f"{key} {fmean(each[key] for each in found):.4f}" for key in found[0]))
