"""From a goal to a recipe: one worker's part of a search, and what is left when all have ended.

A worker asks the study what to try (TPE of several objectives: Ozaki et al. 2022, JAIR 73), trains it for a growing
share of its epochs as long as it may lead, and tells what it measured. Left out: how a recipe is trained and measured,
which `attempt` does, and on which rows.
"""

from __future__ import annotations

import math
import runpy
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_serializer

from slimrank.config import Config, InputError, read_table
from slimrank.recipe import Recipe, Seed
from slimrank.searching.front import Values, front
from slimrank.searching.goal import QUALITY, AGoal, Bound, Goal, known_figure
from slimrank.searching.halving import at_share, promoted, shares
from slimrank.searching.space import Changes, Space, changed
from slimrank.searching.study import Trial, readable, trials_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler

FAR = 2.0  # times the cost of one within the goal: what costs more is no answer, and the front's end is known by then
IN_A_ROW = 10  # trials that fail one after the other: it is not their recipes
PAIRS = 5  # trials that went to the end before their gains say what others may still gain


class Search(Config):
    """What is looked for, and what it may cost.

    `goal` is text, such as "auc_drop <= 0.001, bytes <= 64 KB". Of all models within it the one with the least of
    `minimise` is wanted; if that is not said, of bytes, or of the loss of AUC where the goal bounds no loss. The search
    ends after `minutes`, or when as many whole `trainings` are spent (a trial that was stopped early counts as the
    share that it trained), or when all of a user's own `space` of dotted keys and values is tried. `workers` are
    processes; 0: one a core.
    The sampler `random` draws from the space and knows no good places to begin at: what a search is compared with.
    `storage` is the URL of the study's database, SQLite in the run's directory if empty, and `study` its name there,
    the recipe's if empty.
    """

    goal: AGoal
    minimise: Annotated[str | None, AfterValidator(lambda key: key and known_figure(key))] = None
    minutes: float = Field(default=30.0, gt=0)
    trainings: float | None = Field(default=None, gt=0)
    workers: int = Field(default=0, ge=0)
    space: dict[str, list[Any]] = Field(default_factory=dict)
    storage: str = ""
    study: str = ""
    seed: Seed = 0
    sampler: Literal["tpe", "random"] = "tpe"
    halving: bool = True

    @field_serializer("goal")
    def _as_text(self, goal: Goal) -> str:
        return str(goal)

    @property
    def loss(self) -> str:
        """The loss of quality on the front: the first that the goal bounds, else AUC's."""
        return next((bound.key for bound in self.goal.bounds if bound.of_quality), QUALITY[0])

    @property
    def wanted(self) -> str:
        """The figure that is wanted small within the goal."""
        return self.minimise or ("bytes" if self.goal.quality else self.loss)

    @property
    def cost(self) -> str:
        """The cost on the front: what is wanted small, or where that is a loss, what the goal bounds first."""
        costs = [self.wanted, *(bound.key for bound in self.goal.bounds), "bytes"]
        return next(key for key in costs if key not in QUALITY)

    @property
    def measured(self) -> tuple[str, ...]:
        """The figures that trials need."""
        return tuple(
            dict.fromkeys((*(bound.key for bound in self.goal.bounds), self.wanted, self.cost, self.loss, "bytes"))
        )


def read_search(source: Path | str | None, **changes: Any) -> Search:
    """The search that the table `search` of a TOML or JSON recipe, or the variable `search` of a Python one, asks for.

    Args:
        source: the recipe's file, or None.
        changes: keys that are said elsewhere, such as on the command line; those that are None are not.

    Raises:
        InputError: no goal is given anywhere, or a key or value is not allowed.
    """
    said = {key: value for key, value in changes.items() if value is not None}
    found: Any = {}
    path = Path(source or "")
    if path.suffix in (".toml", ".json"):
        found = read_table(path).get("search", {})
    elif path.suffix == ".py" and path.is_file():
        found = runpy.run_path(str(path)).get("search", {})
    where = f"{path}: search" if found else "search"
    if isinstance(found, Search):
        found = found.model_dump()
    if not isinstance(found, Mapping):
        raise InputError(f"{where}: got {found!r}, allowed a table with a goal")
    if "goal" not in {**found, **said}:
        raise InputError(f"{where}: no goal; give one as --goal 'auc_drop <= 0.001, bytes <= 64 KB'")
    return Search.parse({**found, **said}, where)


@dataclass(frozen=True)
class Attempt:
    """What one training came to: figures of search rows, and of selection rows, which no trial is led by."""

    figures: dict[str, float]
    selection: dict[str, Any] = field(default_factory=dict)


class Repeated(InputError):
    """The study suggested what was tried before."""


