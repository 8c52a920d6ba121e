"""Tables from files, and where the files are.

A folder that the user names comes first, then the directory in the environment variable SLIMRANK_DATA.
Left out: downloads. No dataset is fetched; an error says where it can be had.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from slimrank.config import InputError, nearest

DATA_VARIABLE = "SLIMRANK_DATA"
UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, UnicodeDecodeError)
PARQUET_SUFFIXES = (".parquet", ".pq")
CSV_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")


def read_parquet(path: Path) -> pl.DataFrame:
    """The table in a Parquet file.

    Raises:
        InputError: no such file, empty, truncated, or not Parquet.
    """
    _check_content(path)
    try:
        return pl.read_parquet(path, glob=False)
    except UNREADABLE as error:
        raise InputError(f"{path}: truncated, or not a Parquet file ({path.stat().st_size} bytes): {error}") from None


def read_csv(path: Path, **options: Any) -> pl.DataFrame:
    """The table in a CSV file; `options` are those of `polars.read_csv`.

    Types are inferred from the first 10,000 rows, and from all rows where that does not hold.

    Raises:
        InputError: no such file, empty, or not a table.
    """
    _check_content(path)
    options = {"infer_schema_length": 10_000, "glob": False, **options}
    try:
        try:
            return pl.read_csv(path, **options)
        except pl.exceptions.ComputeError:
            return pl.read_csv(path, **{**options, "infer_schema_length": None})
    except UNREADABLE as error:
        raise InputError(f"{path}: not a table of values: {error}") from None


def _check_content(path: Path) -> None:
    """Refuse a file that is not there (with the nearest name that is) or has no bytes."""
    if not path.exists():
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(f"{path}: no such file. {nearest(path.name, beside[:50]) if beside else ''}".rstrip())
    if path.is_dir():
        raise InputError(f"{path} is a folder, a file is needed")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: 0 bytes")


def data_folder(folder: Path | None) -> Path | None:
    """The folder that was given, else the one in SLIMRANK_DATA, else None.

    Raises:
        InputError: that folder is not there.
    """
    if folder is not None:
        if not folder.exists():
            raise InputError(f"{folder}: no such folder")
        return folder
    named = os.environ.get(DATA_VARIABLE)
    if not named:
        return None
    if not Path(named).is_dir():
        raise InputError(f"{DATA_VARIABLE}={named}: no such folder")
    return Path(named)


def locate(folder: Path | None, inside: Sequence[str], files: Sequence[tuple[str, ...]]) -> tuple[Path, ...] | None:
    """The first of several sets of files that is all there, or None.

    Args:
        folder: where to look; None for SLIMRANK_DATA. A file stands for itself.
        inside: names that the dataset's own folder may have inside it.
        files: sets of file names, the preferred first.
    """
    root = data_folder(folder)
    if root is None:
        return None
    if root.is_file():
        return (root,)
    for place in [root, *(root / name for name in inside)]:
        for names in files:
            if all((place / name).is_file() for name in names):
                return tuple(place / name for name in names)
    return None


def nowhere(dataset: str, files: str, source: str, folder: Path | None) -> InputError:
    """The error for a dataset whose files are not there: what was looked for, where, and where it can be had."""
    root = data_folder(folder)
    looked = f"not in {root}" if root else f"no folder was named and {DATA_VARIABLE} is not set"
    return InputError(
        f"{dataset}: {files} not found: {looked}. Name the folder that holds it (--data, or {DATA_VARIABLE}). {source}"
    )


def suffix_of(path: Path) -> str | None:
    """`parquet` or `csv` by the file's name, None for any other."""
    name = path.name.lower()
    if name.endswith(PARQUET_SUFFIXES):
        return "parquet"
    return "csv" if name.endswith(CSV_SUFFIXES) else None


def table_files(folder: Path) -> tuple[Path, Path, Path]:
    """The three files of a folder that are called train, valid (validation, dev, val) and test.

    Raises:
        InputError: one of them is not there, or there are several.
    """
    names = {"train": ("train",), "valid": ("valid", "validation", "dev", "val"), "test": ("test",)}
    files = sorted(each for each in folder.iterdir() if each.is_file() and suffix_of(each))
    found = {split: [f for f in files if f.name.split(".")[0].lower() in stems] for split, stems in names.items()}
    faults = [
        f"{folder}: {len(matches)} files for {split}, one is needed ({' or '.join(names[split])}, .parquet or .csv)"
        for split, matches in found.items()
        if len(matches) != 1
    ]
    if faults:
        raise InputError("\n".join(faults))
    return found["train"][0], found["valid"][0], found["test"][0]
