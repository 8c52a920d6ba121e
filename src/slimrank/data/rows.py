"""Tables and encoded rows in memory, and the checks that a table passes before it is used.

`Dataset` is what a loader hands over: three tables and what they mean. `Rows` is what training and evaluation take:
arrays, read by index. Left out: where the tables come from (`datasets`) and how values become ids (`encoding`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from slimrank.config import InputError, nearest
from slimrank.data.appending import appended
from slimrank.data.encoding import Encoding, Inputs
from slimrank.data.schema import Schema

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Rows:
    """Encoded rows: inputs, label [N], and group int64 [N] or None.

    The label is float32 in {0, 1} or a grade; where an item is the answer, its int64 local id in the catalogue's field.
    """

    inputs: Inputs
    label: NDArray[Any]
    group: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: NDArray[Any] | slice) -> Rows:
        """The rows at `index` (integers, a mask or a slice), in that order."""
        return Rows(self.inputs.take(index), self.label[index], None if self.group is None else self.group[index])

    def head(self, n: int) -> Rows:
        """The first `n` rows, or all where there are fewer; a view, not a copy."""
        return self.take(slice(0, max(n, 0)))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A table in three splits, with what it means.

    Attributes:
        name: the dataset's registered name, or the file's stem.
        schema: what the columns mean.
        train: rows to fit on; `valid`: rows to select on; `test`: rows to report on. Columns as `schema.used`.
        fingerprint: sha256 over schema, content and splits.
        facts: what is known beside the rows, such as `bayes_auc` of synthetic data.
    """

    name: str
    schema: Schema
    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame
    fingerprint: str
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, pl.DataFrame]:
        """The three tables by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


@dataclass(frozen=True, eq=False)
class EncodedDataset:
    """A dataset as arrays, the encoding that was fitted on its train split, and unknown values by split and field."""

    encoding: Encoding
    train: Rows
    valid: Rows
    test: Rows
    unknown: dict[str, dict[str, int]]


def make_dataset(
    name: str, schema: Schema, splits: tuple[pl.DataFrame, ...], facts: Mapping[str, Any] | None = None
) -> Dataset:
    """A checked dataset of the three tables (train, valid, test), with its fingerprint.

    Raises:
        InputError: a table is unfit (see `faults`); all faults of all tables at once.
    """
    found = [
        f"{name}, {split}: {fault}"
        for split, frame in zip(SPLITS, splits, strict=True)
        for fault in faults(frame, schema, constant=split == "train")
    ]
    if not found and schema.answer == "relevance":
        found = [f"{name}: {fault}" for fault in torn_groups(schema, splits)]
    if found:
        raise InputError("\n".join(found))
    train, valid, test = (frame.select(schema.used) for frame in splits)
    return Dataset(name, schema, train, valid, test, fingerprint(schema, (train, valid, test)), dict(facts or {}))


def faults(frame: pl.DataFrame, schema: Schema, *, constant: bool = True) -> list[str]:
    """What makes a labelled table unfit, a line each: rows, columns, labels, numbers, and columns of one value.

    Args:
        frame: the table.
        schema: what its columns should be.
        constant: whether a column of one value is a fault (it is in train, where nothing can be learned from it).
    """
    if frame.is_empty():
        return ["no rows"]
    missing = [name for name in schema.used if name not in frame.columns]
    found = [f"missing column {name!r}. {nearest(name, frame.columns)}" for name in missing]
    if schema.label not in missing:
        found += LABEL_FAULTS[schema.answer](frame[schema.label])
    if schema.answer == "relevance" and schema.group not in missing and frame[schema.group or ""].null_count():
        count = frame[schema.group or ""].null_count()
        found.append(f"group {schema.group!r} is missing in {count} of {len(frame)} rows: a grade is of a query")
    for name in (column.name for column in schema.numeric if column.name not in missing):
        found += number_faults(frame[name])
    if constant:
        for name in (column.name for column in schema.fields if column.name not in missing):
            found += constant_faults(frame[name])
    return found


def torn_groups(schema: Schema, splits: tuple[pl.DataFrame, ...]) -> list[str]:
    """Queries with documents in two splits: a model would be judged on a query that it was fitted to."""
    assert schema.group is not None
    found = []
    queries = {split: frame[schema.group].unique() for split, frame in zip(SPLITS, splits, strict=True)}
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        both = queries[one].filter(queries[one].is_in(queries[other].implode())).sort()
        if len(both):
            found.append(f"{len(both)} of {schema.group!r} are in {one} and in {other}, such as {both[0]!r}")
    return found


def label_faults(label: pl.Series) -> list[str]:
    """Why a column cannot be a label: values other than 0 and 1 (a sample with counts), or one class only."""
    if label.dtype.is_nested():
        return [f"label {label.name!r} is of type {label.dtype}. Allowed: 0 and 1."]
    if not (label.dtype.is_numeric() or label.dtype == pl.Boolean):
        return [f"label {label.name!r} is of type {label.dtype}: {_sample(label)}. Allowed: 0 and 1."]
    wrong = ~label.cast(pl.Float64).is_in([0.0, 1.0]).fill_null(False)
    if wrong.any():
        return [
            f"label {label.name!r} is not 0 or 1 in {wrong.sum()} of {len(label)} rows: {_sample(label)}. "
            "Allowed: 0 and 1."
        ]
    if label.n_unique() == 1:
        return [f"label {label.name!r} is {int(label[0])} in all {len(label)} rows: both classes are needed"]
    return []


def grade_faults(label: pl.Series) -> list[str]:
    """Why a column cannot be a grade of relevance: text, gaps, values below 0 or not finite."""
    if not label.dtype.is_numeric():
        return [f"label {label.name!r} is of type {label.dtype}. Allowed: numbers of at least 0."]
    wrong = ~((label >= 0) & label.cast(pl.Float64).is_finite()).fill_null(False)
    if not wrong.any():
        return []
    return [
        f"label {label.name!r} is no grade in {wrong.sum()} of {len(label)} rows: {_sample(label.filter(wrong))}. "
        "Allowed: numbers of at least 0."
    ]


def item_faults(label: pl.Series) -> list[str]:
    """Why a column cannot name the item that is to be found: lists, floats, gaps."""
    if label.dtype.is_nested() or label.dtype.is_float():
        return [f"label {label.name!r} is of type {label.dtype}. Allowed: one item, an integer or text."]
    if label.null_count():
        return [f"label {label.name!r} is missing in {label.null_count()} of {len(label)} rows"]
    return []


def number_faults(numbers: pl.Series) -> list[str]:
    """NaN and infinity in a float column, counted."""
    if not numbers.dtype.is_float():
        return []
    nan, infinite = int(numbers.is_nan().sum()), int(numbers.is_infinite().sum())
    parts = [f"{count} {what}" for count, what in ((nan, "NaN"), (infinite, "infinite")) if count]
    return [f"column {numbers.name!r}: {' and '.join(parts)} of {len(numbers)} values"] if parts else []


def constant_faults(column: pl.Series) -> list[str]:
    """That a column has one value (or none), from which nothing can be learned."""
    if column.n_unique() > 1:
        return []
    return [
        f"column {column.name!r} has one value, {column.head(1).to_list()[0]!r}, in all {len(column)} rows: drop it"
    ]


def without_constants(schema: Schema, train: pl.DataFrame) -> tuple[Schema, list[str]]:
    """The schema without the fields that have one value in train, and their names.

    For files of a fixed format, where the user cannot be asked to drop a column; in their own tables it is a fault.
    """
    left_out = [each.name for each in schema.fields if constant_faults(train[each.name])]
    kept = tuple(each for each in schema.fields if each.name not in left_out)
    return Schema.parse({**dict(schema), "fields": kept}), left_out


LABEL_FAULTS = {"click": label_faults, "relevance": grade_faults, "item": item_faults}


def _sample(column: pl.Series, most: int = 5) -> str:
    """The most frequent values of a column with their counts, as text."""
    counts = column.rename("value").value_counts(name="count").sort("count", "value", descending=[True, False])
    shown = [f"{value!r} ({count} rows)" for value, count in counts.head(most).iter_rows()]
    more = f" and {len(counts) - most} more" if len(counts) > most else ""
    return "found " + ", ".join(shown) + more


def encode_dataset(dataset: Dataset, base: Encoding | None = None) -> EncodedDataset:
    """The dataset as arrays, by an encoding fitted on its train split alone; with a `base`, one that appends to it.

    Raises:
        InputError: a value cannot be encoded; the message names split and column.
    """
    with _named(f"{dataset.name}, train"):
        if base is None:
            encoding = Encoding.fit(dataset.schema, dataset.train)
        else:
            encoding = appended(base, dataset.schema, dataset.train)
    groups = group_codes(dataset)
    rows, unknown = {}, {}
    for split, frame in dataset.splits.items():
        with _named(f"{dataset.name}, {split}"):
            inputs, unknown[split] = encoding.encode_counting(frame)
        label = encoding.encode_label(frame[dataset.schema.label])
        rows[split] = Rows(inputs, label, None if groups is None else groups[split])
    return EncodedDataset(encoding, rows["train"], rows["valid"], rows["test"], unknown)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Begin every line of an error with where it arose."""
    try:
        yield
    except InputError as error:
        raise InputError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from None


