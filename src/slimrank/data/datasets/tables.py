"""Tables of the user's own, in Parquet or CSV: what their columns mean is inferred, and can be said instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from slimrank.config import Config, InputError, nearest, register
from slimrank.data.files import data_folder, read_csv, read_parquet, table_files
from slimrank.data.rows import Dataset, faults, make_dataset
from slimrank.data.schema import Schema, infer_schema
from slimrank.data.splits import Split, divide

LABELS = ("label", "click", "clicked", "is_click", "target")


class Table(Config):
    """What a table of the user's own says about itself.

    Attributes:
        path: a file, or a folder with files train, valid and test.
        label: the label column; None for the one that is called like a label.
        group: the column to compute metrics per group by, such as a user's or a query's id.
        time: the column to split by time on.
        fields: by column, what replaces the inferred `Field`: kind, encoding, min_count and so on.
        drop: columns that are not inputs.
        answer: what the label is: a click, or the relevance (a grade of 0 or more) of a document to the query `group`,
            which is no input then unless `fields` names it.
        split: how to divide; None for `given` where there are three files, else `time` where there is a time column,
            else `rows`.
    """

    name: str
    path: Path | None = None
    label: str | None = None
    group: str | None = None
    time: str | None = None
    fields: dict[str, dict[str, Any]] = Field(default_factory=dict)
    drop: tuple[str, ...] = ()
    answer: Literal["click", "relevance"] = "click"
    split: Split | None = None


class Parquet(Table):
    """A Parquet file of your own, or a folder with train.parquet, valid.parquet and test.parquet."""

    name: Literal["parquet"] = "parquet"


class Csv(Table):
    """A CSV file of your own with a header, or a folder with train.csv, valid.csv and test.csv.

    Attributes:
        separator: what stands between the values; None for a tab in .tsv files and a comma in others.
    """

    name: Literal["csv"] = "csv"
    separator: str | None = None


@register("dataset", Parquet)
def load_parquet(config: Parquet, folder: Path | None = None) -> Dataset:
    """The dataset in one or three Parquet files."""
    return _dataset(config, [(path, read_parquet(path)) for path in _paths(config, folder)])


@register("dataset", Csv)
def load_csv(config: Csv, folder: Path | None = None) -> Dataset:
    """The dataset in one or three CSV files."""
    tables = []
    for path in _paths(config, folder):
        separator = config.separator or ("\t" if ".tsv" in path.name.lower() else ",")
        tables.append((path, read_csv(path, separator=separator)))
    return _dataset(config, tables)


def _paths(config: Table, folder: Path | None) -> tuple[Path, ...]:
    """The files that the config and the folder name together."""
    path = config.path
    if path is None:
        path = folder
    elif folder is not None and not path.is_absolute():
        path = folder / path
    elif not path.exists() and (root := data_folder(None)) is not None and (root / path).exists():
        path = root / path
    if path is None:
        raise InputError(f"dataset {config.name}: path is missing: name a file, or a folder with train, valid and test")
    return table_files(path) if path.is_dir() else (path,)


def _dataset(config: Table, tables: list[tuple[Path, pl.DataFrame]]) -> Dataset:
    """The dataset in tables that were read, named after the file, or the folder of three."""
    empty = [path for path, frame in tables if frame.is_empty()]
    if empty:
        raise InputError("\n".join(f"{path} is empty: no rows" for path in empty))
    path, first = tables[0]
    name = path.name.split(".")[0] if len(tables) == 1 else path.parent.name
    try:
        schema = _schema(config, first)
    except InputError as error:
        raise InputError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
    _check(tables, schema)
    frames = tuple(frame.select(schema.used) for _, frame in tables)
    return make_dataset(name, schema, divide(frames, config.split or _usual_split(config, len(tables)), config.time))


def _check(tables: list[tuple[Path, pl.DataFrame]], schema: Schema) -> None:
    """Refuse unfit files, naming them and counting over the whole file."""
    found = [
        f"{path}: {fault}"
        for place, (path, frame) in enumerate(tables)
        for fault in faults(frame, schema, constant=place == 0)
    ]
    if found:
        raise InputError("\n".join(found))


def _usual_split(config: Table, tables: int) -> Split:
    """The split where the user says none."""
    if tables == 3:
        return Split(kind="given")
    return Split(kind="time" if config.time else "rows")


def _schema(config: Table, frame: pl.DataFrame) -> Schema:
    """The schema inferred from a table, with the user's words on top."""
    label = config.label or _label_of(frame)
    unknown = [name for name in config.drop if name not in frame.columns]
    if unknown:
        raise InputError("\n".join(f"no column {name!r} to drop. {nearest(name, frame.columns)}" for name in unknown))
    both = sorted(set(config.drop) & ({label, config.group, config.time} | set(config.fields)))
    dropped = [name for name in config.drop if name not in both]
    schema = infer_schema(
        frame.drop(dropped), label=label, group=config.group, time=config.time, overrides=_without(config.fields, both)
    )
    if config.answer == "relevance" and config.group not in config.fields:
        both = [*both, config.group or ""]
    kept = tuple(each for each in schema.fields if each.name not in both)
    return Schema.parse({**dict(schema), "fields": kept, "answer": config.answer})


def _without(fields: Mapping[str, Mapping[str, Any]], names: list[str]) -> dict[str, Mapping[str, Any]]:
    """The overrides of fields that are kept."""
    return {name: keys for name, keys in fields.items() if name not in names}


def _label_of(frame: pl.DataFrame) -> str:
    """The one column that is called like a label."""
    found = [name for name in frame.columns if name.lower() in LABELS]
    if len(found) == 1:
        return found[0]
    what = (
        f"several columns are called like a label ({', '.join(found)})" if found else "no column is called like a label"
    )
    columns = ", ".join(frame.columns[:40])
    raise InputError(f"{what}: {', '.join(LABELS)}. Name it (label = ...). Columns: {columns}.")
