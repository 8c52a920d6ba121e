"""Teachers of any kind: each turns rows into scores once, and the scores are joined to the rows that learn from them.

A teacher is a model of ours, a function of encoded columns (`predict` of a boosted model), or scores that were made
elsewhere, such as by an estimator of raw rows, a cross-encoder or a language model, with the confidence in each. Scores
are logits where labels are clicks; for lists any scores whose differences mean something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import ArrayLike, NDArray

from slimrank.config import Config, InputError, name_of, nearest
from slimrank.data.encoding import Inputs
from slimrank.data.files import CSV_SUFFIXES, read_csv, read_parquet, suffix_of
from slimrank.models.layers import Encoder, ItemScorer, Network
from slimrank.training.examples import Examples, score
from slimrank.training.losses.catalogue import CatalogueSoftmax, distilled_catalogue
from slimrank.training.losses.loss import Distillation, Objective, distilled

SCORE, WEIGHT = "score", "weight"
METHODS = ("predict_proba", "decision_function", "predict")
SURE = 1e-6  # probabilities nearer to 0 or 1 count as this far from them: a logit has to be finite


@dataclass(frozen=True, eq=False)
class Scores:
    """A teacher's scores [N] float32 of the train rows, and its confidence in each [N], 0 or more; None: all alike."""

    score: NDArray[np.float32]
    weight: NDArray[np.float32] | None = None


Teacher = Network | Scores | Callable[[NDArray[np.float32]], ArrayLike]


def columns(inputs: Inputs) -> NDArray[np.float32]:
    """Encoded rows as one matrix [N, K + M]: the local ids of every column, then the numbers as they were scaled."""
    return np.concatenate([inputs.ids.astype(np.float32), inputs.numbers], axis=1)


def lessons(
    model: Network, train: Examples, teachers: Sequence[Teacher], mix: Distillation, loss: Config | None
) -> tuple[Examples, Objective]:
    """What `model` learns from teachers: the rows, and the objective that mixes soft labels with `loss`.

    The rows of a ranker get the mean of the teachers' scores. An encoder asks its teachers batch by batch, since their
    scores of all places and items fit no disk.

    Raises:
        InputError: the model cannot learn so (`check_taught`), or a teacher does not fit it or the rows.
    """
    check_taught(type(model), mix, loss)
    if not isinstance(model, Encoder):
        return with_teachers(train, teachers), distilled(mix, loss, train.answer)
    asked = [each.to(train.label.device).eval() for each in teachers if isinstance(each, Encoder)]
    if len(asked) < len(teachers):
        raise InputError("an encoder learns from other encoders: scores of rows say nothing of all items")
    chosen = loss if isinstance(loss, CatalogueSoftmax) else CatalogueSoftmax()
    return train, partial(distilled_catalogue, loss=chosen, mix=mix, teachers=asked)


def check_taught(kind: type[Network], mix: Distillation, loss: Config | None) -> None:
    """That models of a kind can learn from teachers with these settings.

    Raises:
        InputError: their weights have a closed form, or a chosen loss does not go with soft labels of a catalogue.
    """
    if issubclass(kind, ItemScorer):
        raise InputError(
            "distillation: this model's weights have a closed form, and learn from no teacher; leave it out"
        )
    if not issubclass(kind, Encoder):
        return
    if mix.loss is not None:
        raise InputError(
            f"distillation.loss {name_of(mix.loss)!r}: an encoder learns its teachers' softmax over items; leave it out"
        )
    if loss is not None and not isinstance(loss, CatalogueSoftmax):
        raise InputError(
            f"training.loss {name_of(loss)!r} does not go with distillation of an encoder. Allowed: catalogue-softmax"
        )


def with_teachers(examples: Examples, teachers: Sequence[Teacher]) -> Examples:
    """The examples with the mean of the teachers' scores, and the mean of their confidence where one has any.

    Raises:
        InputError: a teacher's scores do not fit the rows, or are not finite.
    """
    found = [scores_of(teacher, examples) for teacher in teachers]
    mean = np.mean([each.score for each in found], axis=0)
    if all(each.weight is None for each in found):
        return examples.with_teacher(torch.from_numpy(mean))
    sure = [np.ones(len(examples), np.float32) if each.weight is None else each.weight for each in found]
    return examples.with_teacher(torch.from_numpy(mean), torch.from_numpy(np.mean(sure, axis=0)))


def scores_of(teacher: Teacher, examples: Examples) -> Scores:
    """What a teacher says of the rows.

    Raises:
        InputError: it says it of another number of rows, or something that is not finite.
    """
    if isinstance(teacher, Scores):
        found = teacher
    elif isinstance(teacher, Network):
        found = Scores(score(teacher.to(examples.label.device), examples))
    else:
        ids, numbers = (each.cpu().numpy() for each in (examples.ids, examples.numbers))
        found = Scores(np.asarray(teacher(columns(Inputs(ids, numbers))), dtype=np.float32))
    _check(found, len(examples))
    return found


