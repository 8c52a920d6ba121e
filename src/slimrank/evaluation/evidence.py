"""Two models on the same rows: all that a review asks for, as one record.

Each model is an artifact, which encodes and scores the rows itself, the artifact of a module of the user's own, which
takes the columns of its inputs, or a file of scores in the order of the rows.
Needs no torch. Left out: models that answer with items (`evidence_of_items`), latency, which is in
`measure`, and any markup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimrank import runtime
from slimrank.artifact import open_artifact
from slimrank.config import InputError, nearest
from slimrank.data.encoding import Inputs
from slimrank.data.schema import Schema
from slimrank.evaluation.behaviour import invariance, overlap, rank_correlation
from slimrank.evaluation.calibration import as_lists
from slimrank.evaluation.columns import as_codes, as_groups, as_numbers, as_values
from slimrank.evaluation.cost import compared_bytes
from slimrank.evaluation.evidence_of_items import evidence_of_items
from slimrank.evaluation.paired import Comparison, compare, judge
from slimrank.evaluation.question import Question
from slimrank.evaluation.slices import SLICED_FROM, Cut, as_records, compare_slices, cut_by_rank, cut_by_values
from slimrank.evaluation.sums import find_metric
from slimrank.runtime.files import PIECE, answer_pieces, read_rows
from slimrank.runtime.opened import answers_with_items, asked_by_tensors

if TYPE_CHECKING:
    import polars

RANKING = ("auc", "gauc")
CALIBRATED = ("logloss", "normalized_entropy", "pcoc", "ece")
SCORES = ("logit", "probability", "score")
"""Columns that a file of scores may have; a `score` says how rows are ranked, and nothing of how likely a click is."""
TOP = 10


@dataclass(frozen=True)
class _Scored:
    """One model's logits or scores, with the model and its encoded rows where it is an artifact."""

    logit: NDArray[Any]
    calibrated: bool = True
    model: runtime.Model | None = None
    inputs: Inputs | None = None


@dataclass(frozen=True)
class _Rows:
    """The columns that are compared on; `schema` is that of an artifact or dataset, if any."""

    frame: polars.DataFrame
    label: NDArray[Any]
    group: NDArray[np.int64] | None
    schema: Schema | None


def evidence(
    a: Path, b: Path, rows: polars.DataFrame | Path, question: Question | None = None, schema: Schema | None = None
) -> dict[str, Any]:
    """Compare the candidate `b` with the baseline `a` on the rows of a frame or file.

    Args:
        a: an artifact's directory, or a .parquet or .csv file with a column logit, probability or score. Of an
            artifact that is asked by tensors the output counts that has a number for each row: where it is called
            logit or probability as such, else as a score.
        b: the same.
        rows: with the label, and what an artifact reads. No model should have been trained on them.
        question: what is asked; without it AUC at .001, and beside it what else these rows allow.
        schema: of the rows, where neither model is an artifact that has one.

    Returns:
        `metrics`: a record each (`Comparison`); `verdict` on the first at the margin; `slices` by frequency of ids and
        by the columns asked for; `behaviour`: rank correlation, overlap of the first 10 in each group, invariance of
        artifacts; `calibration` of both; `left_out`: metrics that these rows do not allow, and why; `rows`,
        `positives`, `groups` (0: every row was taken by itself); `bytes` on disk and on the wire of artifacts.

    Raises:
        InputError: a model cannot be read or does not fit the rows, a column is missing or of no use, or the rows do
            not allow the verdict (one class, too few of a class or groups, NaN).
    """
    question = question or Question()
    _check(question)
    if any(path.is_dir() and answers_with_items(open_artifact(path)) for path in (a, b)):
        return dict(_without_nan(evidence_of_items(a, b, rows, question)))
    models = [_opened(path) for path in (a, b)]
    encodings = [model.encoding for model in models if isinstance(model, runtime.Model)]
    if isinstance(rows, Path):
        rows = read_rows(rows, encodings)
    schemas = [encoding.schema for encoding in encodings] + ([schema] if schema else [])
    known = _rows(rows, question, schemas)
    scored = [_score(path, model, known.frame) for path, model in zip((a, b), models, strict=True)]
    logits = [one.logit for one in scored]
    found, left_out = _metrics(known, scored, question)
    cuts = _cuts(known, scored, question)
    slices = compare_slices(known.label, logits[0], logits[1], cuts, known.group, found[0].metric) if cuts else {}
    verdict = judge(found[0], question.margin)
    record = {
        "a": str(a),
        "b": str(b),
        "bytes": compared_bytes({"a": a, "b": b}),
        "rows": len(known.label),
        "positives": int((known.label > 0).sum()),
        "groups": 0 if known.group is None else int(known.group.max()) + 1,
        "metrics": [asdict(one) for one in found],
        "left_out": left_out,
        "verdict": {"metric": found[0].metric, **asdict(verdict)},
        "slices": as_records(slices),
        "behaviour": _behaviour(known, scored),
        "calibration": _calibration(known.label, scored),
    }
    return dict(_without_nan(record))


