"""Full-catalogue evaluation of SASRec on MovieLens-1M: 6,040 users, 3,416 items, beside RecBole's own, in one run.

Ours is the artifact of the given checkpoint, from raw rows to metrics. RecBole evaluates a SASRec of the same sizes on
the same histories and items to find, with as many threads, in an environment of its own (`bench/peers/recbole.sh`); the
faster of two sizes of batch counts. Loading, and imports, are timed on neither side. What a user met, all of it and not
only what the model reads, is left out in ours; RecBole ranks it too. Ours is measured before and after the peer.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.peers import in_environment
from slimrank.config import InputError, as_config
from slimrank.data import load_dataset
from slimrank.data.files import locate
from slimrank.data.rows import Dataset, encode_dataset
from slimrank.evaluation.finding import find_items
from slimrank.exporting.artifact import export
from slimrank.models.architecture import build_model
from slimrank.models.checkpoints import load_checkpoint, read_checkpoint
from slimrank.runtime import load_retriever
from slimrank.tables.embedding import Layout

FOLDER, FILE, CHECKPOINT = "ml-1m-sasrec", "interactions.parquet", "sasrec-ep1000.safetensors"
MODEL = {"name": "sasrec", "embedding_dim": 50, "blocks": 2, "heads": 1, "padding_keys": True}
TIMES = 3


def full_ranking(threads: int = 2) -> dict[str, Any]:
    """Seconds and metrics of ours, seconds of RecBole's, and the ratio.

    Raises:
        InputError: the data is not there, or the peer's environment is not.
    """
    files = locate(None, [FOLDER], [(FILE, CHECKPOINT)])
    if files is None:
        raise InputError(f"full-ranking needs {FOLDER}/{FILE} and {CHECKPOINT} in SLIMRANK_DATA")
    dataset = load_dataset("movielens-1m-sequences")
    with TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "artifact"
        write(dataset, files[1], path)
        runs = [evaluated(path, dataset, threads) for _ in range(TIMES)]
        peer = in_environment("recbole", str(files[0].resolve()), str(threads))
        runs += [evaluated(path, dataset, threads) for _ in range(TIMES)]
    seconds, processor = (float(np.median([each[key] for each in runs])) for key in ("seconds", "processor_seconds"))
    best = {key: min(each[key] for each in peer["batches"].values()) for key in ("seconds", "processor_seconds")}
    return {
        "what": "evaluation of SASRec on the test items of MovieLens-1M, every user, all items ranked: seconds",
        "users": len(dataset.test),
        "threads": threads,
        "seconds": seconds,
        "seconds_of_each": [each["seconds"] for each in runs],
        "processor_seconds": processor,
        "metrics": runs[0]["metrics"],
        "recbole": peer,
        "times_faster": best["seconds"] / seconds,
        "times_less_processor_time": best["processor_seconds"] / processor,
    }


def write(dataset: Dataset, checkpoint: Path, path: Path) -> None:
    """The artifact of the checkpoint's model, in floats."""
    encoding = encode_dataset(dataset).encoding
    model = build_model(as_config("model", MODEL), Layout.of(encoding), seed=0)
    values = encoding.codecs["history"].values.to_numpy().astype(np.int64)  # type: ignore[union-attr]
    load_checkpoint(model, read_checkpoint(checkpoint), values)
    export(model, encoding, path)


def evaluated(path: Path, dataset: Dataset, threads: int) -> dict[str, Any]:
    """One evaluation of the artifact, which is open already: what it found, and the time."""
    model = load_retriever(path, threads=threads)
    begin, used = time.perf_counter(), time.process_time()
    found = find_items(model, dataset.test, dataset.schema)
    seconds, processor = time.perf_counter() - begin, time.process_time() - used
    metrics = {name: metric.mean for name, metric in found.metrics.items()}
    return {"seconds": seconds, "processor_seconds": processor, "metrics": metrics}
