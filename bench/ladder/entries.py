"""What is tried on each problem, at each rung of its ladder.

Every entry gets the same student, soft labels and retraining as the others of its problem; it differs in what is done
to the tables. Settings were chosen on validation rows (docs/log.md). A rung is a budget for all bytes of the model: the
steps are given what the graph itself leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.ladder.points import RATIOS, Entry, Problem
from slimrank.config import as_config
from slimrank.recipe import Recipe, Student, read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
Steps = Sequence[dict[str, Any] | str]
Stack = Callable[[int], Steps]
"""The steps that make a model of at most so many packed bytes."""


def frappe() -> Problem:
    """The student of `recipes/frappe.py`: from 64x on with half of its neurons, at the end with half of its numbers."""
    return Problem("frappe", read_recipe(RECIPES / "frappe.py"), _frappe_entries)


FRAPPE_GRAPH = 3000  # bytes of nodes, names and constants: what a budget of packed bytes does not count
FRAPPE_STACKS: dict[str, Stack] = {
    "scaled": lambda budget: [{"name": "quantize-tables", "budget": budget}, "quantize-dense"],
    "mixed": lambda budget: ["quantize-dense-later", {"name": "mix-bits", "budget": budget}, "quantize-dense"],
}


def _frappe_entries(teacher_bytes: int) -> list[Entry]:
    base = read_recipe(RECIPES / "frappe.py")
    entries = []
    for times in RATIOS:
        budget = int(teacher_bytes / times) - FRAPPE_GRAPH
        for kind, stack in FRAPPE_STACKS.items():
            entries.append(Entry(kind, times, with_steps(base, stack(budget))))
    return entries


def with_steps(base: Recipe, steps: Steps, student: Student | None = None) -> Recipe:
    """`base` with other steps, and perhaps another student."""
    changes: dict[str, Any] = {"steps": tuple(as_config("step", step) for step in steps)}
    if student is not None:
        changes["student"] = student
    return base.model_copy(update=changes)