def _check(question: Question) -> None:
    """Raises `InputError` with everything that is wrong with the question itself."""
    faults = []
    for name in question.metrics:
        try:
            find_metric(name)
        except InputError as error:
            faults.append(str(error))
    if not 0 < question.margin < math.inf:
        faults.append(f"margin: got {question.margin}, allowed more than 0 and finite")
    if faults:
        raise InputError("\n".join(faults))


def _rows(frame: polars.DataFrame, question: Question, schemas: Sequence[Schema]) -> _Rows:
    """Label and group, by the question's names or those of a schema."""
    labels = {schema.label for schema in schemas}
    if question.label is None and len(labels) > 1:
        raise InputError(f"the models have different labels, {' and '.join(sorted(labels))}: say which (--label)")
    schema = schemas[0] if schemas else None
    label = question.label or (schema.label if schema else "label")
    own = next((one.group for one in schemas if one.group in frame.columns), None)
    group = question.group or own
    fields = [name.partition("@")[2] for name in question.metrics if name.startswith("field_ece@")]
    wanted = {"label": [label], "group": [group] if group else [], "slices": question.slices, "field_ece": fields}
    faults = [
        f"{what}: the rows have no column {name!r}. {nearest(name, frame.columns)}"
        for what, names in wanted.items()
        for name in names
        if name not in frame.columns
    ]
    if faults:
        raise InputError("\n".join(faults))
    if not len(frame):
        raise InputError("no rows to compare on")
    return _Rows(frame, as_numbers(frame[label], f"label {label!r}"), as_groups(frame, group), schema)


def _opened(path: Path) -> runtime.Model | runtime.Graph | None:
    """The model of an artifact; None for a file."""
    if path.is_file():
        return None
    return runtime.load_graph(path) if asked_by_tensors(open_artifact(path)) else runtime.load(path)


def _score(path: Path, model: runtime.Model | runtime.Graph | None, frame: polars.DataFrame) -> _Scored:
    if isinstance(model, runtime.Graph):
        return _named(*_of_graph(path, model, frame), path)
    if model is not None:
        inputs = model.encoding.encode(frame)
        pieces = [model.score(inputs.take(slice(start, start + PIECE))) for start in range(0, len(inputs), PIECE)]
        return _Scored(np.concatenate(pieces), model=model, inputs=inputs)
    scores = read_rows(path)
    names = [each for each in SCORES if each in scores.columns]
    if len(names) != 1:
        given = ", ".join(scores.columns)
        raise InputError(f"{path}: a file of scores has one column of {', '.join(SCORES)}, got {given}")
    if len(scores) != len(frame):
        raise InputError(f"{path}: {len(scores)} scores for {len(frame)} rows; one is needed for each, in their order")
    return _named(names[0], as_numbers(scores[names[0]], f"{path}: {names[0]}"), path)


def _named(name: str, values: NDArray[np.float64], path: Path) -> _Scored:
    """Values by what they are called: logits, probabilities, or scores, which only rank."""
    return _Scored(_as_logit(values, path) if name == "probability" else values, name in ("logit", "probability"))


