"""Frappe: the artifact of `recipes/frappe.py` beside its fp32 teacher, and beside its lookups alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.shipped import shipped
from slimrank.recipe import read_recipe

GOAL = {
    "teacher_auc": 0.9830,
    "slim_auc": 0.9840,
    "slim_bytes_on_disk": 64_000,
    "p50_ratio": {"1": 3.0, "256": 10.0},
}


def frappe(folder: Path, repetitions: int = 5) -> dict[str, Any]:
    """The figures of the run in `folder`, which is made where it is missing (minutes), beside the goal."""
    recipe = read_recipe(Path(__file__).parents[1] / "recipes" / "frappe.py")
    return {**shipped(recipe, folder, repetitions), "goal": GOAL}
