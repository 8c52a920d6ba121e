"""Two models on the same rows: all that a review asks for, as one record.

Each model is an artifact, which encodes and scores the rows itself, or a file of scores in the order of the rows.
Needs no torch. Left out: bytes and latency, which are in `measure`, and any markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimrank import runtime
from slimrank.config import InputError, nearest
from slimrank.evaluation.behaviour import invariance, overlap, rank_correlation
from slimrank.evaluation.calibration import as_lists
from slimrank.evaluation.paired import compare, judge
from slimrank.evaluation.slices import Cut, compare_slices, cut_by_rank, cut_by_values
from slimrank.runtime.files import read_rows

if TYPE_CHECKING:
    import polars

METRICS = ("auc", "logloss", "normalized_entropy", "pcoc_error", "ece")
GROUPED = ("gauc",)
SCORES = ("logit", "score", "probability")
TOP = 10
SLICED_FROM = 100  # ids of a field from which its head, torso and tail are worth telling apart
DEFAULT_MARGIN = 0.001


@dataclass(frozen=True)
class Question:
    """What is compared and how: metrics (the verdict is of the first), columns by name, and the margin."""

    metrics: tuple[str, ...] = ()
    margin: float = DEFAULT_MARGIN
    label: str | None = None
    group: str | None = None
    slices: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class _Scored:
    """One model's logits, and the model itself where it is an artifact."""

    logit: NDArray[Any]
    model: runtime.Model | None = None


def evidence(a: Path, b: Path, frame: polars.DataFrame | Path, question: Question | None = None) -> dict[str, Any]:
    """Compare the candidate `b` with the baseline `a` on the rows of a frame or file.

    Returns:
        `metrics`: a record each (`Comparison`); `verdict` on the first at the margin; `slices` by frequency of ids and
        by the columns asked for; `behaviour`: rank correlation, overlap of the first 10 in each group, invariance of
        artifacts; `calibration` of both; `rows`, `positives`, `groups`.

    Raises:
        InputError: a model cannot be read or does not fit the rows, a column is missing, or the rows do not allow the
            comparison (one class, too few groups, NaN).
    """
    question = question or Question()
    models = [None if path.is_file() else runtime.load(path) for path in (a, b)]
    known = next((model for model in models if model is not None), None)
    if isinstance(frame, Path):
        frame = read_rows(frame, known.encoding if known else None)
    columns = _columns(frame, question, known)
    scored = [_score(path, model, frame) for path, model in zip((a, b), models, strict=True)]
    logits = [one.logit for one in scored]
    label, group = columns["label"], columns.get("group")
    names = question.metrics or (*METRICS, *(GROUPED if group is not None else ()))
    found = [
        compare(label, logits[0], logits[1], name, group=group, field=_field(frame, name), seed=question.seed)
        for name in names
    ]
    binary = bool(np.isin(label, (0, 1)).all())
    return {
        "a": str(a),
        "b": str(b),
        "rows": len(label),
        "positives": int((label > 0).sum()),
        "groups": 0 if group is None else len(np.unique(group)),
        "metrics": [asdict(one) for one in found],
        "verdict": {"metric": found[0].metric, **asdict(judge(found[0], question.margin))},
        "slices": _slices(label, logits, _cuts(frame, question, known), group) if binary else {},
        "behaviour": _behaviour(scored, frame, group),
        "calibration": {name: as_lists(label, logit) for name, logit in zip("ab", logits, strict=True)}
        if binary
        else {},
    }


def _columns(frame: polars.DataFrame, question: Question, model: runtime.Model | None) -> dict[str, NDArray[Any]]:
    """Label, and group where it is named by the question or by an artifact's schema."""
    schema = None if model is None else model.encoding.schema
    label = question.label or (schema.label if schema else "label")
    group = question.group or (schema.group if schema and schema.group in frame.columns else None)
    wanted = {"label": label, "group": group}
    found = {}
    for what, name in wanted.items():
        if name is None:
            continue
        if name not in frame.columns:
            raise InputError(f"{what}: the rows have no column {name!r}. {nearest(name, frame.columns)}")
        found[what] = _names(frame[name]) if what == "group" else frame[name].to_numpy()
    return found