def _of_graph(path: Path, graph: runtime.Graph, frame: polars.DataFrame) -> tuple[str, NDArray[np.float64]]:
    """The output of a module that has a number for each row, and its name; one that is called as a score goes first."""
    answers = {name: each for name, each in answer_pieces(graph, frame).items() if each.ndim == 1}
    names = [name for name in SCORES if name in answers] or list(answers)
    if len(names) != 1:
        told = ", ".join(f"{name} {spec.told()}" for name, spec in graph.outputs.items())
        raise InputError(f"{path}: one output with a number for each row is needed, got {told}")
    return names[0], answers[names[0]].astype(np.float64)


def _as_logit(chance: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    """log(p / (1 - p)); infinite for 0 and 1."""
    wrong = ~((chance >= 0) & (chance <= 1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"{path}: {int(wrong.sum())} probabilities are not from 0 to 1 (row {row}: {chance[row]})")
    with np.errstate(divide="ignore"):
        logits: NDArray[np.float64] = np.log(chance) - np.log1p(-chance)
    return logits


def _metrics(rows: _Rows, scored: Sequence[_Scored], question: Question) -> tuple[list[Comparison], dict[str, str]]:
    """What was asked for; or AUC, and all else that these rows and scores allow, with why the rest is left out."""
    asked = question.metrics
    calibrated = all(one.calibrated for one in scored)
    for name in asked:
        if not calibrated and not find_metric(name).of_groups and name != "auc":
            raise InputError(f"metric {name!r} needs logits or probabilities, and there are only scores")
    found, left_out = [], {}
    for name in asked or (*RANKING, *(CALIBRATED if calibrated else ())):
        field = name.partition("@")[2] if name.startswith("field_ece@") else None
        values = None if field is None else as_codes(rows.frame[field], f"metric {name!r}: {field!r}")
        try:
            found.append(compare(rows.label, scored[0].logit, scored[1].logit, name, group=rows.group, field=values))
        except InputError as error:
            if asked or name == "auc":
                raise InputError(f"{name}: {error}") from None
            left_out[name] = str(error)
    return found, left_out


def _cuts(rows: _Rows, scored: Sequence[_Scored], question: Question) -> dict[str, Cut]:
    """By the columns that are asked for, and by frequency of the ids of every field of many (an artifact knows it)."""
    ids = {each.name for each in rows.schema.categorical} if rows.schema else set()
    cuts = {name: cut_by_values(as_values(rows.frame[name], as_text=name in ids)) for name in question.slices}
    known = next((one for one in scored if one.model is not None), None)
    if known is None or known.model is None or known.inputs is None:
        return cuts
    encoding = known.model.encoding
    for place, field in enumerate(encoding.schema.categorical):
        size = encoding.sizes[field.name]
        if field.encoding == "vocabulary" and size >= SLICED_FROM:
            cuts[f"{field.name} by frequency"] = cut_by_rank(known.inputs.ids[:, place], size)
    return cuts


def _behaviour(rows: _Rows, scored: Sequence[_Scored]) -> dict[str, Any]:
    a, b = scored
    found: dict[str, Any] = {"rank_correlation": rank_correlation(a.logit, b.logit)}
    if rows.group is not None:
        shared = overlap(a.logit, b.logit, rows.group, TOP)
        if shared.counted:
            found[f"overlap@{TOP}"] = {"mean": shared.mean, "groups": shared.counted}
    for name, one in zip("ab", scored, strict=True):
        if one.model is not None and one.inputs is not None:
            checked = invariance(one.model, one.inputs)
            found[f"invariance of {name}"] = {**asdict(checked), "by_neighbours": checked.by_neighbours}
    return found


def _calibration(label: NDArray[Any], scored: Sequence[_Scored]) -> dict[str, Any]:
    """The curve of each model whose scores are logits, where labels are clicks or none."""
    if not np.isin(label, (0, 1)).all():
        return {}
    return {name: as_lists(label, one.logit) for name, one in zip("ab", scored, strict=True) if one.calibrated}


def _without_nan(value: Any) -> Any:
    """The record with None for what is no number, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
