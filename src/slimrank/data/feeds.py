"""Rows of a file, or arrays, as what the inputs of a graph are fed with.

An input takes the column of its name; one of K columns in each row takes a column of lists, or the columns NAME_0 to
NAME_{K-1}. For calibration, where the rest are columns that nobody named after an input, it may take the K columns that
no other input takes, if no other is left without. Left out: encoding. The columns hold what the graph was made for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import polars as pl
from numpy.typing import NDArray

from slimrank.config import InputError, nearest
from slimrank.data.files import read_csv, read_parquet, suffix_of
from slimrank.data.tensors import TensorSpec

Array = NDArray[Any]
AT_ONCE = 256  # rows in a run, where the graph takes any number


@dataclass(frozen=True)
class Feeds:
    """Arrays [rows, ...] for every input of a graph, and how many rows it takes at once, None for any number."""

    arrays: Mapping[str, Array]
    at_once: int | None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def batches(self, rows: int, seed: int = 0) -> Iterator[dict[str, Array]]:
        """About `rows` rows, drawn at random where there are more, some at a time."""
        size, count = self.at_once or AT_ONCE, min(rows, len(self))
        if self.at_once:
            count = max(size, count // size * size)
        chosen = np.random.default_rng(seed).permutation(len(self))[:count]
        for start in range(0, count, size):
            part = np.sort(chosen[start : start + size])
            yield {name: array[part] for name, array in self.arrays.items()}


def read_feeds(
    data: Path | str | pl.DataFrame | Mapping[str, Array], inputs: Sequence[TensorSpec], *, rest: bool = True
) -> Feeds:
    """What `data` feeds to `inputs`.

    Args:
        data: a .parquet, .csv or .npz file, a table, or an array for each input.
        inputs: of a graph, whose first axis are rows.
        rest: whether an input may take the columns that no other takes. Where answers count none may: a label would do.

    Raises:
        InputError: the file cannot be read, or its columns do not fit the inputs; every fault is named.
    """
    if isinstance(data, Path | str):
        data = _read(Path(data))
    found, faults = _from_table(data, inputs, rest) if isinstance(data, pl.DataFrame) else _from_arrays(data, inputs)
    arrays = {}
    for each in inputs:
        if each.name in found:
            try:
                arrays[each.name] = _fitted(found[each.name], each)
            except InputError as error:
                faults.append(str(error))
    lengths = {name: len(array) for name, array in arrays.items()}
    if not faults and len(set(lengths.values())) > 1:
        faults.append(f"inputs have different numbers of rows: {lengths}")
    firsts = {each.shape[0] for each in inputs if each.shape}
    fixed = next((size for size in firsts if isinstance(size, int)), None)
    if not faults and (not lengths or min(lengths.values()) < (fixed or 1)):
        faults.append(f"{min(lengths.values(), default=0)} rows, at least {fixed or 1} are needed")
    if faults:
        raise InputError("\n".join(f"data: {fault}" for fault in faults))
    return Feeds(arrays, fixed)


def _read(path: Path) -> pl.DataFrame | dict[str, Array]:
    if path.suffix == ".npz":
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                return dict(held)
        except (OSError, ValueError, BadZipFile) as error:
            raise InputError(f"{path}: not a .npz file: {error}") from None
    kind = suffix_of(path)
    if kind is None:
        raise InputError(f"{path}: rows are a .parquet, .csv or .npz file")
    return read_parquet(path) if kind == "parquet" else read_csv(path)


def _from_arrays(data: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> tuple[dict[str, Array], list[str]]:
    missing = [each.name for each in inputs if each.name not in data]
    faults = [f"no array for input {name!r}. {nearest(name, data)}" for name in missing]
    return {each.name: np.asarray(data[each.name]) for each in inputs if each.name in data}, faults


def _from_table(
    frame: pl.DataFrame, inputs: Sequence[TensorSpec], may_rest: bool
) -> tuple[dict[str, Array], list[str]]:
    """Columns for every input, and what is wrong with them."""
    taken: dict[str, list[str]] = {}
    for each in inputs:
        width = _width(each)
        numbered = [f"{each.name}_{place}" for place in range(width or 0)]
        if each.name in frame.columns:
            taken[each.name] = [each.name]
        elif numbered and all(name in frame.columns for name in numbered):
            taken[each.name] = numbered
    left = [each for each in inputs if each.name not in taken]
    rest = [name for name in frame.columns if not any(name in own for own in taken.values())]
    if may_rest and len(left) == 1 and _width(left[0]) == len(rest):
        taken[left.pop().name] = rest
    faults = [
        f"no column for input {each.name!r}{_wanted(each, rest)}. {nearest(each.name, frame.columns)}" for each in left
    ]
    found = {}
    for name, columns in taken.items():
        try:
            found[name] = _stacked([frame[column] for column in columns])
        except InputError as error:
            faults.append(str(error))
    return found, faults


def _wanted(each: TensorSpec, rest: list[str]) -> str:
    width = _width(each)
    return "" if width is None else f" [rows, {width}], and {len(rest)} columns are of no other input"


def _width(each: TensorSpec) -> int | None:
    """How many columns a row of an input has: 1 for [rows], None where it has more axes or any number of columns."""
    if len(each.shape) != 2:
        return 1 if len(each.shape) == 1 else None
    return each.shape[1] if isinstance(each.shape[1], int) else None


def _stacked(columns: list[pl.Series]) -> Array:
    """Columns of numbers side by side, or one column of lists that are equally long."""
    for column in columns:
        inner = column.dtype
        while isinstance(inner, pl.List | pl.Array):
            inner = inner.inner  # type: ignore[assignment]
        if not (inner.is_numeric() or inner == pl.Boolean):
            raise InputError(f"column {column.name!r} is of type {column.dtype}, numbers are needed")
        if column.null_count():
            raise InputError(f"column {column.name!r} is missing in {column.null_count()} of {len(column)} rows")
    if len(columns) > 1:
        return np.stack([column.to_numpy() for column in columns], axis=1)
    if not columns[0].dtype.is_nested():
        array: Array = columns[0].to_numpy()
        return array
    return _of_lists(columns[0])


def _of_lists(column: pl.Series) -> Array:
    """A column of lists, or of lists of lists, as one array, all being equally long."""
    shape = [len(column)]
    while column.dtype.is_nested():
        lists = column if isinstance(column.dtype, pl.List) else column.arr.to_list()
        lengths = lists.list.len().unique()
        if len(lengths) > 1:
            raise InputError(f"column {column.name!r} has lists of different lengths: pad them")
        shape.append(int(lengths[0]) if len(lengths) else 0)
        column = lists.explode() if shape[-1] else lists.explode().clear()
        if column.null_count():
            raise InputError(f"column {column.name!r} is missing in {column.null_count()} places of its lists")
    array: Array = column.to_numpy()
    return array.reshape(shape)


def _fitted(array: Array, each: TensorSpec) -> Array:
    """`array` in the type and with the axes of an input."""
    shape = each.shape[1:]
    if array.ndim == 1 and shape and all(size == 1 or isinstance(size, str) for size in shape):
        array = array.reshape(-1, *[1] * len(shape))
    if array.ndim == 2 and array.shape[1] == 1 and not shape:
        array = array[:, 0]
    fits = array.ndim == len(shape) + 1 and all(
        isinstance(size, str) or size == got for size, got in zip(shape, array.shape[1:], strict=False)
    )
    if not fits:
        wanted = ["rows", *("any" if isinstance(size, str) else size for size in shape)]
        raise InputError(f"input {each.name!r} is [{', '.join(map(str, wanted))}], got {list(array.shape)}")
    if array.dtype.kind not in "biuf":
        raise InputError(f"input {each.name!r} takes numbers of type {each.dtype}, got {array.dtype}")
    if each.dtype.kind == "b" and not np.isin(array, (0, 1)).all():
        raise InputError(f"input {each.name!r} takes truth values, 0 and 1, got other numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"input {each.name!r}: {np.count_nonzero(~np.isfinite(array))} values are NaN or infinite")
    with np.errstate(over="ignore", invalid="ignore"):
        found = array.astype(each.dtype)
    if each.dtype.kind in "iu" and (found != array).any():
        raise InputError(f"input {each.name!r} takes whole numbers that {each.dtype} holds, got {array.dtype}")
    if each.dtype.kind == "f" and not np.isfinite(found).all():
        raise InputError(f"input {each.name!r}: {np.count_nonzero(~np.isfinite(found))} values do not fit {each.dtype}")
    return found
