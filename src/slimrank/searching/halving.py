"""Successive halving with several objectives: a trial trains for a share of its epochs, and goes on if it may lead.

Asynchronous, as ASHA (Li et al. 2020, arXiv 1810.05934), with Pareto ranks in the place of one figure, as MO-ASHA
(Schmucker et al. 2021, arXiv 2106.12639). Each share is a training of its own with a whole schedule of learning rates:
half way through a schedule a model is no measure of what it would end as.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from slimrank.recipe import Recipe
from slimrank.searching.front import Values, ranks

SHARES = (1 / 9, 1 / 3, 1.0)
KEPT = 1 / 3
LEAST = 3  # trials that have to be there before one of them is stopped


def shares(recipe: Recipe) -> tuple[float, ...]:
    """The shares of its epochs for which a recipe is trained; 1 alone where nothing is trained but the teacher."""
    trained = recipe.student is not None or recipe.retraining is not None
    different = {at_share(recipe, share).model_dump_json(): share for share in SHARES} if trained else {}
    return tuple(sorted(different.values())) or (1.0,)


def at_share(recipe: Recipe, share: float) -> Recipe:
    """The recipe with that share of the epochs of its student and its retraining, each at least one."""
    if share == 1.0:
        return recipe
    record = recipe.model_dump(mode="json")
    for part in filter(None, (record["retraining"], (record["student"] or {}).get("training"))):
        part["epochs"] = ceil(part["epochs"] * share)
    return Recipe.parse(record, "recipe")


def promoted(own: Values, others: Sequence[Values]) -> bool:
    """Whether a trial goes on: it is on the front of all that got as far, or in their best third by rank."""
    if len(others) < LEAST:
        return True
    *before, last = ranks([*others, own])
    return last == 0 or sum(rank < last for rank in before) < KEPT * (len(others) + 1)
