"""Two models that answer with items, on the same queries: what each finds among its whole catalogue, query by query.

Both encode the rows themselves. An item that only one of them knows counts as missed by the other: that is a loss that
its users have. Left out: files of lists, and how a model's answers depend on how it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slimrank.config import InputError, nearest
from slimrank.data.vocabulary import Vocabulary
from slimrank.evaluation.catalogue import AT
from slimrank.evaluation.columns import as_groups, as_values
from slimrank.evaluation.cost import compared_bytes
from slimrank.evaluation.finding import find_items
from slimrank.evaluation.paired import compare, judge
from slimrank.evaluation.question import Question
from slimrank.evaluation.slices import Cut, as_records, compare_slices, cut_by_rank, cut_by_values
from slimrank.runtime import Retriever, load_retriever
from slimrank.runtime.files import read_rows

if TYPE_CHECKING:
    import polars

METRICS = ("ndcg@10", "recall@10", "ndcg@20", "recall@20", "mrr")
TOP = 10


def evidence_of_items(a: Path, b: Path, rows: polars.DataFrame | Path, question: Question) -> dict[str, Any]:
    """Compare the candidate `b` with the baseline `a` on queries whose column of the label holds the item to find.

    Returns:
        As `evidence`: metrics are means over queries, `positives` are queries whose item the baseline knows, `slices`
        are by how often training met that item, and `behaviour` is the share of the baseline's first 10 items that are
        among the candidate's.

    Raises:
        InputError: one of the two is no artifact that answers with items of a catalogue, a column is missing or has
            gaps, a metric is none of lists, or there are too few queries.
    """
    for path in (a, b):
        if path.is_file():
            raise InputError(f"{path}: a model that answers with items is compared with another artifact, not a file")
    models = [load_retriever(path) for path in (a, b)]
    if isinstance(rows, Path):
        rows = read_rows(rows, [model.encoding for model in models])
    label, group = _named(rows, models, question)
    metrics, at = question.metrics or METRICS, _ranks(question.metrics)
    asked = models[0].encoding.schema.model_copy(update={"label": label})
    found = [find_items(model, rows, asked, at=at).metrics for model in models]
    known = models[0].encoding.encode_label(rows[label]) >= models[0].first_item
    hung = np.arange(len(rows)) if group is None else as_groups(rows, group)
    values = {name: (found[0][name].value, found[1][name].value) for name in metrics}
    compared = [
        replace(compare(known, first, second, "value", group=hung), metric=name)
        for name, (first, second) in values.items()
    ]
    cuts = _cuts(rows, models[0], label, question.slices)
    first, second = values[metrics[0]]
    slices = compare_slices(known, first, second, cuts, hung, "value")
    return {
        "a": str(a),
        "b": str(b),
        "bytes": compared_bytes({"a": a, "b": b}),
        "rows": len(rows),
        "positives": int(known.sum()),
        "groups": 0 if group is None else compared[0].groups,
        "metrics": [asdict(one) for one in compared],
        "left_out": {},
        "verdict": {"metric": metrics[0], **asdict(judge(compared[0], question.margin))},
        "slices": as_records(_renamed(slices, metrics[0])),
        "behaviour": {f"overlap@{TOP}": {"mean": _shared(models, rows), "groups": len(rows)}},
        "calibration": {},
    }


def _named(rows: polars.DataFrame, models: Sequence[Retriever], question: Question) -> tuple[str, str | None]:
    """The columns of the item to find and of what queries hang together by."""
    schemas = [model.encoding.schema for model in models]
    labels = {schema.label for schema in schemas}
    if question.label is None and len(labels) > 1:
        raise InputError(f"the models have different labels, {' and '.join(sorted(labels))}: say which (--label)")
    label = question.label or schemas[0].label
    group = question.group or next((one.group for one in schemas if one.group in rows.columns), None)
    wanted = {"label": [label], "group": [group] if group else [], "slices": question.slices}
    faults = [
        f"{what}: the rows have no column {name!r}. {nearest(name, rows.columns)}"
        for what, names in wanted.items()
        for name in names
        if name not in rows.columns
    ]
    if label in rows.columns and (missing := rows[label].null_count()):
        faults.append(f"label {label!r}: {missing} of {len(rows)} values are missing")
    if faults:
        raise InputError("\n".join(faults))
    if not len(rows):
        raise InputError("no rows to compare on")
    return label, group


def _ranks(metrics: Sequence[str]) -> tuple[int, ...]:
    """The k of the metrics, those of `find_in_catalogue` where none is asked for.

    Raises:
        InputError: a metric is none of lists with one item to find.
    """
    for name in metrics:
        if name.partition("@")[0] not in ("ndcg", "recall") and name != "mrr":
            raise InputError(
                f"metric {name!r} is of scores of rows, and these models answer with items. {nearest(name, METRICS)}"
            )
    return tuple(sorted({int(name.partition("@")[2]) for name in metrics if "@" in name})) or AT


def _renamed(slices: dict[str, list[Any]], metric: str) -> dict[str, list[Any]]:
    """The slices with the metric's name, where they were compared by its values."""
    return {
        name: [
            replace(one, comparison=replace(one.comparison, metric=metric)) if one.comparison else one for one in parts
        ]
        for name, parts in slices.items()
    }


def _cuts(rows: polars.DataFrame, model: Retriever, label: str, columns: Sequence[str]) -> dict[str, Cut]:
    """By the columns that are asked for, and by frequency of the item where the order of a vocabulary tells it."""
    schema = model.encoding.schema
    ids = {label, *(each.name for each in schema.categorical)}
    cuts = {name: cut_by_values(as_values(rows[name], as_text=name in ids)) for name in columns}
    if isinstance(model.encoding.codecs[str(schema.catalogue)], Vocabulary):
        rank = model.encoding.encode_label(rows[label]) - model.first_item + 1
        cuts[f"{label} by frequency"] = cut_by_rank(rank, model.count + 1)
    return cuts


def _shared(models: Sequence[Retriever], rows: polars.DataFrame) -> float:
    """The share of the first model's first items that are among the second's, mean over queries."""
    first, second = (model.top_k(rows, TOP).items for model in models)
    pairs = zip(first, second, strict=True)
    return float(np.mean([len(set(one).intersection(other)) / max(len(one), 1) for one, other in pairs]))