def _field(frame: polars.DataFrame, metric: str) -> NDArray[Any] | None:
    """The column that a metric such as `field_ece@city` looks within."""
    name = metric.partition("@")[2]
    if not metric.startswith("field_ece@"):
        return None
    if name not in frame.columns:
        raise InputError(f"metric {metric!r}: the rows have no column {name!r}. {nearest(name, frame.columns)}")
    return _names(frame[name])


def _names(column: polars.Series) -> NDArray[Any]:
    """Numbers as they are; other values, and columns that lack some, as text."""
    import polars

    if not column.dtype.is_numeric() or column.null_count():
        column = column.cast(polars.String).fill_null("missing")
    return column.to_numpy()


def _score(path: Path, model: runtime.Model | None, frame: polars.DataFrame) -> _Scored:
    if model is not None:
        return _Scored(model.score(model.encoding.encode(frame)), model)
    scores = read_rows(path)
    name = next((each for each in SCORES if each in scores.columns), None)
    if name is None:
        raise InputError(
            f"{path}: a file of scores has a column {' or '.join(SCORES)}, got {', '.join(scores.columns)}"
        )
    if len(scores) != len(frame):
        raise InputError(f"{path}: {len(scores)} scores for {len(frame)} rows; one is needed for each, in their order")
    values = scores[name].to_numpy()
    return _Scored(_as_logit(values, path) if name == "probability" else values)


def _as_logit(chance: NDArray[Any], path: Path) -> NDArray[np.float64]:
    """log(p / (1 - p))."""
    values = chance.astype(np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError(f"{path}: probabilities must lie between 0 and 1")
    with np.errstate(divide="ignore"):
        logits: NDArray[np.float64] = np.log(values) - np.log1p(-values)
    return logits


def _cuts(frame: polars.DataFrame, question: Question, model: runtime.Model | None) -> dict[str, Cut]:
    """By frequency of the ids of every field of many, and by the columns that are asked for."""
    cuts = {}
    for name in question.slices:
        if name not in frame.columns:
            raise InputError(f"slices: the rows have no column {name!r}. {nearest(name, frame.columns)}")
        cuts[name] = cut_by_values(_names(frame[name]))
    if model is not None:
        encoding = model.encoding
        ids = encoding.encode(frame).ids
        for place, field in enumerate(encoding.schema.categorical):
            size = encoding.sizes[field.name]
            if field.encoding == "vocabulary" and size >= SLICED_FROM and field.name not in cuts:
                cuts[field.name] = cut_by_rank(ids[:, place], size)
    return cuts


def _slices(
    label: NDArray[Any], logits: Sequence[NDArray[Any]], cuts: dict[str, Cut], group: NDArray[Any] | None
) -> dict[str, Any]:
    found = compare_slices(label, logits[0], logits[1], cuts, group) if cuts else {}
    return {name: [{**asdict(one), "lost": one.lost} for one in slices] for name, slices in found.items()}


def _behaviour(scored: Sequence[_Scored], frame: polars.DataFrame, group: NDArray[Any] | None) -> dict[str, Any]:
    a, b = scored
    found: dict[str, Any] = {"rank_correlation": rank_correlation(a.logit, b.logit)}
    if group is not None:
        shared = overlap(a.logit, b.logit, group, TOP)
        if shared.counted:
            found[f"overlap@{TOP}"] = {"mean": shared.mean, "groups": shared.counted}
    for name, one in zip("ab", scored, strict=True):
        if one.model is not None:
            checked = invariance(one.model, one.model.encoding.encode(frame[:4096]))
            found[f"invariance of {name}"] = {**asdict(checked), "largest": checked.largest}
    return found
