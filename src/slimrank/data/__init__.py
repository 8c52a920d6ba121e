"""Rows to batches: schema, encoding fitted on train only, splits, and the datasets.

Importing this loads neither polars nor a dataset: the runtime reads `data.schema` and `data.encoding` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimrank.config import Config, InputError, entries, find, nearest, runner

if TYPE_CHECKING:
    from slimrank.data.rows import Dataset


def load_dataset(source: Config | Mapping[str, Any] | str | Path, data: Path | str | None = None) -> Dataset:
    """A checked dataset in three splits.

    Args:
        source: a dataset's config, the same as a mapping with a key `name`, a registered name, a Parquet or CSV file,
            or a folder that holds train, valid and test files or a registered dataset's own files.
        data: the folder (or file) to read from; None for the directory in SLIMRANK_DATA.

    Raises:
        InputError: no such dataset or file, or the data is unfit; the message says what was found and allowed.
    """
    config, folder = resolve(source)
    from polars.exceptions import PolarsError

    try:
        dataset: Dataset = runner("dataset", config)(config, Path(data) if data is not None else folder)
    except PolarsError as error:
        raise InputError(f"{config.name}: the files are not of the expected format: {error}") from None  # type: ignore[attr-defined]
    return dataset


def resolve(source: Config | Mapping[str, Any] | str | Path) -> tuple[Config, Path | None]:
    """The config that `source` means, and the folder to read from where `source` is one.

    Raises:
        InputError: it means none.
    """
    if isinstance(source, Config):
        return source, None
    if isinstance(source, Mapping):
        if "name" not in source:
            raise InputError(f"a dataset needs a name. {nearest('', entries('dataset'))}")
        entry = find("dataset", str(source["name"]))
        return entry.config.parse(source, f"dataset {entry.name}"), None
    if isinstance(source, str) and source in entries("dataset"):
        return entries("dataset")[source].config.parse({}, f"dataset {source}"), None
    return _from_path(Path(source))


def _from_path(path: Path) -> tuple[Config, Path | None]:
    """The dataset in a file or folder: a folder called like a registered dataset is that one, others hold tables."""
    from slimrank.data.files import suffix_of, table_files

    known = entries("dataset")
    own = {**{name: name for name in known}, "ml-100k": "movielens-100k", "ml-1m-sasrec": "movielens-1m"}
    if path.is_dir() and path.name in own:
        return known[own[path.name]].config.parse({}), path
    suffix = suffix_of(table_files(path)[0]) if path.is_dir() else suffix_of(path)
    if suffix is None:
        raise InputError(
            f"unknown dataset {str(path)!r}. {nearest(str(path), known)} Or a .parquet or .csv file, or a folder."
        )
    return known[suffix].config.parse({"path": str(path)}), None
