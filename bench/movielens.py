"""MovieLens-100K: the artifact of the main job (`slimrank run`) beside its fp32 teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.shipped import shipped
from slimrank.recipe import read_recipe

GOAL = {"times_smaller": 20.0, "auc_loss": 0.001, "p50_ratio": {"256": 5.0}}


def movielens(folder: Path, repetitions: int = 5) -> dict[str, Any]:
    """The figures of the run in `folder`, which is made where it is missing (minutes), beside the goal."""
    return {**shipped(read_recipe(None), folder, repetitions), "goal": GOAL}
