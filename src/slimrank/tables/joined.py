"""Marks in a graph that is being exported: fields whose rows may be looked up together.

Neighbouring fields with few ids each can be one field over the product of their ids: its table has a row for every
combination, and one lookup gives the vectors of all of them, side by side. What stands there follows from the rows of
the fields, so nothing is stored for it: `slimrank.exporting.joining` builds the joined tables when a graph is loaded.
In eager mode, in a graph that is exported without marks, and where a table does not gather its rows by their numbers,
the mark is a sum. Left out: which fields to join; that is a step's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor

from slimrank.tables.by_row import DOMAIN, is_marking

ROWS_OF = "RowsOf"  # the operator exists between tracing and rewriting, and in no file
EXACT = 1 << 24  # row numbers below this are exact in float32, in which joined ones are computed

Run = tuple[int, int]  # the first of some neighbouring columns, and the column after the last


def rows_of(ids: Tensor, offsets: Tensor, sizes: Sequence[int], joined: Sequence[Run]) -> Tensor:
    """Rows [N, K] of a fused table: `ids` [N, K] + `offsets` [K], int32. Column k has `sizes`[k] ids."""
    if not joined or not is_marking():
        return ids + offsets
    attributes: dict[str, Any] = {"sizes": list(sizes), "joined": [place for run in joined for place in run]}
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{ROWS_OF}", (ids, offsets), attributes, dtype=torch.int32, shape=ids.shape, version=1
    )


def lookups_of(joined: Sequence[Run], columns: int) -> list[Run]:
    """The lookups of a row, each with its columns: the joined runs, and every other column by itself.

    >>> lookups_of([(1, 3)], 4)
    [(0, 1), (1, 3), (3, 4)]
    """
    inside = {place for first, last in joined for place in range(first + 1, last)}
    bounds = [place for place in range(columns) if place not in inside]
    return list(pairwise([*bounds, columns]))


def places(sizes: Sequence[int], lookups: Sequence[Run]) -> Tensor:
    """[columns, lookups] float32: ids @ places is, for each lookup, the number of the combination of its ids.

    The ids of columns of `sizes` n and m make i * m + j.

    >>> places([5, 3, 2], [(0, 1), (1, 3)])
    tensor([[1., 0.],
            [0., 2.],
            [0., 1.]])
    """
    found = torch.zeros(len(sizes), len(lookups))
    for place, (first, last) in enumerate(lookups):
        for column in range(first, last):
            found[column, place] = prod(sizes[column + 1 : last])
    return found


def sizes_of(sizes: Sequence[int], lookups: Sequence[Run]) -> list[int]:
    """How many combinations of ids each of `lookups` has.

    >>> sizes_of([5, 3, 2], [(0, 1), (1, 3)])
    [5, 6]
    """
    return [prod(sizes[first:last]) for first, last in lookups]
