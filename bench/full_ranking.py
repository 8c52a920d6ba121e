"""Full-catalogue evaluation of SASRec on MovieLens-1M: 6,040 users, 3,416 items, beside RecBole's own, in one run.

Ours is the artifact of the given checkpoint: histories to vectors by ONNX Runtime, users of like length together, and
all items ranked by counting. RecBole evaluates a SASRec of the same sizes on the same histories and items to find, with
the same number of threads, in an environment of its own (`bench/peers/recbole.sh`); the faster of two sizes of batch
counts. Loading data, and imports, are timed on neither side. What a user met, all of it and not only what the model
reads, is left out in ours; RecBole ranks it too. Ours is measured before and after the peer.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers import in_environment
from slimrank.artifact import open_artifact
from slimrank.config import InputError, as_config
from slimrank.data import load_dataset
from slimrank.data.files import locate
from slimrank.data.ragged import Ragged
from slimrank.data.rows import Dataset, EncodedDataset, Rows, encode_dataset
from slimrank.evaluation.catalogue import Found, find_in_catalogue, product
from slimrank.exporting.artifact import export
from slimrank.models.architecture import build_model
from slimrank.models.checkpoints import load_checkpoint, read_checkpoint
from slimrank.runtime.session import open_session
from slimrank.tables.embedding import Layout

FOLDER, FILE, CHECKPOINT = "ml-1m-sasrec", "interactions.parquet", "sasrec-ep1000.safetensors"
MODEL = {"name": "sasrec", "embedding_dim": 50, "blocks": 2, "heads": 1, "padding_keys": True}
FIRST = 2  # local ids of a sequence's items, after those of padding and out of vocabulary
USERS = 64  # at a time


def full_ranking(threads: int = 2) -> dict[str, Any]:
    """Seconds and metrics of ours, seconds of RecBole's, and the ratio.

    Raises:
        InputError: the data is not there, or the peer's environment is not.
    """
    files = locate(None, [FOLDER], [(FILE, CHECKPOINT)])
    if files is None:
        raise InputError(f"full-ranking needs {FOLDER}/{FILE} and {CHECKPOINT} in SLIMRANK_DATA")
    dataset = load_dataset("movielens-1m-sequences")
    data = encode_dataset(dataset)
    with TemporaryDirectory(prefix="bench-") as folder:
        path = Path(folder) / "artifact"
        write(data, files[1], path)
        met = met_before(dataset, data)
        runs = [evaluated(path, data, met, threads) for _ in range(3)]
        peer = in_environment("recbole", str(files[0]), str(threads))
        runs += [evaluated(path, data, met, threads) for _ in range(3)]
    seconds, processor = (float(np.median([each[key] for each in runs])) for key in ("seconds", "processor_seconds"))
    best = {key: min(each[key] for each in peer["batches"].values()) for key in ("seconds", "processor_seconds")}
    return {
        "what": "evaluation of SASRec on the test items of MovieLens-1M, every user, all items ranked: seconds",
        "users": len(data.test),
        "items": int(data.encoding.sizes["history"]) - FIRST,
        "threads": threads,
        "seconds": seconds,
        "seconds_of_each": [each["seconds"] for each in runs],
        "processor_seconds": processor,
        "metrics": runs[0]["metrics"],
        "recbole": peer,
        "times_faster": best["seconds"] / seconds,
        "times_less_processor_time": best["processor_seconds"] / processor,
    }


def met_before(dataset: Dataset, data: EncodedDataset) -> Ragged:
    """All that each user of the test met before, as places in the catalogue."""
    history = dataset.test["history"]
    places = data.encoding.encode_label(history.explode()) - FIRST
    met = Ragged.of_lengths(places, history.list.len().to_numpy())
    return met.where(met.values >= 0)


def write(data: EncodedDataset, checkpoint: Path, path: Path) -> None:
    """The artifact of the checkpoint's model, in floats."""
    model = build_model(as_config("model", MODEL), Layout.of(data.encoding), seed=0)
    values = data.encoding.codecs["history"].values.to_numpy().astype(np.int64)  # type: ignore[union-attr]
    load_checkpoint(model, read_checkpoint(checkpoint), values)
    export(model, data.encoding, path)


def evaluated(path: Path, data: EncodedDataset, met: Ragged, threads: int) -> dict[str, Any]:
    """One evaluation: what it found, and the time from encoded rows on."""
    session = open_session(open_artifact(path), threads)
    begin, used = time.perf_counter(), time.process_time()
    found = ranked(session, data.test, met, int(data.encoding.sizes["history"]))
    seconds, processor = time.perf_counter() - begin, time.process_time() - used
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "metrics": {name: metric.mean for name, metric in found.metrics.items()},
    }


def ranked(session: Any, test: Rows, met: Ragged, size: int) -> Found:
    """Every item for every row of `test`, but those that it met before."""
    ids = test.inputs.ids
    items = np.arange(FIRST, size, dtype=np.int32)
    (item_vectors,) = session.run(["item_vector"], {"ids": ids[:1], "items": items})
    return find_in_catalogue(product(vectors(session, ids), item_vectors), test.label - FIRST, len(items), met)


def vectors(session: Any, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """A vector for each history; those of like length go together, so that little padding is computed."""
    lengths = np.maximum((ids != 0).sum(axis=1), 1)
    order = np.argsort(lengths, kind="stable")
    parts = []
    for start in range(0, len(ids), USERS):
        rows = order[start : start + USERS]
        feeds = {"ids": ids[rows, : lengths[rows].max()], "items": np.full(1, FIRST, np.int32)}
        parts.append(session.run(["vector"], feeds)[0])
    return np.concatenate(parts)[np.argsort(order)]
