"""The peer's side of full ranking: RecBole's SASRec and RecBole's own evaluation of it on the test items of ML-1M.

Runs in the environment that `recbole.sh` makes:

    .venv-recbole/bin/python -m bench.peers.recbole INTERACTIONS.parquet THREADS

The model has the sizes of ours and is not trained: what is timed is `Trainer.evaluate`, whose work does not hang on
the weights. Histories are written as RecBole's own files of prepared sequences (`benchmark_filename`), so that it does
not cut every prefix of every history for a training that is not done. RecBole ranks what a user met already as well,
which spares it work. Batches are RecBole's default and a smaller one; prints one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

LENGTH, BATCHES = 200, (256, 4096)
SIZES = {"hidden_size": 50, "inner_size": 50, "n_layers": 2, "n_heads": 1, "hidden_act": "relu"}
HEAD = "user_id:token\titem_id_list:token_seq\titem_id:token"
CONFIG: dict[str, Any] = {
    **SIZES,
    "loss_type": "CE",
    "train_neg_sample_args": None,
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
    "alias_of_item_id": ["item_id_list"],
    "benchmark_filename": ["train", "valid", "test"],
    "MAX_ITEM_LIST_LENGTH": LENGTH,
    "eval_args": {"group_by": None, "order": "TO", "mode": "full"},
    "metrics": ["NDCG", "Recall", "MRR"],
    "topk": [10, 20],
    "use_gpu": False,
    "state": "ERROR",
    "show_progress": False,
}


def rows(items: list[int], split: str) -> Iterator[tuple[list[int], int]]:
    """The histories and items to find of one user: test the last, valid the one before, train a cut of the rest."""
    if split != "train":
        end = len(items) - (1 if split == "test" else 2)
        yield items[max(0, end - LENGTH) : end], items[end]
        return
    for end in range(len(items) - 3, 0, -LENGTH):  # every item stands in one of them, so that all have an id
        yield items[max(0, end - LENGTH) : end], items[end]


def write_files(frame: pl.DataFrame, folder: Path) -> None:
    """RecBole's files of prepared sequences."""
    users = frame.group_by("user", maintain_order=True).agg("item").rows()
    for split in CONFIG["benchmark_filename"]:
        lines = [
            f"{user}\t{' '.join(map(str, history))}\t{item}"
            for user, items in users
            for history, item in rows(items, split)
        ]
        (folder / f"{folder.name}.{split}.inter").write_text("\n".join([HEAD, *lines]) + "\n")


def evaluated(parent: Path, batch: int) -> dict[str, Any]:
    """Seconds of one evaluation on test, `batch` users at a time, and what was ranked."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    told = {**CONFIG, "data_path": str(parent), "eval_batch_size": batch, "checkpoint_dir": str(parent / "saved")}
    config = Config(model="SASRec", dataset="ml-1m", config_dict=told)
    init_seed(config["seed"], reproducibility=True)
    train, _, test = data_preparation(config, create_dataset(config))
    model = get_model("SASRec")(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
    begin, used = time.perf_counter(), time.process_time()
    found = trainer.evaluate(test, load_best_model=False)
    seconds, processor = time.perf_counter() - begin, time.process_time() - used
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "users": len(test.dataset),
        "items": train.dataset.item_num - 1,
        "ndcg@10": float(found["ndcg@10"]),
    }


def main() -> None:
    """Evaluate once with each size of batch and print what came of it."""
    from importlib.metadata import version

    import torch

    path, threads = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    torch.set_num_threads(threads)
    # RecBole writes logs to where it is run.
    with tempfile.TemporaryDirectory(prefix="recbole-") as parent, contextlib.chdir(parent):
        folder = Path(parent) / "ml-1m"
        folder.mkdir()
        write_files(pl.read_parquet(path), folder)
        batches = {str(batch): evaluated(Path(parent), batch) for batch in BATCHES}
    versions = {name: version(name) for name in ("recbole", "torch", "numpy")}
    print(json.dumps({"batches": batches, "threads": threads, "versions": versions}))


if __name__ == "__main__":
    main()