@dataclass(frozen=True)
class Worker:
    """One process's part: `attempt(recipe, number, share)` trains and measures until `deadline` (of `time.time`)."""

    search: Search
    recipe: Recipe
    space: Space
    attempt: Callable[[Recipe, int, float], Attempt]
    place: str = ""
    url: str = "memory"
    deadline: float = math.inf

    def run(self, study: Study) -> None:
        """Try until time, trainings or combinations are spent.

        Raises:
            InputError: the study's database fails, such as on a full disk, or one trial after the other.
        """
        while not self.spent(found := trials_of(study)):
            own = [trial for trial in found if trial.place == self.place and trial.changes][-IN_A_ROW:]
            if len(own) == IN_A_ROW and all(trial.state == "failed" and trial.reason for trial in own):
                raise InputError(f"{IN_A_ROW} trials failed one after the other: {own[-1].reason}")
            self.once(study)

    def once(self, study: Study) -> None:
        """One trial.

        Raises:
            InputError: the study's database fails, such as on a full disk.
        """
        with readable(self.url):
            study.optimize(self._objective, n_trials=1, catch=(InputError,))

    def spent(self, trials: Sequence[Trial]) -> bool:
        """Whether nothing more is to be begun."""
        longest = max((trial.seconds for trial in trials if trial.state == "complete"), default=0.0)
        if time.time() + longest > self.deadline:
            return True
        allowed = self.search.trainings
        if allowed is not None and sum(trial.spent or float(trial.state == "running") for trial in trials) >= allowed:
            return True
        tried = {repr(trial.changes) for trial in trials if trial.changes}
        return len(tried) >= self.space.combinations

    def _objective(self, trial: Any) -> Values:
        """One trial, share by share of its epochs."""
        from optuna import TrialPruned

        trial.set_user_attr("place", self.place)
        changes = self.space.suggest(trial)
        before = trials_of(trial.study)
        if any(other.changes == changes for other in before if other.number != trial.number):
            raise Repeated("tried before")
        trial.set_user_attr("changes", changes)
        recipe = changed(self.recipe, changes)
        steps = shares(recipe) if self.search.halving else (1.0,)
        spent = 0.0
        for share in steps:
            try:
                found = self.attempt(at_share(recipe, share), trial.number, share)
            except OSError:
                raise
            except Exception as error:  # whatever one recipe comes to, the others may be fine
                words = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
                trial.set_user_attr("reason", words)
                traceback.print_exc()
                raise InputError(words) from error
            spent += share
            for name, value in (("share", share), ("spent", spent), (f"at {share:.3f}", found.figures)):
                trial.set_user_attr(name, value)
            trial.set_user_attr("figures", found.figures)
            if share < 1.0 and not self._may_lead(trial, share):
                trial.set_user_attr("reason", "others lead")
                break
        for bound in self.search.goal.bounds:  # once, of the last share: a second value would be ignored
            trial.set_constraint(bound.key, bound.excess(found.figures[bound.key]))
        if share < 1.0:
            raise TrialPruned
        trial.set_user_attr("selection", found.selection)
        return self._values(found.figures)

    def _values(self, figures: Mapping[str, float]) -> Values:
        """What the study makes small: the logarithm of a cost, and the loss of quality."""
        return (math.log(figures[self.search.cost]), figures[self.search.loss])

    def _may_lead(self, trial: Any, share: float) -> bool:
        """Whether a trial may still meet the goal, and is among the best of those that were trained for that share."""
        own, key = trial.user_attrs[f"at {share:.3f}"], f"at {share:.3f}"
        known = [other.user_attrs for other in trial.study.get_trials(deepcopy=False) if other.number != trial.number]
        others = [attrs[key] for attrs in known if key in attrs]
        ended = [(attrs[key], attrs["figures"]) for attrs in known if key in attrs and attrs.get("share") == 1.0]
        met = any(self.search.goal.met(late) for _, late in ended)  # else the nearest is what is looked for
        for bound in self.search.goal.quality if met and len(ended) >= PAIRS else ():
            most = max(early[bound.key] - late[bound.key] for early, late in ended)
            if own[bound.key] - most > bound.limit:
                return False
        wanted = self.search.wanted
        least = min((late[wanted] for _, late in ended if self.search.goal.met(late)), default=math.inf)
        if wanted not in QUALITY and own[wanted] > FAR * least:
            return False
        ranked = [(self.search.goal.costs.excess(figures), *self._values(figures)) for figures in (*others, own)]
        return promoted(ranked[-1], ranked[:-1])


def sampler_of(search: Search, worker: int) -> BaseSampler:
    """What suggests trials: TPE over all settings at once, which knows what goes on elsewhere; or chance."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = (search.seed * 1000 + worker) % 2**32
    if search.sampler == "random":
        return RandomSampler(seed=seed)

    return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def front_of(trials: Sequence[Trial], search: Search) -> list[Trial]:
    """The complete trials that no other beats in both cost and quality, on search rows, from small to large."""
    complete = [trial for trial in trials if trial.state == "complete"]
    places = front([(trial.figures[search.cost], trial.figures[search.loss]) for trial in complete])
    return [complete[place] for place in places]


def order_of_choice(trials: Sequence[Trial], search: Search) -> list[Trial]:
    """Complete trials, the one to be shipped first.

    First those whose quality selection rows prove to be within the goal, then those whose quality is within it on
    search and on selection rows, both from the least of what is made small; then the others by how far they are off.
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


def concessions(trials: Sequence[Trial], search: Search) -> list[tuple[Bound, Trial]]:
    """For each bound the trial that meets all others and is nearest to it: what would have to give, one at a time."""
    found = []
    for bound in search.goal.bounds:
        others = Goal(bounds=tuple(other for other in search.goal.bounds if other != bound))
        able = [trial for trial in trials if trial.state == "complete" and others.met(trial.figures)]
        if able:
            found.append((bound, min(able, key=lambda trial: trial.figures[bound.key])))
    return found


def recipe_of(trial: Trial, recipe: Recipe) -> Recipe:
    """The recipe that a trial tried, whole."""
    changes: Changes = trial.changes
    return changed(recipe, changes)