def group_codes(dataset: Dataset) -> dict[str, NDArray[np.int64]] | None:
    """Groups by split as int64: integers as they are, other values numbered alike in all splits; missing is -1."""
    name = dataset.schema.group
    if name is None:
        return None
    columns = pl.concat([frame.select(name) for frame in dataset.splits.values()], how="vertical_relaxed")[name]
    if not columns.dtype.is_integer():
        columns = columns.cast(pl.String).rank("dense") - 1
    numbers = columns.cast(pl.Int64).fill_null(-1).to_numpy()
    ends = np.cumsum([len(frame) for frame in dataset.splits.values()])[:-1]
    return dict(zip(dataset.splits, np.split(numbers, ends), strict=True))


def fingerprint(schema: Schema, splits: tuple[pl.DataFrame, ...]) -> str:
    """sha256 over the schema and every value of every split, whatever their chunks and integer widths in memory."""
    record = schema.model_dump(mode="json")
    for each in record["fields"]:
        if "tokenizer" in each:  # where it lies is not what it is
            each["tokenizer"] = hashlib.sha256(Path(each["tokenizer"]).read_bytes()).hexdigest()
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for frame in splits:
        digest.update(f"{len(frame)}".encode())
        for column in frame.get_columns():
            for start in range(0, len(column), 1 << 20):
                for part in _content(column[start : start + (1 << 20)]):
                    digest.update(part)
    return digest.hexdigest()


def _content(column: pl.Series) -> Iterator[bytes]:
    """The values of a column as bytes: where it is missing, lengths where they vary, then the values."""
    yield np.packbits(column.is_null().to_numpy()).tobytes()
    column = column.drop_nulls()
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if isinstance(column.dtype, pl.List):
        lengths = column.list.len()
        yield lengths.cast(pl.Int64).to_numpy().tobytes()
        if lengths.sum():
            yield from _content(column.filter(lengths > 0).explode())
    elif column.dtype.is_integer() or column.dtype == pl.Boolean:
        yield column.cast(pl.Int64, strict=False).fill_null(-1).to_numpy().tobytes()
    elif column.dtype.is_float():
        yield column.cast(pl.Float64).to_numpy().tobytes()
    else:
        text = column.cast(pl.String)
        yield text.str.len_bytes().cast(pl.Int64).to_numpy().tobytes()
        yield "".join(text.to_list()).encode()
