"""From a goal to a recipe: what a search is asked for, and one worker's part of it.

A worker asks the study what to try (TPE of several objectives: Ozaki et al. 2022, JAIR 73), trains it for a growing
share of its epochs as long as it may lead, and tells what it measured. Left out: how a recipe is trained and measured,
which `attempt` does, and on which rows.
"""

from __future__ import annotations

import hashlib
import math
import runpy
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_serializer

from slimrank.config import Config, InputError, read_table
from slimrank.recipe import Recipe, Seed
from slimrank.searching.front import Values
from slimrank.searching.goal import QUALITY, AGoal, Goal, known_figure
from slimrank.searching.halving import at_share, promoted, shares
from slimrank.searching.space import Changes, Space, changed
from slimrank.searching.study import Trial, readable, trials_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

FAR = 2.0  # times the cost of one within the goal: what costs more is no answer, and the front's end is known by then
RECENT = 10  # trials that tell how long one takes
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

    @property
    def timed(self) -> dict[str, tuple[str, str]]:
        """The figures of latency that trials need: key -> quantile and rows, such as ("p99", "256")."""
        parts = {key: key.partition("_ms@") for key in self.measured}
        return {key: (quantile, size) for key, (quantile, at, size) in parts.items() if at}


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
    """One process's part: `attempt(recipe, number, share)` trains and measures; nothing is begun that would end after
    `deadline` (of `time.time`), as far as trials at this `place` tell how long one takes.
    """

    search: Search
    recipe: Recipe
    space: Space
    attempt: Callable[[Recipe, int, float], Attempt]
    place: str = ""
    url: str = "sqlite://"
    deadline: float = math.inf

    def run(self, study: Study) -> None:
        """Try until time, trainings or combinations are spent.

        Raises:
            InputError: the study's database fails, such as on a full disk, or one trial after the other.
        """
        reasons: list[str] = []
        while True:
            with readable(self.url):
                if self.spent(trials_of(study)):
                    return
            ended = self.once(study)
            if ended is not None and "changes" in ended.user_attrs:
                failed = ended.user_attrs.get("reason", "") if ended.state.name == "FAIL" else ""
                reasons = [*reasons, failed] if failed else []
            if len(reasons) == IN_A_ROW:
                raise InputError(f"{IN_A_ROW} trials failed one after the other: {reasons[-1]}")

    def once(self, study: Study) -> FrozenTrial | None:
        """One trial, as it ended; None where another process has ended it meanwhile.

        Raises:
            InputError: the study's database fails, or a file cannot be written.
        """
        from optuna.exceptions import UpdateFinishedTrialError

        ended: list[FrozenTrial] = []
        with readable(self.url):
            try:
                told = [lambda _, trial: ended.append(trial)]
                study.optimize(self._objective, n_trials=1, catch=(InputError,), callbacks=told)
            except UpdateFinishedTrialError:  # taken for dead by another machine, as after a suspended hour
                return None
            except ValueError as error:
                if "Cannot tell" in str(error):
                    return None
                raise
            except OSError as error:
                raise InputError(f"{error.filename or 'a file'}: {error.strerror or error}") from error
        return ended[0] if ended else None

    def spent(self, trials: Sequence[Trial]) -> bool:
        """Whether nothing more is to be begun."""
        own = [trial.seconds for trial in trials if trial.state == "complete" and trial.place == self.place]
        if time.time() + max(own[-RECENT:], default=0.0) > self.deadline:
            return True
        allowed = self.search.trainings
        if allowed is not None and sum(trial.spent or float(trial.state == "running") for trial in trials) >= allowed:
            return True
        tried = {repr(trial.changes) for trial in trials if trial.changes and trial.state != "cut off"}
        return len(tried) >= self.space.combinations

    def _objective(self, trial: Any) -> Values:
        """One trial, share by share of its epochs."""
        from optuna import TrialPruned

        trial.set_user_attr("place", self.place)
        changes = self.space.suggest(trial)
        before = [other for other in trials_of(trial.study) if other.number != trial.number]
        if any(other.changes == changes for other in before if other.state != "cut off"):
            raise Repeated("tried before")
        trial.set_user_attr("changes", changes)
        spent, why = 0.0, ""
        for share in self._shares(trial, changes):
            found = self._measured(trial, changes, share)
            spent += share
            known = {"share": share, "spent": spent, f"at {share:.3f}": found.figures, "figures": found.figures}
            for name, value in known.items():
                trial.set_user_attr(name, value)
            why = self._why_not_on(trial, share) if share < 1.0 else ""
            if why:
                trial.set_user_attr("reason", why)
                break
        for bound in self.search.goal.bounds:  # once, of the last share: a second value would be ignored
            trial.set_constraint(bound.key, bound.excess(found.figures[bound.key]))
        if why:
            raise TrialPruned
        trial.set_user_attr("selection", found.selection)
        return self._values(found.figures)

    def _shares(self, trial: Any, changes: Changes) -> tuple[float, ...]:
        """The shares of its epochs that a trial is trained for, one after the other."""
        if not self.search.halving:
            return (1.0,)
        with _told(trial):
            return shares(changed(self.recipe, changes))

    def _measured(self, trial: Any, changes: Changes, share: float) -> Attempt:
        """What a trial comes to at a share of its epochs."""
        with _told(trial):
            return self.attempt(at_share(changed(self.recipe, changes), share), trial.number, share)

    def _values(self, figures: Mapping[str, float]) -> Values:
        """What the study makes small: the logarithm of a cost, and the loss of quality."""
        return (math.log(figures[self.search.cost]), figures[self.search.loss])

    def _why_not_on(self, trial: Any, share: float) -> str:
        """Why a trial is not trained any further, or nothing if it is."""
        own, key, search = trial.user_attrs[f"at {share:.3f}"], f"at {share:.3f}", self.search
        known = [other.user_attrs for other in trial.study.get_trials(deepcopy=False) if other.number != trial.number]
        others = [attrs[key] for attrs in known if key in attrs]
        ended = [(attrs[key], attrs["figures"]) for attrs in known if key in attrs and attrs.get("share") == 1.0]
        within = [late for _, late in ended if search.goal.met(late)]  # without any, the nearest is what is looked for
        for bound in search.goal.quality if within and len(ended) >= PAIRS else ():
            most = max(early[bound.key] - late[bound.key] for early, late in ended)
            if own[bound.key] - most > bound.limit:
                return f"no trial has gained the {bound.key} that it lacks"
        least = min((late[search.wanted] for late in within), default=math.inf)
        if search.wanted not in QUALITY and own[search.wanted] > FAR * least:
            return f"one within the goal has less than half of its {search.wanted}"
        ranked = [(search.goal.costs.excess(figures), *self._values(figures)) for figures in (*others, own)]
        return "" if promoted(ranked[-1], ranked[:-1]) else "others lead"


@contextmanager
def _told(trial: Any) -> Iterator[None]:
    """Writes down why a trial failed: whatever one recipe comes to, the others may be fine."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        words = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        trial.set_user_attr("reason", words)
        traceback.print_exc()
        raise InputError(words) from error


def sampler_of(search: Search, worker: int, salt: str = "") -> BaseSampler:
    """What suggests trials: TPE over all settings at once, which knows what goes on elsewhere; or chance.

    `salt` tells apart what would otherwise draw the same: another machine, or a search that goes on.
    """
    from optuna.samplers import RandomSampler, TPESampler

    digest = hashlib.sha256(f"{search.seed} {worker} {salt}".encode()).hexdigest()
    seed = int(digest[:8], 16)
    if search.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)
