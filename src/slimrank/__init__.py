"""slimrank makes search and recommendation models small and fast, and proves that they still rank.

What is named here is imported when it is first used, so that `import slimrank.runtime` needs neither torch nor time.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

HOMES = {
    "run": "slimrank.api",
    "train": "slimrank.api",
    "compress": "slimrank.api",
    "export": "slimrank.api",
    "evaluate": "slimrank.api",
    "search": "slimrank.api",
    "Recipe": "slimrank.recipe",
    "read_recipe": "slimrank.recipe",
    "Training": "slimrank.training.loop",
    "Distillation": "slimrank.training.losses.loss",
    "SlimClassifier": "slimrank.estimator",
    "Scores": "slimrank.training.teachers",
    "estimator_scores": "slimrank.training.teachers",
    "read_scores": "slimrank.training.teachers",
    "load_dataset": "slimrank.data",
    "encode_dataset": "slimrank.data.rows",
    "load": "slimrank.runtime",
    "load_graph": "slimrank.runtime",
    "predict": "slimrank.runtime",
    "inspect": "slimrank.runtime.inspect",
    "doctor": "slimrank.evaluation.machine",
    "compress_graph": "slimrank.graphs.compress",
    "InputError": "slimrank.config",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'slimrank' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES])
