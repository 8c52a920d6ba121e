"""What is left when a search has ended: the front, which trial is shipped, and what would have to give."""

from __future__ import annotations

from collections.abc import Sequence

from slimrank.recipe import Recipe
from slimrank.searching.front import front
from slimrank.searching.goal import Bound, Goal
from slimrank.searching.search import Search
from slimrank.searching.space import changed
from slimrank.searching.study import Trial


def front_of(trials: Sequence[Trial], search: Search) -> list[Trial]:
    """The complete trials that no other beats in both cost and quality, on search rows, from small to large."""
    complete = [trial for trial in trials if trial.state == "complete"]
    places = front([(trial.figures[search.cost], trial.figures[search.loss]) for trial in complete])
    return [complete[place] for place in places]


def order_of_choice(trials: Sequence[Trial], search: Search) -> list[Trial]:
    """Complete trials, the one to be shipped first.

    First those within the goal on search and on selection rows: those whose quality the latter prove to be within it,
    then the others, both from the least of what is wanted small. Then those that are off, by how far.
    Costs are those of search rows: they are the same on others.
    """
    complete = [trial for trial in trials if trial.state == "complete"]

    def key(trial: Trial) -> tuple[float, ...]:
        selected = {**trial.figures, **trial.selection["figures"]}
        off = search.goal.excess(trial.figures) + search.goal.excess(selected)
        if off > 0:
            return (2, off, selected[search.wanted])
        proven = all(trial.selection["proven"].get(bound.key, False) for bound in search.goal.quality)
        return (0 if proven else 1, selected[search.wanted], selected[search.loss])

    return sorted(complete, key=key)


def concessions(trials: Sequence[Trial], search: Search) -> list[tuple[Bound, Trial, float]]:
    """What would have to give: for each bound the trial that meets all others and comes nearest, and its value.

    A loss of quality is the worse one of search and selection rows. Bounds that some trial meets beside all others are
    left out.
    """
    complete = [(trial, worst(trial)) for trial in trials if trial.state == "complete"]
    found = []
    for bound in search.goal.bounds:
        others = Goal(bounds=tuple(other for other in search.goal.bounds if other != bound))
        able = [(figures[bound.key], trial.number, trial) for trial, figures in complete if others.met(figures)]
        if able and min(able)[0] > bound.limit:
            found.append((bound, min(able)[2], min(able)[0]))
    return found


def worst(trial: Trial) -> dict[str, float]:
    """A complete trial's figures, losses the worse ones of search and selection rows."""
    selected = trial.selection["figures"]
    return {key: max(value, selected.get(key, value)) for key, value in trial.figures.items()}


def recipe_of(trial: Trial, recipe: Recipe) -> Recipe:
    """The recipe that a trial tried, whole."""
    return changed(recipe, trial.changes)
