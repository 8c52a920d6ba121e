"""Scores for a file of rows, written to a file. The rows are read whole and scored in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError, nearest
from slimrank.data.encoding import Encoding
from slimrank.files import replace_file
from slimrank.runtime.graph import Graph
from slimrank.runtime.model import Model, Predictions
from slimrank.runtime.retriever import Retriever, TopK

if TYPE_CHECKING:
    import polars

PIECE = 65_536  # rows a call: bounds the memory of encoding and of the graph's intermediate tensors
COLUMN = "probability"
ITEMS, SCORES = "items", "scores"
SUFFIXES = (".parquet", ".csv")
LISTS = (".parquet", ".jsonl")
WRITERS = {".csv": "write_csv", ".jsonl": "write_ndjson", ".parquet": "write_parquet"}  # of a frame


def predict_file(model: Model, rows: Path, out: Path | None = None) -> Predictions:
    """Score a Parquet or CSV file; with `out`, write its columns and `probability` there, in the order of its rows.

    Raises:
        InputError: a file cannot be read or written, or its rows cannot be scored; nothing is half-written.
    """
    _check_output(out)
    frame = read_rows(rows, [model.encoding])
    _check_free(out, rows, frame, [COLUMN])
    predictions = predict_pieces(model, frame)
    if out is not None:
        _write(out, frame, {COLUMN: predictions.probability})
    return predictions


def find_file(model: Retriever, rows: Path, k: int, out: Path | None = None) -> TopK:
    """The first `k` items of every query in a Parquet or CSV file; with `out`, a Parquet file or JSON lines of them.

    `out` has the file's columns, and `items` and `scores`, a list for each query.

    Raises:
        InputError: as `predict_file`; lists have no place in a CSV file.
    """
    _check_output(out, LISTS, " for lists")
    frame = read_rows(rows, [model.encoding])
    _check_free(out, rows, frame, [ITEMS, SCORES])
    found = model.top_k(frame, k)
    if out is not None:
        scores = [row[: len(items)].tolist() for row, items in zip(found.scores, found.items, strict=True)]
        _write(out, frame, {ITEMS: found.items, SCORES: scores})
    return found


def answer_file(graph: Graph, rows: Path, out: Path | None = None) -> dict[str, NDArray[Any]]:
    """What a graph answers to a Parquet or CSV file of its inputs; with `out`, write its columns and the outputs there.

    Columns become inputs as `read_feeds` says. An output with a number a row becomes a column of numbers, one with more
    a column of lists, and one that has no row for each row is left out.

    Raises:
        InputError: as `predict_file`, or no output has a row for each row.
    """
    _check_output(out)
    frame = read_rows(rows)
    _check_free(out, rows, frame, graph.outputs)
    answers = answer_pieces(graph, frame)
    if out is not None:
        _write(out, frame, answers)
    return answers


def answer_pieces(graph: Graph, frame: polars.DataFrame) -> dict[str, NDArray[Any]]:
    """The outputs of a graph that have a row for each row of a frame, [rows] or [rows, ...], some rows at a time.

    Raises:
        InputError: the columns do not fit the inputs, a value is not allowed, the graph takes one number of rows only,
            or no output has a row for each row.
    """
    from slimrank.data.feeds import read_feeds

    feeds = read_feeds(frame, list(graph.inputs.values()), rest=False)
    if feeds.at_once is not None:
        raise InputError(f"{graph.artifact.path}: takes {feeds.at_once} rows at a time, and not those of a file")
    pieces = []
    for start in range(0, len(feeds), PIECE):
        some = {name: array[start : start + PIECE] for name, array in feeds.arrays.items()}
        pieces.append((len(next(iter(some.values()))), graph.run(some)))
    by_row = [name for name in graph.outputs if all(found[name].shape[:1] == (rows,) for rows, found in pieces)]
    if not by_row:
        told = ", ".join(f"{name} {spec.told()}" for name, spec in graph.outputs.items())
        raise InputError(f"{graph.artifact.path}: no output has a row for each row: {told}")
    whole = {name: np.concatenate([found[name] for _, found in pieces]) for name in by_row}
    return {name: each.ravel() if each.size == len(feeds) else each for name, each in whole.items()}


def predict_pieces(model: Model, frame: polars.DataFrame) -> Predictions:
    """`model.predict`, some rows at a time: the same scores, bounded memory."""
    pieces = [model.predict(frame.slice(start, PIECE)) for start in range(0, max(1, len(frame)), PIECE)]
    unknown, shortened = (
        {field: sum(told[field] for told in counts) for field in counts[0]}
        for counts in ([piece.unknown for piece in pieces], [piece.shortened for piece in pieces])
    )
    return Predictions(np.concatenate([piece.probability for piece in pieces]), unknown, shortened)


def read_rows(path: Path, encodings: Sequence[Encoding] = ()) -> polars.DataFrame:
    """A Parquet or CSV file as a frame; in a CSV file, what any vocabulary knows as text is read as text.

    (Left to guess from a few rows, postcodes such as 05001 become numbers that the vocabulary does not hold.)

    Raises:
        InputError: no such file, another kind of file, empty, truncated.
    """
    import polars

    from slimrank.data.files import read_csv, read_parquet, suffix_of

    kind = suffix_of(path)
    if kind is None:
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}. {nearest(path.suffix, SUFFIXES)}")
    if kind == "parquet":
        return read_parquet(path)
    separator = "\t" if ".tsv" in path.suffixes else ","
    names = read_csv(path, separator=separator, n_rows=0).columns
    known = [name for encoding in encodings for name in encoding.text_fields]
    text = {name: polars.String for name in known if name in names}
    return read_csv(path, separator=separator, schema_overrides=text)


def _check_output(out: Path | None, suffixes: Sequence[str] = SUFFIXES, what: str = "") -> None:
    if out is None:
        return
    if out.suffix not in suffixes:
        raise InputError(f"{out}: unknown kind of file {out.suffix!r}{what}. {nearest(out.suffix, suffixes)}")
    if not out.parent.is_dir():
        raise InputError(f"{out}: could not be written: {out.parent} is no directory")


def _check_free(out: Path | None, rows: Path, frame: polars.DataFrame, names: Iterable[str]) -> None:
    """Raises `InputError` where the rows have a column that the output would add."""
    taken = [name for name in names if name in frame.columns]
    if out is not None and taken:
        raise InputError(f"{rows}: already has a column {taken[0]!r}, which the output adds")


def _write(out: Path, frame: polars.DataFrame, columns: Mapping[str, Any]) -> None:
    """Write a frame and further columns to `out`, whole or not at all."""
    import polars

    whole, buffer = frame.with_columns([polars.Series(name, each) for name, each in columns.items()]), BytesIO()
    try:
        getattr(whole, WRITERS[out.suffix])(buffer)
    except polars.exceptions.PolarsError as error:  # lists have no place in a CSV file
        raise InputError(f"{out}: could not be written: {error}") from None
    replace_file(out, buffer.getvalue())
