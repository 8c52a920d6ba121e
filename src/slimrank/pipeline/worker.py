"""One worker of a search, a process of its own: python -m slimrank.pipeline.worker FOLDER NUMBER DEADLINE [DATA]"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from slimrank.config import InputError
from slimrank.evaluation.machine import cores
from slimrank.pipeline.trials import Trials
from slimrank.recipe import Recipe, read_recipe
from slimrank.searching.search import Attempt, Search, Worker, read_search, sampler_of
from slimrank.searching.study import open_study

ASKED = "search.json"


def work(folder: Path, number: int, deadline: float, data: Path | None) -> None:
    """Try recipes until the search in `folder` is spent, or whoever started it has gone."""
    parent = os.getppid()
    trials = Trials(read_search(folder / ASKED), read_recipe(folder / ASKED), folder, data)
    torch.set_num_threads(trials.recipe.threads or max(1, cores() // workers_of(trials.search)))

    def attempt(recipe: Recipe, trial: int, share: float) -> Attempt:
        if os.getppid() != parent:
            sys.exit(0)
        return trials.attempt(recipe, trial, share)

    url, name, identity = study_of(trials)
    study = open_study(url, name, identity, create=False, sampler=sampler_of(trials.search, number))
    worker = Worker(trials.search, trials.recipe, trials.space, attempt, trials.place, url, deadline)
    worker.run(study)


def workers_of(search: Search) -> int:
    """How many processes a search has."""
    return search.workers or cores()


def study_of(trials: Trials) -> tuple[str, str, dict[str, Any]]:
    """The URL of a search's study, its name there, and what makes it the study of that search."""
    url = trials.search.storage or f"sqlite:///{(trials.folder / 'search.db').resolve()}"
    identity = {
        "recipe": trials.recipe.model_dump(mode="json", exclude={"threads"}),
        "goal": str(trials.search.goal),
        "wanted": trials.search.wanted,
        "space": trials.space.description(),
        "data": trials.run.dataset.fingerprint,
    }
    return url, trials.search.study or trials.recipe.name, identity


def main() -> None:
    """Exit code 2 and one line where the user can mend it, as of the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits, which then ends this one
    try:
        folder, number, deadline, *data = sys.argv[1:]
        work(Path(folder), int(number), float(deadline), Path(data[0]) if data else None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
