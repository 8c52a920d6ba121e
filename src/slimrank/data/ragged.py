"""Lists of places, one for each query: the items that a user met already, the documents that a query is to find.

One flat array and where each list begins, so that a chunk of queries is a slice. Left out: what the places count, which
whoever uses the lists checks (`Ragged.check`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError

Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ragged:
    """The list of query i is `values[starts[i] : starts[i + 1]]`.

    >>> Ragged.of([[3, 1], [], [2]]).starts.tolist()
    [0, 2, 2, 3]

    Attributes:
        values: [M] int64.
        starts: [N + 1] int64, from 0, never falling, to M.

    Raises:
        InputError: they are no integers, or `starts` is no such array.
    """

    values: Places
    starts: Places

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", integers("values", self.values))
        object.__setattr__(self, "starts", integers("starts", self.starts))
        starts = self.starts
        if not len(starts) or starts[0] or starts[-1] != len(self.values) or (np.diff(starts) < 0).any():
            raise InputError(f"starts: must rise from 0 to the {len(self.values)} values, got {_some(starts)}")

    @classmethod
    def of(cls, lists: Iterable[ArrayLike]) -> Ragged:
        """From one list for each query."""
        each = [integers("a list", one) for one in lists]
        lengths = [len(one) for one in each]
        return cls.of_lengths(np.concatenate([np.empty(0, np.int64), *each]), lengths)

    @classmethod
    def of_lengths(cls, values: ArrayLike, lengths: ArrayLike) -> Ragged:
        """From all lists one after the other, and how long each is, [N]."""
        return cls(integers("values", values), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    @classmethod
    def one_each(cls, values: ArrayLike) -> Ragged:
        """Lists of one value: `values` [N]."""
        own = integers("values", values)
        return cls(own, np.arange(len(own) + 1))

    @classmethod
    def kept(cls, values: NDArray[np.integer[Any]], where: NDArray[np.bool_]) -> Ragged:
        """The row of each query in `values` [N, L], without what `where` [N, L] does not keep, such as padding."""
        return cls.of_lengths(values[where], where.sum(axis=1))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, query: int) -> Places:
        """The list of one query."""
        return self.values[self.starts[query] : self.starts[query + 1]]

    @property
    def lengths(self) -> Places:
        """[N] how long each list is."""
        return np.diff(self.starts)

    @property
    def query(self) -> Places:
        """[M] the query that each value belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def part(self, start: int, stop: int) -> Ragged:
        """The lists of queries `start` to `stop`."""
        first, last = self.starts[start], self.starts[stop]
        return Ragged(self.values[first:last], self.starts[start : stop + 1] - first)

    def where(self, kept: NDArray[np.bool_]) -> Ragged:
        """Without the values where `kept` [M] is false; as many lists as before."""
        return Ragged(self.values[kept], np.concatenate([[0], np.cumsum(kept)])[self.starts])

    def distinct(self) -> Ragged:
        """The different values of every list, rising."""
        lowest = int(self.values.min(initial=0))
        span = int(self.values.max(initial=0)) - lowest + 1
        key = np.sort(self.query * span + self.values - lowest)  # one sort of numbers, far faster than of pairs
        key = key[np.concatenate([[True], key[1:] != key[:-1]])[: len(key)]]
        lengths = np.bincount(key // span, minlength=len(self))
        return Ragged.of_lengths(key % span + lowest, lengths)

    def holds(self, query: Places, value: Places) -> NDArray[np.bool_]:
        """Whether the list of each `query` [n] has that `value` [n]; lists must be `distinct` ones."""
        span = int(max(self.values.max(initial=0), value.max(initial=0))) + 1
        keys, asked = self.query * span + self.values, query * span + value
        at = np.searchsorted(keys, asked)
        return np.asarray(np.append(keys, -1)[at] == asked)

    def check(self, name: str, queries: int, items: int, least: int = 0) -> None:
        """Hold the lists to a catalogue.

        Raises:
            InputError: there is not one list for each query, or a place is below `least` or no item of `items`.
        """
        if len(self) != queries:
            raise InputError(f"{name}: got lists for {len(self)} queries, there are {queries}")
        wrong = (self.values < least) | (self.values >= items)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InputError(
                f"{name}: {int(wrong.sum())} of {len(wrong)} places are no item of the catalogue (query "
                f"{int(self.query[at])}: {int(self.values[at])}); allowed are {least} to {items - 1}"
            )


def integers(name: str, values: ArrayLike) -> Places:
    """`values` [M] as int64.

    Raises:
        InputError: they are no integers in a row.
    """
    array = np.asarray(values)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or not array.size):
        raise InputError(f"{name}: must be integers in one row, got {array.dtype} of shape {array.shape}")
    return array.astype(np.int64, copy=False)


def _some(values: Places) -> str:
    return np.array2string(values, threshold=6, edgeitems=3)
