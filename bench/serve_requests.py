"""Ranking requests of Frappe: a user in a context of a test row, and 256 apps; and what a model must answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.load.requests import Request, infer_binary, infer_json, json_bytes, post
from slimrank.data import load_dataset
from slimrank.data.encoding import Inputs
from slimrank.runtime import Model
from slimrank.runtime.model import sigmoid

CANDIDATES = 256
OF_CANDIDATE = ("item", "cost")  # of Frappe's fields; the others are the user's and the context's
REQUESTS = 64


@dataclass(frozen=True, eq=False)
class Work:
    """One ranking request: values that all candidates share, and columns of those that they do not."""

    shared: dict[str, Any]
    candidates: dict[str, list[Any]]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """Raw rows, as the runtime alone is asked for the same."""
        size = len(next(iter(self.candidates.values())))
        return {**{name: [value] * size for name, value in self.shared.items()}, **self.candidates}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The candidates, a row each."""
        names = list(self.candidates)
        return [dict(zip(names, row, strict=True)) for row in zip(*self.candidates.values(), strict=True)]


def frappe_works(fields: Sequence[str], count: int = REQUESTS, size: int = CANDIDATES, seed: int = 0) -> list[Work]:
    """`count` requests of `size` candidates each, with the fields that a model reads."""
    dataset = load_dataset("frappe")
    apps = dataset.train.select(OF_CANDIDATE).unique("item", keep="first", maintain_order=True)
    draw = np.random.default_rng(seed)
    contexts = dataset.test[draw.choice(len(dataset.test), count, replace=False)].to_dicts()
    found = []
    for context in contexts:
        chosen = apps[draw.choice(len(apps), size, replace=False)].to_dict(as_series=False)
        shared = {name: context[name] for name in fields if name not in OF_CANDIDATE}
        found.append(Work(shared, {name: chosen[name] for name in OF_CANDIDATE if name in fields}))
    return found


def encoded(model: Model, work: Work) -> Inputs:
    """The rows of a request as the model takes them."""
    return model.encoding.encode(work.columns)


def tensors(model: Model, work: Work) -> dict[str, NDArray[Any]]:
    """The same as tensors of the graph."""
    inputs = encoded(model, work)
    given = {"ids": inputs.ids, "numbers": inputs.numbers}
    return {name: given[name] for name in model.feeds}


def ranking(models: Mapping[str, Model], works: Sequence[Work], name: str, path: str = "") -> list[Request]:
    """Requests to rank, candidates as columns; `models` by version are what must be answered."""
    path = path or f"/v2/models/{name}/rank"
    return [
        Request(
            post(path, json_bytes({"shared": work.shared, "candidates": work.candidates})),
            form="rank",
            expected={version: model.predict(work.columns).probability for version, model in models.items()},
        )
        for work in works
    ]


Codec = Callable[[str, Mapping[str, NDArray[Any]]], bytes]
CODECS: dict[str, tuple[Codec, str]] = {
    "json": (infer_json, "infer-json"),
    "binary": (infer_binary, "infer-binary"),
    "raw": (
        lambda path, given: post(path, given["ids"].tobytes(), {"Content-Type": "application/octet-stream"}),
        "raw",
    ),
}
"""By name: how tensors become a request, and the form of its answer. `raw` is the ids' bytes and nothing else."""


def infer(models: Mapping[str, Model], works: Sequence[Work], name: str, codec: str, path: str = "") -> list[Request]:
    """Requests to infer from the same rows, encoded already."""
    path = path or f"/v2/models/{name}/infer"
    encode, form = CODECS[codec]
    first = next(iter(models.values()))
    found = []
    for work in works:
        given = tensors(first, work)
        expected = {version: sigmoid(model.score(encoded(model, work))) for version, model in models.items()}
        found.append(Request(encode(path, given), form=form, expected=expected))
    return found


def same_ids(models: Sequence[Model], works: Sequence[Work]) -> bool:
    """Whether all models take the same tensors for the same rows, so that any version may answer a request."""
    first, *others = models
    wanted = [encoded(first, work).ids for work in works]
    return all(
        np.array_equal(ids, encoded(other, work).ids)
        for other in others
        for ids, work in zip(wanted, works, strict=True)
    )


def artifacts_of(folder: Path, count: int = 1) -> list[Path]:
    """The slim artifacts of the first `count` seeds of the run of `recipes/frappe.py`, made where it is missing."""
    from slimrank.pipeline.run import run
    from slimrank.recipe import read_recipe

    recipe = read_recipe(Path(__file__).parents[1] / "recipes" / "frappe.py")
    run(recipe, folder)
    return [folder / f"seed-{seed}" / "artifacts" / "slim" for seed in recipe.seeds[:count]]
