"""Scores for a file of rows, written to a file. The rows are read whole and scored in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slimrank.config import InputError, nearest
from slimrank.data.encoding import Encoding
from slimrank.files import replace_file
from slimrank.runtime.model import Model, Predictions

if TYPE_CHECKING:
    import polars

PIECE = 65_536  # rows a call: bounds the memory of encoding and of the graph's intermediate tensors
COLUMN = "probability"
SUFFIXES = (".parquet", ".csv")


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
