"""One worker of a search, a process of its own.

    python -m slimrank.pipeline.worker FOLDER NUMBER DEADLINE PARENT [DATA]

It ends when what started it is gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

import torch

from slimrank.config import InputError
from slimrank.evaluation.machine import cores
from slimrank.pipeline.trials import Trials
from slimrank.recipe import Recipe, read_recipe
from slimrank.searching.search import Attempt, Worker, read_search, sampler_of

ASKED = "search.json"
STORAGE = "SLIMRANK_STORAGE"  # the variable that holds the database's URL
PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl(2)


def work(folder: Path, number: int, deadline: float, parent: int, data: Path | None) -> None:
    """Try recipes until the search in `folder` is spent, or whoever started it has gone."""
    search = read_search(folder / ASKED, storage=os.environ.get(STORAGE, ""))
    trials = Trials(search, read_recipe(folder / ASKED), folder, data)
    torch.set_num_threads(trials.recipe.threads or max(1, cores() // trials.workers))

    def attempt(recipe: Recipe, trial: int, share: float) -> Attempt:
        if os.getppid() != parent:
            sys.exit(0)
        return trials.attempt(recipe, trial, share)

    study = trials.open_study(create=False)
    trials.look(study)
    salt = f"{trials.place if search.storage else ''} {len(study.get_trials(deepcopy=False))}"
    study.sampler = sampler_of(search, number, salt)
    Worker(search, trials.recipe, trials.space, attempt, trials.place, trials.url, deadline).run(study)


def main() -> None:
    """Exit code 2 and one line where the user can mend it, as of the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits, which then ends this one
    folder, number, deadline, parent, *data = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(0)
    try:
        work(Path(folder), int(number), float(deadline), int(parent), Path(data[0]) if data else None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
