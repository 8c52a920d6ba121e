"""A ranking request as plain data: what is shared by all candidates once, the candidates, and how many are wanted.

{"shared": {"user": 7}, "candidates": [{"item": 1}, {"item": 2}] or {"item": [1, 2]}, "k": 10, "id": "..."}

A model that scores rows answers with a probability for each candidate, by place or the first k. One that finds items
answers with the first k of its catalogue for the query that `shared` is, or with the scores of the items in
`candidates`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError, nearest
from slimrank.runtime import Retriever
from slimrank.serving.bounds import check_rows, check_text
from slimrank.serving.protocol import Unsayable
from slimrank.serving.settings import Limits

KEYS = ("shared", "candidates", "k", "id", "version")
FIRST = 10  # items that a query finds where it does not say how many


@dataclass(frozen=True)
class Ranking:
    """A ranking request that has its form.

    Attributes:
        shared: values of fields that all candidates have.
        candidates: a list of rows, or a mapping of columns; None where none are given.
        count: how many candidates, 0 for None.
        k: how many of the best are wanted, all where None.
    """

    shared: Mapping[str, Any]
    candidates: list[Any] | Mapping[str, list[Any]] | None
    count: int
    k: int | None
    id: str | None
    version: str


def read_ranking(body: Any, limits: Limits, size: int) -> Ranking:
    """The request in a body of JSON, which had `size` bytes.

    Raises:
        TooMany: more candidates, or longer text, than the service takes.
        InputError: it does not have that form.
    """
    if not isinstance(body, dict):
        raise InputError('the request must be an object with "candidates", and what they share in "shared"')
    for key in body:
        if key not in KEYS:
            raise InputError(f"unknown key {key[:80]!r}. {nearest(key[:80], KEYS)}")
    shared, candidates, k = body.get("shared", {}), body.get("candidates"), body.get("k")
    if not isinstance(shared, dict):
        raise InputError('"shared" must be an object: a value for each field')
    if k is not None and (type(k) is not int or k < 1):
        raise InputError(f'"k": got {k!r:.80}, allowed 1 or more')
    for key in ("id", "version"):
        if key in body and not isinstance(body[key], str):
            raise InputError(f'"{key}" must be text, got {body[key]!r:.80}')
    count = _count(candidates)
    check_rows(count, limits.max_rows)
    if size > limits.max_text:  # in a shorter body no value is longer
        for values in (shared, *(candidates if isinstance(candidates, list) else [candidates or {}])):
            _check_texts(values, limits.max_text)
    return Ranking(shared, candidates, count, k, body.get("id"), body.get("version", ""))


def _check_texts(values: Any, longest: int) -> None:
    """Raise `TooMany` where a value of a row, or of a column, is longer text."""
    for name, value in values.items() if isinstance(values, Mapping) else ():
        check_text(name, value if isinstance(value, list) else [value], longest)


def _count(candidates: Any) -> int:
    """How many candidates there are."""
    if candidates is None:
        return 0
    if isinstance(candidates, list):
        return len(candidates)
    if not isinstance(candidates, dict):
        raise InputError('"candidates" must be a list of rows, or an object of columns')
    for name, column in candidates.items():
        if not isinstance(column, list):
            raise InputError(f"column {name[:80]!r} is a {type(column).__name__}, must hold a value for every row")
    lengths = {name: len(column) for name, column in candidates.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name[:80]} {length}" for name, length in list(lengths.items())[:10])
        raise InputError(f"columns differ in length: {told}")
    return next(iter(lengths.values()), 0)


def first_places(scores: NDArray[np.float32], k: int | None) -> NDArray[np.int64]:
    """Places of the `k` best scores, best first; of equal ones the earlier is first."""
    order = np.argsort(-scores, kind="stable")
    return order if k is None else order[:k]


def find(finder: Retriever, asked: Ranking) -> dict[str, Any]:
    """What a model that finds items answers: items with their scores, best first, or the scores of the candidates.

    Raises:
        InputError: as `Retriever.top_k`; there is no catalogue, or candidates name another field than the catalogue's.
    """
    if finder.encoding.schema.catalogue is None:
        raise InputError("the model has no catalogue: it gives vectors, and is asked by tensors (infer)")
    if asked.candidates is None:
        found = finder.top_k([asked.shared], asked.k or FIRST)
        kept = len(found.items[0])
        _check_scores(found.scores[0, :kept])
        told = {"unknown": found.unknown, "shortened": found.shortened}
        return {"items": found.items[0], "score": found.scores[0, :kept].tolist(), **told}
    inputs, unknown, shortened = finder.encoder([asked.shared])
    places = finder.places(_items(finder, asked.candidates))
    known, scores = places >= 0, np.full(len(places), -np.inf, np.float32)
    if known.any():
        scores[known] = finder.scores_of(inputs, places[known])[0]
    _check_scores(scores[known])
    told = {"unknown": {**unknown, "candidates": int((places < 0).sum())}, "shortened": shortened}
    if asked.k is None:
        return {"score": [float(each) if np.isfinite(each) else None for each in scores], **told}
    first = [place for place in first_places(scores, asked.k).tolist() if places[place] >= 0]
    return {"top": first, "score": scores[first].tolist(), **told}


def _check_scores(scores: NDArray[np.float32]) -> None:
    """Raises `Unsayable` where one is no number."""
    if not np.isfinite(scores).all():
        raise Unsayable("a score is NaN or infinite, which JSON cannot say")


def _items(finder: Retriever, candidates: list[Any] | Mapping[str, list[Any]]) -> list[Any]:
    """The items that the candidates name: the only field they have is the label, which is what the model finds."""
    label = finder.encoding.schema.label
    rows = candidates if isinstance(candidates, list) else [candidates] if candidates else []
    for row in rows:
        if not isinstance(row, Mapping) or set(row) != {label}:
            raise InputError(f"a candidate of a model that finds items is {{{label!r}: item}}, got {row!r:.80}")
    return [row[label] for row in candidates] if isinstance(candidates, list) else list(candidates.get(label, []))
