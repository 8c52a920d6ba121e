"""Scores for a file of rows, written to a file. The rows are read whole and scored in pieces."""

from __future__ import annotations

from collections.abc import Sequence
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


def predict_file(model: Model, rows: Path, out: Path | None = None) -> Predictions:
    """Score a Parquet or CSV file; with `out`, write its columns and `probability` there, in the order of its rows.

    Raises:
        InputError: a file cannot be read or written, or its rows cannot be scored; nothing is half-written.
    """
    if out is not None:
        _check_output(out)
    frame = read_rows(rows, [model.encoding])
    if out is not None and COLUMN in frame.columns:
        raise InputError(f"{rows}: already has a column {COLUMN!r}, which the output adds")
    predictions = predict_pieces(model, frame)
    if out is not None:
        import polars

        scored = frame.with_columns(polars.Series(COLUMN, predictions.probability))
        replace_file(out, _rendered(scored, out))
    return predictions


def find_file(model: Retriever, rows: Path, k: int, out: Path | None = None) -> TopK:
    """The first `k` items of every query in a Parquet or CSV file; with `out`, a Parquet file or JSON lines of them.

    `out` has the file's columns, and `items` and `scores`, a list for each query.

    Raises:
        InputError: as `predict_file`; lists have no place in a CSV file.
    """
    if out is not None:
        if out.suffix not in LISTS:
            raise InputError(f"{out}: unknown kind of file {out.suffix!r} for lists. {nearest(out.suffix, LISTS)}")
        _check_folder(out)
    frame = read_rows(rows, [model.encoding])
    taken = [name for name in (ITEMS, SCORES) if name in frame.columns]
    if out is not None and taken:
        raise InputError(f"{rows}: already has a column {taken[0]!r}, which the output adds")
    found = model.top_k(frame, k)
    if out is not None:
        import polars

        scores = [row[: len(items)].tolist() for row, items in zip(found.scores, found.items, strict=True)]
        listed = frame.with_columns(polars.Series(ITEMS, found.items), polars.Series(SCORES, scores))
        replace_file(out, listed.write_ndjson().encode() if out.suffix == ".jsonl" else _rendered(listed, out))
    return found


def answer_file(graph: Graph, rows: Path, out: Path | None = None) -> dict[str, NDArray[Any]]:
    """What a graph answers to a Parquet or CSV file of its inputs; with `out`, write its columns and the outputs there.

    Columns become inputs as `read_feeds` says. An output with a number a row becomes a column of numbers, one with more
    a column of lists, and one that has no row for each row is left out.

    Raises:
        InputError: as `predict_file`, or no output has a row for each row.
    """
    if out is not None:
        _check_output(out)
    frame = read_rows(rows)
    taken = [name for name in graph.outputs if name in frame.columns]
    if out is not None and taken:
        raise InputError(f"{rows}: already has a column {taken[0]!r}, which the output adds")
    answers = answer_pieces(graph, frame)
    if out is not None:
        import polars

        columns = [polars.Series(name, each) for name, each in answers.items()]
        replace_file(out, _rendered(frame.with_columns(columns), out))
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
    unknown = {field: sum(piece.unknown[field] for piece in pieces) for field in pieces[0].unknown}
    return Predictions(np.concatenate([piece.probability for piece in pieces]), unknown)


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


def _check_output(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}. {nearest(path.suffix, SUFFIXES)}")
    _check_folder(path)


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(f"{path}: could not be written: {path.parent} is no directory")


def _rendered(frame: polars.DataFrame, out: Path) -> bytes:
    import polars

    buffer = BytesIO()
    try:
        if out.suffix == ".csv":
            frame.write_csv(buffer)
        else:
            frame.write_parquet(buffer)
    except polars.exceptions.PolarsError as error:  # lists have no place in a CSV file
        raise InputError(f"{out}: could not be written: {error}") from None
    return buffer.getvalue()
