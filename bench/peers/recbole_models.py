"""Models of RecBole, trained by RecBole on real rows, compressed as they come, and both artifacts measured.

    .venv-recbole/bin/python -m bench.peers.recbole_models MODEL

MODEL is SASRec or BPR, on the MovieLens-100K that RecBole carries in RecBole's own splits (leave one out by time, and
8:1:1 by user), or DeepFM, on Frappe in its published splits. Runs in the environment that `recbole.sh` makes. What is
ranked are all items: for SASRec by `full_sort_predict`, for BPR by pairs without those that training or validation had.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.utils import get_model, get_trainer, init_seed
from torch import nn

import slimrank
from bench.peers.choosing import smallest, ways
from bench.peers.row import Judged, figures, tell
from slimrank.data import load_dataset
from slimrank.data.datasets.frappe import FIELDS
from slimrank.metrics import auc
from slimrank.metrics.top_k import ndcg

CALIBRATION = 40  # batches of training rows
PARTS = ("train", "valid", "test")
COMMON: dict[str, Any] = {"use_gpu": False, "state": "ERROR", "show_progress": False}
LAST_OUT = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}
GIVEN = {"group_by": None, "order": "RO", "mode": "labeled"}
Forward = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class Task:
    """A model of RecBole and what is asked of it.

    Attributes:
        settings: of RecBole, beside its defaults.
        forward: how the model is asked; None for as the adaptor does.
        reads: the fields of a batch that it is asked with; of Frappe all of them.
        metrics: of the test rows; choices are made by the first.
        loss: of that metric, which validation rows may lose.
        tuning: epochs of training after compression, where they lose more.
        narrow: tables of one number a row.
    """

    settings: dict[str, Any]
    forward: Forward | None
    reads: tuple[str, ...]
    metrics: tuple[str, ...]
    loss: float
    tuning: int
    narrow: tuple[str, ...] = ()


def all_items(module: nn.Module, batch: Any) -> torch.Tensor:
    """Scores [N, items] of all items but the padding."""
    scores: torch.Tensor = module.full_sort_predict(batch)[:, 1:]
    return scores


SASREC = {"train_neg_sample_args": None, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2, "eval_args": LAST_OUT}
DEEPFM = {
    "USER_ID_FIELD": "user",
    "ITEM_ID_FIELD": "item",
    "load_col": {"inter": ["label", *FIELDS]},
    "benchmark_filename": list(PARTS),
    "train_neg_sample_args": None,
    "eval_args": GIVEN,
    "metrics": ["AUC", "LogLoss"],
    "valid_metric": "AUC",
    "embedding_size": 16,
}
TASKS = {
    "SASRec": Task(
        {"dataset": "ml-100k", **SASREC, "epochs": 12, "stopping_step": 3, "MAX_ITEM_LIST_LENGTH": 20},
        all_items,
        ("item_id_list", "item_length"),
        ("ndcg@10", "hit_rate@10"),
        0.003,
        3,
    ),
    "BPR": Task(
        {"dataset": "ml-100k", "epochs": 40, "stopping_step": 5},
        None,
        ("user_id", "item_id"),
        ("ndcg@10", "recall@10"),
        0.003,
        3,
    ),
    "DeepFM": Task(
        {"dataset": "frappe", **DEEPFM, "epochs": 20, "stopping_step": 2, "learning_rate": 0.003},
        None,
        FIELDS,
        ("auc", "logloss"),
        0.001,
        3,
        ("first_order_linear.*",),
    ),
}


def write_frappe(parent: Path) -> None:
    """Frappe as RecBole's own files, a split each."""
    folder = parent / "frappe"
    folder.mkdir()
    data = load_dataset("frappe")
    for part in PARTS:
        frame = getattr(data, part).select(["label", *FIELDS])
        head = "\t".join(["label:float", *(f"{name}:token" for name in FIELDS)])
        (folder / f"frappe.{part}.inter").write_text(
            f"{head}\n{frame.write_csv(separator=chr(9), include_header=False)}"
        )


