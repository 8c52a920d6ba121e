"""Scores for a file of rows, written to a file. The rows are read whole and scored in pieces."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slimrank.config import InputError, nearest
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
        _check_suffix(out)
    frame = read_rows(rows)
    if out is not None and COLUMN in frame.columns:
        raise InputError(f"{rows}: already has a column {COLUMN!r}, which the output adds")
    predictions = predict_pieces(model, frame)
    if out is not None:
        import polars

        _write(frame.with_columns(polars.Series(COLUMN, predictions.probability)), out)
    return predictions


def predict_pieces(model: Model, frame: polars.DataFrame) -> Predictions:
    """`model.predict`, some rows at a time: the same scores, bounded memory."""
    pieces = [model.predict(frame.slice(start, PIECE)) for start in range(0, max(1, len(frame)), PIECE)]
    unknown = {field: sum(piece.unknown[field] for piece in pieces) for field in pieces[0].unknown}
    return Predictions(np.concatenate([piece.probability for piece in pieces]), unknown)


def read_rows(path: Path) -> polars.DataFrame:
    """A Parquet or CSV file as a frame.

    Raises:
        InputError: no such file, another kind of file, empty, truncated.
    """
    import polars

    _check_suffix(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty")
    try:
        if path.suffix == ".csv":
            return polars.read_csv(path, glob=False)
        return polars.read_parquet(path, glob=False)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: truncated, or no {path.suffix[1:]} file: {error}") from None


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}. {nearest(path.suffix, SUFFIXES)}")


def _write(frame: polars.DataFrame, out: Path) -> None:
    """Written beside, synced, renamed."""
    content = _rendered(frame, out)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, out)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{out}: could not be written: {error.strerror}; nothing was left behind") from error


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
