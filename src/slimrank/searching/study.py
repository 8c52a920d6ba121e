"""The Optuna study behind a search: opened, checked to be of the same search, and read as plain trials.

SQLite by default, another database by its URL. Nothing of a trial is lost but the one in flight when a process is
killed: each figure is written when it is known, and a trial that a dead process left waits to be tried again.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimrank import __version__
from slimrank.config import InputError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage

HEARTBEAT, GRACE = 20, 90  # seconds: a process that has not been heard of for so long is dead
WAIT = 60  # seconds that a writer waits for another one's lock on SQLite
IDENTITY = "identity"
OBJECTIVES = 2  # a cost, and the loss of quality


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried.

    `changes`: dotted keys and values. `state`: complete, stopped (not worth a whole training), failed, cut off (by the
    end of its process), running. `figures`: of search rows, at the last share of the epochs that it was trained for,
    `share`. `selection`: of selection rows, of complete ones. `spent`: trainings, a part of one as its share. `reason`:
    why it was stopped or failed. `place`: whose directory holds its artifact.
    """

    number: int
    state: str
    changes: dict[str, Any]
    figures: dict[str, float]
    selection: dict[str, Any] = field(default_factory=dict)
    share: float = 0.0
    spent: float = 0.0
    seconds: float = 0.0
    reason: str = ""
    place: str = ""


def sqlite(path: Path) -> str:
    """The URL of an SQLite file, whatever letters its path has."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path.resolve())).render_as_string()


def shown(url: str) -> str:
    """A database's URL without its password."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def open_study(url: str, name: str, identity: Mapping[str, Any], *, create: bool, sampler: Any = None) -> Study:
    """The study of that name, new or gone on with.

    Args:
        url: of the database.
        name: of the study.
        identity: what has to be the same for trials to be comparable: recipe, goal, space, data.
        create: whether it may be new.
        sampler: suggests what to try.

    Raises:
        InputError: the study there is of another search or version of slimrank, or the database cannot be used.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    described = json.loads(json.dumps({"slimrank": __version__, **identity}))
    with readable(url):
        storage = _storage(url)
        if create:
            optuna.create_study(
                study_name=name, storage=storage, directions=["minimize"] * OBJECTIVES, load_if_exists=True
            )
        try:
            study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)
        except KeyError:
            raise InputError(f"study in {shown(url)}: there is none called {name!r}") from None
        known = study.user_attrs.get(IDENTITY)
        empty = not study.get_trials(deepcopy=False) and len(study.directions) == OBJECTIVES
        if known is None and create and empty:
            study.set_user_attr(IDENTITY, described)
            known = described
    if known is None:
        raise InputError(f"study {name!r} in {shown(url)} was not made by slimrank; name another with --study")
    _compare(known, described, f"study {name!r} in {shown(url)}")
    return study


def _storage(url: str) -> RDBStorage:
    """The database, its tables made where there are none; tried once more, as another machine may make them just now.

    Raises:
        InputError: its tables are of another optuna.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    for last in (False, True):
        try:
            return RDBStorage(
                url.replace("{", "{{").replace("}", "}}"),  # optuna takes braces for a place to fill in
                engine_kwargs={"connect_args": {"timeout": WAIT}} if url.startswith("sqlite") else None,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
            )
        except RuntimeError as error:
            raise InputError(f"study in {shown(url)}: {str(error).splitlines()[0]}") from error
        except SQLAlchemyError:
            if last:
                raise
            time.sleep(1.0)
    raise AssertionError


def _compare(known: Mapping[str, Any], described: Mapping[str, Any], where: str) -> None:
    """Raises `InputError` where a study is not of the search that is described."""
    different = sorted(key for key in {*known, *described} if known.get(key) != described.get(key))
    words = [
        f"slimrank {known.get(key)}, this is {__version__}" if key == "slimrank" else f"another {key}"
        for key in different
    ]
    if words:
        raise InputError(f"{where} was made with {', '.join(words)}; name another with --study")


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Turns what a database says into one line that a user can act on."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        raise InputError(f"study in {shown(url)}: {error.__cause__ or error}; install its driver") from error
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise InputError(f"study in {shown(url)}: {reason}") from error
    except Exception as error:  # optuna wraps some of them, and has exceptions of its own
        if type(error).__module__.startswith("optuna"):
            reason = str(getattr(error.__cause__, "orig", None) or error.__cause__ or error).splitlines()[0]
            raise InputError(f"study in {shown(url)}: {reason}") from error
        raise


def cut_off(study: Study, place: str) -> None:
    """Mark the trials that a process at `place` had begun and that has ended as failed, to be tried again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if trial.user_attrs.get("place") == place:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            if trial.params:
                study.enqueue_trial(trial.params)


def trials_of(study: Study) -> list[Trial]:
    """All trials that were begun, in their order; without those that were suggested twice, which never were."""
    from optuna.trial import TrialState

    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped", TrialState.RUNNING: "running"}
    found = []
    for trial in study.get_trials(deepcopy=False):
        known = trial.user_attrs
        if trial.state == TrialState.WAITING or (trial.state == TrialState.FAIL and "changes" not in known):
            continue
        found.append(
            Trial(
                number=trial.number,
                state=states.get(trial.state, "failed" if "reason" in known else "cut off"),
                changes=known.get("changes", {}),
                figures=known.get("figures", {}),
                selection=known.get("selection", {}),
                share=known.get("share", 0.0),
                spent=known.get("spent", 0.0),
                seconds=trial.duration.total_seconds() if trial.duration else 0.0,
                reason=known.get("reason", ""),
                place=known.get("place", ""),
            )
        )
    return found
