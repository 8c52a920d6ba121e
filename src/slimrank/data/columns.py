"""One raw column to the local ids of its field, by what was fitted on train.

Left out: numbers, which `scaling` has, and how the ids of all fields stand beside one another (`encoding`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError, nearest
from slimrank.data.schema import Field
from slimrank.data.text import TextCodec
from slimrank.data.vocabulary import Codec

if TYPE_CHECKING:
    import polars


def encode_text(frame: polars.DataFrame, each: Field, codec: TextCodec) -> tuple[NDArray[np.int32], int]:
    """Ids [N, max_length] of a column of texts, or of two, padded behind, and how many were cut."""
    if each.pair is not None and each.pair not in frame.columns:
        raise InputError(f"missing column {each.pair!r}. {nearest(each.pair, frame.columns)}")
    pairs = None if each.pair is None else frame[each.pair].to_list()
    found, cut = codec.encode(frame[each.name].to_list(), pairs, names=(each.name, each.pair or ""))
    ids = np.zeros((len(frame), each.max_length), np.int32)
    ids[:, : found.shape[1]] = found
    return ids, cut


def encode_sequence(column: polars.Series, each: Field, codec: Codec) -> tuple[NDArray[np.int32], int]:
    """Local ids [N, max_length] of a column of lists, padded behind, and how many are unknown."""
    values, lengths = flat(column, each)
    codes, unknown = codec.codes(values)
    ids = np.zeros((len(column), each.max_length), np.int32)
    ids[np.arange(each.max_length) < lengths[:, None]] = codes + 1
    return ids, unknown


def flat(column: polars.Series, each: Field, *, whole: bool = False) -> tuple[polars.Series, NDArray[np.int64]]:
    """The last `max_length` values of every row (or all of them) behind one another, and how many each row has [N]."""
    import polars

    rows = lists(column, each)
    last = rows if whole else rows.list.tail(each.max_length)
    lengths = last.list.len().fill_null(0)
    return last.filter(lengths > 0).explode(), lengths.cast(polars.Int64).to_numpy()


def lists(column: polars.Series, each: Field) -> polars.Series:
    """A sequence column as lists, however it is stored."""
    import polars

    if each.separator is not None and column.dtype == polars.String:
        column = column.str.split(each.separator).list.eval(polars.element().filter(polars.element() != ""))
    if isinstance(column.dtype, polars.Array):
        column = column.arr.to_list()
    if column.dtype == polars.Null:
        column = column.cast(polars.List(polars.Null))
    if not isinstance(column.dtype, polars.List):
        hint = ", or text with a separator" if each.separator is None else ""
        raise InputError(f"column {each.name!r} is of type {column.dtype}, a sequence is a list{hint}")
    return column
