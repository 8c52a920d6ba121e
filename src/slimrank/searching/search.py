"""Every combination of a few settings, tried on validation rows, and the one that meets a goal in the fewest bytes.

The trials are an Optuna study on SQLite, so that a search that was killed goes on with the trials it had. Left out,
and to come: settings too many to try all, sensitivity first, several workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from slimrank import __version__
from slimrank.config import InputError, nearest
from slimrank.recipe import Recipe
from slimrank.searching.goal import Goal

Space = Mapping[str, Sequence[Any]]
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried: what was changed in it, and what was measured of it on validation rows."""

    changes: dict[str, Any]
    figures: dict[str, float]


@dataclass(frozen=True)
class Found:
    """What a search ends with: the recipe nearest to the goal, whether it meets it, and all trials."""

    recipe: Recipe
    met: bool
    best: Trial
    trials: tuple[Trial, ...]


def search(
    recipe: Recipe, goal: Goal, space: Space, attempt: Callable[[Recipe], Figures], study: Path, fingerprint: str = ""
) -> Found:
    """Try every combination of `space` (dotted keys of the recipe, and the values each may take).

    Args:
        recipe: what the changes are made to.
        goal: among trials that meet it the one of the fewest bytes is best; if none does, the one nearest to it.
        space: for example {"steps.0.bits": [2, 4, 8]}.
        attempt: runs a recipe and measures it on validation rows.
        study: a SQLite file; a study of the same recipe, space and data that is there goes on.
        fingerprint: of the data.

    Raises:
        InputError: a key is not one of the recipe's, or a value is not allowed there.
    """
    for key, values in space.items():
        for value in values:
            changed(recipe, {key: value})
    space = json.loads(json.dumps({key: list(values) for key, values in space.items()}))  # as the study keeps them
    ongoing = _study(study, recipe, space, fingerprint)
    known = [trial.user_attrs["changes"] for trial in ongoing.trials]
    for combination in product(*space.values()):
        changes = dict(zip(space, combination, strict=True))
        if changes not in known:
            figures = dict(attempt(changed(recipe, changes)))
            _note(ongoing, space, Trial(changes, figures), goal.excess(figures))
    trials = tuple(Trial(trial.user_attrs["changes"], trial.user_attrs["figures"]) for trial in ongoing.trials)
    best = min(trials, key=lambda trial: (goal.excess(trial.figures), trial.figures["bytes"]))
    return Found(changed(recipe, best.changes), goal.met(best.figures), best, trials)


def _study(path: Path, recipe: Recipe, space: Space, fingerprint: str) -> Any:
    """The Optuna study of this recipe, space and data, new or gone on with; a trial is in it when it is done."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    text = json.dumps([__version__, fingerprint, recipe.model_dump(mode="json"), space])
    name = f"{recipe.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return optuna.create_study(study_name=name, storage=f"sqlite:///{path}", load_if_exists=True)


def _note(study: Any, space: Space, trial: Trial, excess: float) -> None:
    """Add a trial that is done to the study."""
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import create_trial

    done = create_trial(
        params={key: json.dumps(value) for key, value in trial.changes.items()},
        distributions={key: CategoricalDistribution([json.dumps(value) for value in space[key]]) for key in space},
        value=excess,
        user_attrs={"changes": trial.changes, "figures": trial.figures},
    )
    study.add_trial(done)


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with the values at some dotted keys replaced; a number in a key is a place in a list.

    Raises:
        InputError: there is no such key, or the value is not allowed there.
    """
    record = recipe.model_dump(mode="json")
    for key, value in changes.items():
        *path, last = key.split(".")
        place: Any = record
        for part in path:
            place = _inside(place, part, key)
        _inside(place, last, key)
        place[int(last) if isinstance(place, list) else last] = value
    return Recipe.parse(record, "recipe")


def _inside(place: Any, part: str, key: str) -> Any:
    """What stands at `part` of a list or a mapping."""
    known = [str(number) for number in range(len(place))] if isinstance(place, list) else list(place or ())
    if part not in known:
        raise InputError(f"the recipe has no key {key!r}: no {part!r} there. {nearest(part, known)}")
    return place[int(part)] if isinstance(place, list) else place[part]