class Made:
    """A model that RecBole has trained, and its data.

    Args:
        name: of the model, one of `TASKS`.
        parent: a directory for data and checkpoints.
        settings: of RecBole, instead of the task's.
    """

    def __init__(self, name: str, parent: Path, **settings: Any):
        self.task = TASKS[name]
        told = {**COMMON, **self.task.settings, **settings, "checkpoint_dir": str(parent / "saved")}
        if told["dataset"] == "frappe":
            write_frappe(parent)
            told["data_path"] = str(parent)
        self.config = Config(model=name, config_dict=told)
        init_seed(self.config["seed"], reproducibility=True)
        self.train, self.valid, self.test = data_preparation(self.config, create_dataset(self.config))
        self.model: nn.Module = get_model(name)(self.config, self.train.dataset)
        self.fit(self.model)

    def fit(self, model: nn.Module, **settings: Any) -> None:
        """Train by RecBole's own loop; the weights are those that were best on validation rows."""
        for name, value in settings.items():
            self.config[name] = value
        trainer = get_trainer(self.config["MODEL_TYPE"], self.config["model"])(self.config, model)
        trainer.fit(self.train, self.valid, saved=True, verbose=False)
        # RecBole reads its checkpoints by `torch.load`, which refuses the configuration in them by default.
        best = torch.load(trainer.saved_model_file, weights_only=False)
        model.load_state_dict(best["state_dict"])
        model.eval()

    def batches(self) -> list[dict[str, torch.Tensor]]:
        """Some batches of training rows: what the model is asked with."""
        return [self.asked(batch) for batch in islice(self.train, CALIBRATION)]

    def asked(self, batch: Interaction) -> dict[str, torch.Tensor]:
        """The fields of a batch that the model is asked with."""
        return {name: batch[name] for name in self.task.reads}

    def judged(self, part: str) -> Judged:
        """The rows of a split as its artifact is asked, labels and groups."""
        loader = getattr(self, part)
        rows: Interaction = loader.dataset.inter_feat
        if self.task.forward is all_items:
            count = self.train.dataset.item_num - 1
            label = rows["item_id"].numpy()[:, None] == np.arange(1, count + 1)
            inputs, user = arrays(self.asked(rows)), np.repeat(np.arange(len(label)), count)
            return Judged(inputs=inputs, label=label.astype(np.int8).ravel(), group=user, metrics=self.task.metrics)
        if self.task.metrics[0] == "auc":
            label = rows["label"].numpy().astype(np.int64)
            inputs, user = arrays(self.asked(rows)), rows["user"].numpy()
            return Judged(inputs=inputs, label=label, group=user, metrics=self.task.metrics, probabilities=True)
        return self.pairs(part)

    def pairs(self, part: str) -> Judged:
        """Every user of a split with every item that the splits before it have not."""
        sizes = self.train.dataset.user_num, self.train.dataset.item_num
        left, wanted = np.ones(sizes, bool), np.zeros(sizes, bool)
        left[0], left[:, 0] = False, False
        for name in PARTS[: PARTS.index(part)]:
            left[places(getattr(self, name))] = False
        wanted[places(getattr(self, part))] = True
        left &= wanted.any(axis=1, keepdims=True)
        user, item = np.nonzero(left)
        inputs = {"user_id": user, "item_id": item}
        return Judged(inputs=inputs, label=wanted[left].astype(np.int8), group=user, metrics=self.task.metrics)

    def metric(self, model: nn.Module) -> float:
        """The first metric on validation rows."""
        rows = self.judged("valid")
        score = np.concatenate([answer(model, batch, self.task.forward) for batch in tensors(rows.inputs)]).ravel()
        if rows.metrics[0] == "auc":
            return float(auc(rows.label, score))
        return float(np.nanmean(ndcg(rows.label, score, rows.group, 10).value))


def arrays(batch: dict[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    """The tensors of a batch as arrays."""
    return {name: value.numpy() for name, value in batch.items()}


def places(loader: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Users and items of the rows of a loader."""
    rows = loader.dataset.inter_feat
    return rows["user_id"].numpy(), rows["item_id"].numpy()


def tensors(inputs: Any, size: int = 1 << 16) -> list[dict[str, torch.Tensor]]:
    """Arrays as batches of tensors."""
    count = len(next(iter(inputs.values())))
    cuts = [slice(start, start + size) for start in range(0, count, size)]
    return [{name: torch.from_numpy(array[cut]) for name, array in inputs.items()} for cut in cuts]


@torch.no_grad()
def answer(model: nn.Module, batch: Any, forward: Forward | None) -> NDArray[Any]:
    """What the model answers to a batch, as an adaptor asks it."""
    asked = Interaction(batch)
    found: torch.Tensor = model.eval().predict(asked) if forward is None else forward(model.eval(), asked)
    return found.numpy()


def main(name: str) -> None:
    """Print the row."""
    # RecBole writes logs to where it is run.
    with tempfile.TemporaryDirectory(prefix="recbole-") as parent, contextlib.chdir(parent):
        made = Made(name, Path(parent))
        task, batches = made.task, made.batches()
        small, records, told = smallest(
            made.model,
            ways(*task.narrow),
            lambda steps: slimrank.compress(made.model, steps, batches, forward=task.forward),
            made.metric,
            loss=task.loss,
            tune=lambda model: made.fit(model, epochs=task.tuning),
        )
        test = made.judged("test")
        rows = {key: array[:1024] for key, array in test.inputs.items()}
        artifacts = {each: Path(parent) / each for each in ("before", "after")}
        (example,) = tensors(rows)
        answers = {}
        for each, model in (("before", made.model), ("after", small)):
            slimrank.export(model, example, artifacts[each], forward=task.forward)
            answers[each] = answer(model, example, task.forward)
        tables = [module.weight for module in made.model.modules() if isinstance(module, nn.Embedding)]
        row = figures(artifacts, answers, rows, test, sum(4 * each.numel() for each in tables), records)
    tell({"recbole": version("recbole"), **row, "choice": told})


if __name__ == "__main__":
    main(sys.argv[1])
