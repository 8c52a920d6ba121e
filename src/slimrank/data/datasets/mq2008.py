"""MQ2008 of LETOR 4.0: documents of web queries with 46 features and a grade; a task of relevance.

The five parts S1..S5 make five folds: three parts to fit on, one to select on, one to report on, each part the test of
one fold. LETOR scaled every feature to 0..1 within its query. Left out: the document ids behind the features.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field as Setting

from slimrank.config import Config, InputError, register
from slimrank.data.files import locate, nowhere
from slimrank.data.rows import Dataset, make_dataset, without_constants
from slimrank.data.schema import Field, Schema

PARTS = 5
FEATURES = tuple(f"f{number}" for number in range(1, 47))
GRADES = ("0", "1", "2")
FILES = (
    tuple(f"S{part}.txt.gz" for part in range(1, PARTS + 1)),
    tuple(f"S{part}.txt" for part in range(1, PARTS + 1)),
)
SOURCE = (
    "LETOR 4.0 (Qin and Liu 2013, arXiv 1306.2597) is published by Microsoft Research: the parts are S1.txt to S5.txt "
    "of MQ2008, plain or as .txt.gz."
)


class MQ2008(Config):
    """MQ2008 of LETOR 4.0, 15,211 documents of 784 queries with 46 numbers and grades 0 to 2, in one of its five folds.

    Fold 1 fits on S1, S2 and S3, selects on S4 and reports on S5; each fold moves on by one.
    """

    name: Literal["mq2008"] = "mq2008"
    fold: int = Setting(default=1, ge=1, le=PARTS)


@register("dataset", MQ2008)
def load(config: MQ2008, folder: Path | None = None) -> Dataset:
    """A fold of MQ2008 from `folder`, or SLIMRANK_DATA; the group is the query, the label the grade.

    Features of one value in the fold's train parts are left out and named in `facts`.

    Raises:
        InputError: a file is missing, or a line is not LETOR's; the message names file and line.
    """
    files = locate(folder, ["mq2008", "MQ2008"], FILES)
    if files is None or len(files) != PARTS:
        raise nowhere(config.name, "mq2008/S1.txt.gz to S5.txt.gz", SOURCE, folder)
    parts = [read_letor(path) for path in files]
    parts = parts[config.fold - 1 :] + parts[: config.fold - 1]
    splits = (pl.concat(parts[:3]), parts[3], parts[4])
    fields = tuple(Field(name=name, kind="numeric") for name in FEATURES)
    schema = Schema(fields=fields, label="grade", group="query", answer="relevance")
    schema, left_out = without_constants(schema, splits[0])
    return make_dataset(config.name, schema, splits, {"left_out": left_out})


def read_letor(path: Path) -> pl.DataFrame:
    """The documents of a LETOR file: `grade`, `query`, and `f1` to `f46`; what follows a # is a comment.

    Raises:
        InputError: a line has other grades, no query, other features or a value that is no number.
    """
    rows = list(_rows(path))
    if not rows:
        raise InputError(f"{path} is empty: no documents")
    columns = {"grade": pl.Int8, "query": pl.Int64, **dict.fromkeys(FEATURES, pl.Float32)}
    return pl.DataFrame(rows, schema=columns, orient="row")


def _rows(path: Path) -> Iterator[tuple[float, ...]]:
    """The documents of a file, one a line."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                content = line.partition("#")[0]
                if content.strip():
                    yield _document(content.split(), f"{path}, line {number}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: truncated, or not a text file: {error}") from None


def _document(parts: list[str], where: str) -> tuple[float, ...]:
    """Grade, query and features of one line: `grade qid:number 1:value ... 46:value`."""
    grade = parts[0]
    if grade not in GRADES:
        raise InputError(f"{where}: grade {grade!r}. Allowed: {', '.join(GRADES)}.")
    query = parts[1].removeprefix("qid:") if len(parts) > 1 and parts[1].startswith("qid:") else ""
    if not query.isdecimal():
        raise InputError(f"{where}: no query: the second value is {' '.join(islice(parts, 1, 2))!r}, not qid:number")
    found = [part.partition(":") for part in parts[2:]]
    if [name for name, _, _ in found] != [name[1:] for name in FEATURES]:
        raise InputError(f"{where}: {len(found)} features, MQ2008 has 46, written 1:value to 46:value in this order")
    try:
        return (int(grade), int(query), *(float(value) for _, _, value in found))
    except ValueError as error:
        raise InputError(f"{where}: a feature is no number: {error}") from None
