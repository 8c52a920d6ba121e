"""What a search may change in a recipe: settings with their values, and the changes that a choice of them makes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from math import prod
from typing import TYPE_CHECKING, Any

from slimrank.config import InputError, nearest
from slimrank.recipe import Recipe

if TYPE_CHECKING:
    from optuna import Trial

Changes = dict[str, Any]
CHANGEABLE = ("student", "distillation", "steps", "retraining")  # the rest is shared by all trials
LISTED = 64  # combinations up to which all of a user's own space are tried


@dataclass(frozen=True)
class Setting:
    """The values that one setting may take; `ordered` where neighbours are more alike than others."""

    values: tuple[Any, ...]
    ordered: bool = True

    def suggest(self, trial: Trial, name: str) -> Any:
        """The value that the study suggests."""
        if self.ordered:
            return self.values[trial.suggest_int(name, 0, len(self.values) - 1)]
        return self.values[self.words.index(trial.suggest_categorical(name, self.words))]

    def parameter(self, value: Any) -> Any:
        """What stands for `value` in the study."""
        place = self.values.index(value)
        return place if self.ordered else self.words[place]

    @property
    def words(self) -> list[str]:
        """The values as text."""
        return [json.dumps(value) for value in self.values]


@dataclass(frozen=True)
class Space:
    """Settings by name, and what is tried first. As it stands, a setting's name is a dotted key of the recipe."""

    settings: dict[str, Setting]
    starts: tuple[dict[str, Any], ...] = field(default=())

    def changes(self, chosen: Mapping[str, Any]) -> Changes:
        """The dotted keys of a recipe and their new values, for one value of each setting."""
        return dict(chosen)

    def suggest(self, trial: Trial) -> Changes:
        """The changes that the study suggests."""
        return self.changes({name: each.suggest(trial, name) for name, each in self.settings.items()})

    def parameters(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """What stands for a choice in the study."""
        return {name: self.settings[name].parameter(value) for name, value in chosen.items()}

    @property
    def combinations(self) -> int:
        """How many choices there are."""
        return prod(len(each.values) for each in self.settings.values())


def named_space(recipe: Recipe, values: Mapping[str, Sequence[Any]]) -> Space:
    """The space of a user's own dotted keys and values; every combination is tried where they are few.

    Raises:
        InputError: a key is not one of the recipe's, or a value is not allowed there.
    """
    plain: dict[str, list[Any]] = json.loads(json.dumps({key: list(each) for key, each in values.items()}))
    plain = {key: distinct(each) for key, each in plain.items()}
    for key, each in plain.items():
        part = key.split(".")[0]
        if part in Recipe.model_fields and part not in CHANGEABLE:
            raise InputError(f"space: {key!r} is shared by all trials. {nearest(part, CHANGEABLE)}")
        if not each:
            raise InputError(f"space: {key!r} has no values")
        for value in each:
            changed(recipe, {key: value})
    settings = {key: Setting(tuple(each), _rising(each)) for key, each in plain.items()}
    few = prod(map(len, plain.values())) <= LISTED
    starts = [dict(zip(plain, each, strict=True)) for each in product(*plain.values())] if few else []
    return Space(settings, tuple(starts))


def distinct(values: Sequence[Any]) -> list[Any]:
    """Each value once, where it stands first.

    >>> distinct([[4], 8, [4]])
    [[4], 8]
    """
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _rising(values: Sequence[Any]) -> bool:
    """Whether values are numbers that rise."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    return numbers and all(a < b for a, b in pairwise(values))


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