def _check(found: Scores, rows: int) -> None:
    if found.score.shape != (rows,):
        raise InputError(f"a teacher gave scores {list(found.score.shape)} for {rows} rows: one a row is needed")
    wrong = int((~np.isfinite(found.score)).sum())
    if wrong:
        raise InputError(f"a teacher gave scores of which {wrong} of {rows} are NaN or infinite")
    if found.weight is not None and (
        found.weight.shape != (rows,) or not (np.isfinite(found.weight) & (found.weight >= 0)).all()
    ):
        raise InputError(f"a teacher's confidence must be {rows} finite numbers of 0 or more")


def estimator_scores(estimator: Any, rows: Any) -> Scores:
    """What a fitted estimator of scikit-learn's kind (LightGBM's and XGBoost's too) says of clicks, as logits.

    Of what it has, the first is asked: `predict_proba`, whose second class is the click; `decision_function`, which is
    taken as the logit; `predict`, which is a class, or, where there are no classes, the probability of a click.

    Args:
        estimator: fitted to two classes, or to the numbers 0 and 1.
        rows: N rows as it takes them: those that it was fitted to, not encoded ones.

    Raises:
        InputError: it has none of the three, or another number of classes.
    """
    classes = getattr(estimator, "classes_", None)
    if classes is not None and len(classes) != 2:
        raise InputError(f"a teacher of 2 classes is needed, {type(estimator).__name__} knows {len(classes)}")
    if hasattr(estimator, "predict_proba"):
        return Scores(_logit(np.asarray(estimator.predict_proba(rows))[:, 1]))
    if hasattr(estimator, "decision_function"):
        return Scores(np.asarray(estimator.decision_function(rows), dtype=np.float32))
    if hasattr(estimator, "predict"):
        found = np.asarray(estimator.predict(rows))
        return Scores(_logit(found if classes is None else found == classes[1]))
    raise InputError(f"{type(estimator).__name__} is no teacher: it has none of {', '.join(METHODS)}")


def _logit(probability: NDArray[Any]) -> NDArray[np.float32]:
    clipped = np.clip(probability.astype(np.float64), SURE, 1 - SURE)
    return np.log(clipped / (1 - clipped)).astype(np.float32)


def read_scores(path: Path, rows: pl.DataFrame) -> Scores:
    """A teacher's scores from a Parquet or CSV file with a column `score`, and `weight` where it has confidence.

    All other columns are keys, such as query and document: they are columns of `rows` too, and every row is found by
    them exactly once (further rows of the file are not used). A file without keys has one row for each of `rows`, in
    their order.

    Args:
        path: the file.
        rows: the raw rows that are trained on, such as `dataset.train`.

    Raises:
        InputError: the file cannot be read, has no scores, other keys, or does not match the rows.
    """
    kind = suffix_of(path)
    if kind is None:
        raise InputError(f"{path}: scores are read from .parquet, {', '.join(CSV_SUFFIXES)}")
    table = read_parquet(path) if kind == "parquet" else read_csv(path)
    if SCORE not in table.columns:
        raise InputError(f"{path}: no column {SCORE!r}. {nearest(SCORE, table.columns)}")
    keys = [name for name in table.columns if name not in (SCORE, WEIGHT)]
    unknown = [name for name in keys if name not in rows.columns]
    if unknown:
        raise InputError(
            "\n".join(f"{path}: no key {name!r} in the rows. {nearest(name, rows.columns)}" for name in unknown)
        )
    table = _joined(path, table, rows, keys) if keys else _in_order(path, table, rows)
    found = Scores(_numbers(path, table[SCORE]), _numbers(path, table[WEIGHT]) if WEIGHT in table.columns else None)
    try:
        _check(found, len(rows))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return found


def _in_order(path: Path, table: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    if len(table) != len(rows):
        raise InputError(f"{path}: {len(table)} scores for {len(rows)} rows, and no key column to join them by")
    return table


def _joined(path: Path, table: pl.DataFrame, rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """The file's row of each of `rows`."""
    twice = table.select(keys).is_duplicated()
    if twice.any():
        raise InputError(
            f"{path}: {twice.sum()} rows are not the only ones of their {', '.join(keys)}: {_first(table, keys, twice)}"
        )
    try:
        found = rows.select(keys).join(
            table.with_columns(pl.lit(True).alias("\0")), on=keys, how="left", maintain_order="left", nulls_equal=True
        )
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: the keys {', '.join(keys)} are of other types than in the rows: {error}") from None
    missing = found["\0"].is_null()
    if missing.any():
        raise InputError(
            f"{path}: {missing.sum()} of {len(rows)} rows have no score, such as {_first(rows, keys, missing)}"
        )
    return found


def _first(table: pl.DataFrame, keys: list[str], chosen: pl.Series) -> str:
    row = table.filter(chosen).row(0, named=True)
    return ", ".join(f"{key} = {row[key]!r}" for key in keys)


def _numbers(path: Path, column: pl.Series) -> NDArray[np.float32]:
    if not column.dtype.is_numeric():
        raise InputError(f"{path}: column {column.name!r} is of type {column.dtype}, a number is needed")
    numbers: NDArray[Any] = column.cast(pl.Float32).to_numpy()
    return np.where(column.is_null().to_numpy(), np.nan, numbers).astype(np.float32)
