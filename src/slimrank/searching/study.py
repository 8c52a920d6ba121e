"""The Optuna study behind a search: opened, checked to be of the same search, and read as plain trials.

SQLite by default, another database by its URL. Nothing of a trial is lost but the one in flight when a process is
killed: each figure is written when it is known, and a trial that a dead process left is marked as failed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slimrank import __version__
from slimrank.config import InputError

if TYPE_CHECKING:
    from optuna import Study

HEARTBEAT, GRACE = 20, 90  # seconds: a process that has not been heard of for so long is dead
WAIT = 60  # seconds that a writer waits for another one's lock on SQLite
IDENTITY = "identity"
OBJECTIVES = 2  # what is made small, and the loss of quality


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried.

    `changes`: dotted keys and values. `state`: complete, stopped (not worth a whole training), failed, running.
    `figures`: of search rows, at the last share of the epochs that it was trained for, `share`. `selection`: of
    selection rows, of complete ones. `spent`: trainings, a part of one as its share. `steps`: what its steps did.
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
    described = json.loads(json.dumps({"slimrank": __version__, **identity}))
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    with readable(url):
        storage = optuna.storages.RDBStorage(
            url,
            engine_kwargs={"connect_args": {"timeout": WAIT}} if url.startswith("sqlite") else None,
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
        )
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=sampler,
            directions=["minimize"] * OBJECTIVES,
            load_if_exists=True,
        )
        known = study.user_attrs.get(IDENTITY)
        if known is None and create:
            study.set_user_attr(IDENTITY, described)
    if known is not None and known != described:
        different = sorted(key for key in {*known, *described} if known.get(key) != described.get(key))
        words = ", ".join(
            f"slimrank {known['slimrank']}, this is {__version__}" if key == "slimrank" else f"another {key}"
            for key in different
        )
        raise InputError(f"study {name!r} in {url} was made with {words}; name another with --study")
    return study


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Turns what a database says into one line that a user can act on."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, ModuleNotFoundError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise InputError(f"study in {url}: {reason}") from error
    except Exception as error:  # optuna wraps some of them, and has exceptions of its own
        if type(error).__module__.startswith("optuna"):
            reason = str(getattr(error.__cause__, "orig", None) or error.__cause__ or error).splitlines()[0]
            raise InputError(f"study in {url}: {reason}") from error
        raise


def fail_running(study: Study, place: str) -> None:
    """Mark trials as failed that an earlier process at `place`, which is gone, had begun."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if trial.user_attrs.get("place") == place:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def trials_of(study: Study) -> list[Trial]:
    """All trials that were begun, in their order; without those that were suggested twice, which never were."""
    from optuna.trial import TrialState

    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}
    found = []
    for trial in study.get_trials(deepcopy=False):
        known = trial.user_attrs
        if trial.state == TrialState.WAITING or (trial.state == TrialState.FAIL and "changes" not in known):
            continue
        found.append(
            Trial(
                number=trial.number,
                state=states.get(trial.state, "running"),
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
