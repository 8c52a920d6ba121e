"""The verbs in Python, on objects: train, compress, export, evaluate; from a recipe, `run` and `search`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slimrank.compression.steps import Context
from slimrank.compression.steps import compress as apply_steps
from slimrank.config import Config, as_config
from slimrank.data import load_dataset
from slimrank.data.rows import Dataset, EncodedDataset
from slimrank.evaluation.measure import measure
from slimrank.exporting.artifact import export
from slimrank.models.architecture import build_model
from slimrank.models.layers import Ranker
from slimrank.pipeline.run import run
from slimrank.recipe import Recipe
from slimrank.searching.goal import Goal, read_goal
from slimrank.searching.search import Found
from slimrank.searching.search import search as find_recipe
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples, score, training_device
from slimrank.training.loop import KeepZeros, Training, distilled, fit, hard_labels
from slimrank.training.losses import Distillation

__all__ = ["compress", "evaluate", "export", "run", "search", "train"]


def train(
    model: Config | Mapping[str, Any] | str | Ranker,
    data: EncodedDataset,
    training: Training | None = None,
    *,
    seed: int = 0,
    teachers: Sequence[Ranker] = (),
    distillation: Distillation | None = None,
) -> Ranker:
    """Fit a model to the train rows; it keeps the weights that were best on the validation rows.

    Args:
        model: a model to go on with (it is changed; weights that are 0 stay 0), or the config or name of a new one.
        data: encoded rows.
        training: epochs, batch size, learning rate and the like.
        seed: of a new model's weights and of the order of rows.
        teachers: models whose mean logit serves as soft labels.
        distillation: how soft and hard labels are mixed.

    Raises:
        InputError: the model is unknown, or training diverged.
    """
    if not isinstance(model, Ranker):
        model = build_model(as_config("model", model), Layout.of(data.encoding), seed)
    device = training_device()
    model.to(device)
    rows, valid = Examples.of(data.train, device), Examples.of(data.valid, device)
    objective = hard_labels
    if teachers:
        mean = np.mean([score(teacher.to(device), rows) for teacher in teachers], axis=0)
        rows = rows.with_teacher(torch.from_numpy(mean))
        objective = partial(distilled, mix=distillation or Distillation())
    fit(model, rows, valid, training or Training(), seed=seed, objective=objective, hooks=[KeepZeros()])
    return model


def compress(
    model: Ranker, steps: Sequence[Config | Mapping[str, Any] | str], data: EncodedDataset, *, seed: int = 0
) -> tuple[Ranker, list[dict[str, Any]]]:
    """Apply `steps` in order to a copy of `model`; with the copy comes what each step touched, skipped and saved.

    Raises:
        InputError: a step or a setting is unknown or not allowed.
    """
    return apply_steps(model, steps, Context.of(data, seed))


def evaluate(artifacts: Mapping[str, Path | str], dataset: Dataset, split: str = "test") -> dict[str, dict[str, Any]]:
    """Quality, bytes and latency of artifacts, side by side on the rows of one split.

    Raises:
        InputError: an artifact is not sound, or the rows do not fit it.
    """
    paths = {name: Path(path) for name, path in artifacts.items()}
    return {name: found.record for name, found in measure(paths, dataset, split).items()}


def search(
    recipe: Recipe, goal: Goal | str, space: Mapping[str, Sequence[Any]], out: Path | str, data: Path | None = None
) -> Found:
    """Try every combination of `space` on a recipe, and find the one that meets `goal` in the fewest bytes.

    All trials work in the run directory `out` and share its teachers. They are measured on the validation rows: what
    is found has still to be measured on the test rows, by `run`.

    Raises:
        InputError: the goal, a key or a value is not allowed, or a trial fails as `run` does.
    """
    goal = read_goal(goal) if isinstance(goal, str) else goal
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset(recipe.data, data)

    def attempt(candidate: Recipe) -> dict[str, float]:
        run(candidate, folder, data=data, until="export")
        artifacts = folder / f"seed-{candidate.seeds[0]}" / "artifacts"
        found = measure({name: artifacts / name for name in ("teacher", "slim")}, dataset, "valid")
        return figures_of(found["teacher"].record, found["slim"].record)

    return find_recipe(recipe, goal, space, attempt, folder / "search.db", dataset.fingerprint)


def figures_of(teacher: Mapping[str, Any], slim: Mapping[str, Any]) -> dict[str, float]:
    """What a goal may bound, from the records of a teacher and of what was made of it."""
    bytes_of_slim, latency = slim["bytes"], slim["latency_ms"]
    before, after = teacher["quality"], slim["quality"]
    return {
        "auc_drop": before["auc"] - after["auc"],
        **({"gauc_drop": before["gauc"] - after["gauc"]} if "gauc" in before and "gauc" in after else {}),
        "logloss_rise": after["logloss"] - before["logloss"],
        "bytes": bytes_of_slim["disk"],
        "wire_bytes": bytes_of_slim["wire"],
        "resident_bytes": bytes_of_slim["resident"],
        **{f"p50_ms@{rows}": latency[rows]["p50"] for rows in latency},
        **{f"p99_ms@{rows}": latency[rows]["p99"] for rows in latency},
    }
