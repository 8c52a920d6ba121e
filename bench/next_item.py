"""A sequence model's slim artifact beside its fp32 teacher: what is found among the whole catalogue, bytes, latency.

Reads the run in a folder, which is made where it is missing. All figures are of artifacts, on test rows. `weights` are
the bytes of all tensors; `kept` is the share of NDCG@10 that the slim one keeps, seed by seed and on average.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from slimrank.artifact import open_artifact, stored_tensors
from slimrank.pipeline.run import run
from slimrank.recipe import read_recipe

METRIC = "ndcg@10"
NAMES = ("teacher", "slim")
GOALS: dict[str, Mapping[str, Any]] = {
    "movielens_1m_checkpoint": {"weights": 130_000, "kept": 0.99},
    "movielens_1m_checkpoint_tuned": {"weights": 70_000, "kept": 0.98},
    "movielens_1m_sasrec": {"teacher_ndcg@10": 0.131, "times_smaller": 8, "kept": 0.99},
    "beauty_sasrec": {"table_times_smaller": 32, "kept": 0.98},
}


def next_item(name: str, folder: Path) -> dict[str, Any]:
    """The figures of the recipe `name`."""
    recipe = read_recipe(Path(__file__).parents[1] / "recipes" / f"{name}.py")
    found = run(recipe, folder)
    artifacts = {each: folder / f"seed-{found['shipped_seed']}" / "artifacts" / each for each in NAMES}
    by_seed = {each: [quality[METRIC] for quality in found[each]["by_seed"]] for each in NAMES}
    tables = {each: table_bytes(path) for each, path in artifacts.items()}
    disk = {each: found[each]["bytes"]["disk"] for each in NAMES}
    return {
        "what": f"slim artifact beside its fp32 teacher, {recipe.name}, all test users, the whole catalogue",
        METRIC: {each: {"mean": found[each]["quality"][METRIC], "by_seed": by_seed[each]} for each in NAMES},
        "quality": {each: found[each]["quality"] for each in NAMES},
        "kept": fmean(slim / teacher for teacher, slim in zip(by_seed["teacher"], by_seed["slim"], strict=True)),
        "bytes_on_disk": disk,
        "times_smaller": disk["teacher"] / disk["slim"],
        "weights": {each: tensor_bytes(path) for each, path in artifacts.items()},
        "item_table": tables,
        "table_times_smaller": tables["teacher"] / tables["slim"],
        "latency_ms": {each: found[each]["latency_ms"] for each in NAMES},
        "comparison": found["comparison"],
        "seeds": found["seeds"],
        "recipe": recipe.model_dump(mode="json"),
        "data_fingerprint": found["data_fingerprint"],
        "goal": GOALS[name],
    }


def tensor_bytes(path: Path) -> int:
    """Bytes of all tensors of an artifact."""
    return sum(tensor["bytes"] for tensor in stored_tensors(open_artifact(path).manifest))


def table_bytes(path: Path) -> int:
    """Bytes of the item table: rows, codes, codebooks, scales."""
    tensors = open_artifact(path).manifest["graph"]["tensors"]
    return sum(tensor["bytes"] for tensor in tensors if "embedding.table." in tensor["name"])
