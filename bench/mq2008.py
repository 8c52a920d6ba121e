"""MQ2008 by `recipes/mq2008.py`: boosted teacher, network from grades, distilled network before and after integers.

Five folds, three seeds. Networks are scored as artifacts, by the runtime; the teacher is LightGBM itself. NDCG@10 has
gains 2**grade - 1, and is the mean over queries that have a relevant document (the others have no order to get right):
LightGBM counts those as 1, LETOR's script as 0. `letor` has LETOR's own figures, which stand beside published ones.
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimrank import runtime
from slimrank.data.rows import Rows
from slimrank.evaluation.cost import disk_bytes, latency
from slimrank.evaluation.student import student_point
from slimrank.metrics.top_k import average_precision, ndcg

GOAL = {"ndcg_drop": 0.005, "bytes_on_disk": 100_000, "p50_ms_100_documents": 0.050}
FOLDS, SEEDS = range(1, 6), (1, 2, 3)
NAMES = ("teacher", "grades", "distilled", "slim")
DOCUMENTS = 100
REPETITIONS = 5


def mq2008(folder: Path) -> dict[str, Any]:
    """Means over folds and seeds; `ndcg_drop` is teacher - slim, with the paired 95% interval over queries."""
    torch.set_num_threads(1)
    train = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "mq2008.py"))["fold"]
    runs = [_run(train, fold, seed, folder) for fold in FOLDS for seed in SEEDS]
    each = {
        name: np.mean([[run["ndcg@10"][name] for run in _of(runs, fold)] for fold in FOLDS], axis=1) for name in NAMES
    }
    drop = fmean(each["teacher"]) - fmean(each["slim"])
    queries = np.concatenate([np.mean([run.pop("drops") for run in _of(runs, fold)], axis=0) for fold in FOLDS])
    room = student_point(len(queries) - 1) * queries.std(ddof=1) / np.sqrt(len(queries))
    return {
        "what": f"MQ2008, {len(FOLDS)} folds, {len(SEEDS)} seeds, test rows; networks as artifacts, one thread",
        "ndcg@10": {name: {"mean": fmean(found), "by_fold": found.tolist()} for name, found in each.items()},
        **{
            metric: {name: fmean(run[metric][name] for run in runs) for name in NAMES}
            for metric in ("map", "letor_ndcg@10", "letor_map")
        },
        "ndcg_drop": drop,
        "ndcg_drop_interval": [float(queries.mean() - room), float(queries.mean() + room)],
        "queries": {
            "with a relevant document": len(queries),
            "all": sum(run["queries"] for run in _of(runs, seed=SEEDS[0])),
        },
        "bytes_on_disk": {name: max(run["bytes_on_disk"][name] for run in runs) for name in NAMES[1:]},
        "p50_ms": {name: median(run["p50_ms"][name] for run in runs) for name in NAMES[1:]},
        "documents_a_query": DOCUMENTS,
        "load_average": os.getloadavg()[0],
        "goal": GOAL,
        "runs": runs,
    }


def _of(runs: Sequence[dict[str, Any]], fold: int | None = None, seed: int | None = None) -> list[dict[str, Any]]:
    return [run for run in runs if fold in (None, run["fold"]) and seed in (None, run["seed"])]


def _run(train: Any, fold: int, seed: int, folder: Path) -> dict[str, Any]:
    """One fold with one seed."""
    rows, scores, artifacts = train(fold, seed, folder)
    by_query = {name: ndcg(rows.label, scores[name], rows.group, 10, gain="exponential") for name in NAMES}
    official = {name: letor(rows, scores[name]) for name in NAMES}
    models = {name: runtime.load(path) for name, path in artifacts.items()}
    inputs = rows.inputs.take(np.arange(20 * DOCUMENTS) % len(rows))
    turns = [latency(models, inputs, (DOCUMENTS,)) for _ in range(REPETITIONS)]
    drops = by_query["teacher"].value - by_query["slim"].value
    return {
        **{"fold": fold, "seed": seed, "queries": len(drops), "drops": drops[~np.isnan(drops)]},
        "ndcg@10": {name: found.mean for name, found in by_query.items()},
        "map": {name: average_precision(rows.label, scores[name], rows.group).mean for name in NAMES},
        "letor_ndcg@10": {name: found["ndcg@10"] for name, found in official.items()},
        "letor_map": {name: found["map"] for name, found in official.items()},
        "bytes_on_disk": {name: disk_bytes(path) for name, path in artifacts.items()},
        "p50_ms": {name: _median_p50(turns, name) for name in models},
    }


def _median_p50(turns: Sequence[Mapping[str, Any]], name: str) -> float:
    return median(turn[name][str(DOCUMENTS)]["p50"] for turn in turns)


def letor(rows: Rows, score: NDArray[Any]) -> dict[str, float]:
    """NDCG@10 and MAP as LETOR 4.0's Eval-Score-4.0.pl counts them, means over all queries.

    A query without a relevant document counts 0, and for NDCG@10 so does one of fewer than 10 documents; the second
    rank is not discounted: 1, 1, 1 / log2(3), ...; ties stay in the order of the file.
    """
    assert rows.group is not None
    discount = np.concatenate([[1.0], 1 / np.log2(np.arange(2, 11))])
    found: dict[str, list[float]] = {"ndcg@10": [], "map": []}
    for query in np.unique(rows.group):
        own = rows.group == query
        grade = rows.label[own][np.argsort(-score[own], kind="stable")]
        hit = grade > 0
        gain, best = (2 ** each[:10] - 1 for each in (grade, np.sort(grade)[::-1]))
        known = len(grade) >= 10 and hit.any()
        found["ndcg@10"].append(float(gain @ discount / (best @ discount)) if known else 0.0)
        precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
        found["map"].append(float(precision[hit].mean()) if hit.any() else 0.0)
    return {name: fmean(values) for name, values in found.items()}
