"""Maps from the rows of a large table to the rows that were kept of it, each as small as the kept rows allow.

Every field keeps at least one row, its shared one, and a row that was dropped is answered by the shared row of its
field. Three forms, and the smallest in bytes is taken:

    first    the first rows of every field were kept (ids sorted by frequency): a bound per field, nothing per row
    index    the new row within the field, in 1, 2 or 4 bytes a row
    bits     one bit a row, and per word of 64 rows how many rows were kept before it: 1.5 bits a row

The last is a bitmap with rank (Jacobson 1989, "Space-efficient static trees and graphs"): a kept row's new place is the
number of kept rows before it. Operators that count bits are not in standard ONNX: a table of 256 counts does it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from slimrank.tables.integer import divide, modulo

WORD = 64  # rows of a word


class RowMap(nn.Module, ABC):
    """Rows of the whole table to rows of the kept one, of the same integer type.

    Made of `kept` [rows] bool; `starts` and `inner_starts` [fields], the first row of each field before and after; and
    `shared` [fields], each field's row, after, for all that was dropped.
    """

    @abstractmethod
    def forward(self, ids: Tensor, fields: Tensor) -> Tensor:
        """The kept rows of `ids` [...], whose fields are `fields`, int64 [...] or [columns]."""

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state_dict().values())


class FirstRows(RowMap):
    """The first rows of every field were kept: a row below the field's `bound` moves by `shift`, others share one."""

    bound: Tensor
    shift: Tensor
    shared: Tensor

    def __init__(self, kept: Tensor, starts: Tensor, inner_starts: Tensor, shared: Tensor):
        super().__init__()
        sizes = torch.diff(inner_starts, append=kept.sum().reshape(1))
        self.register_buffer("bound", (starts + sizes).to(torch.int32))
        self.register_buffer("shift", (starts - inner_starts).to(torch.int32))
        self.register_buffer("shared", shared.to(torch.int32))

    def forward(self, ids: Tensor, fields: Tensor) -> Tensor:
        bound, shift, shared = (each[fields].to(ids.dtype) for each in (self.bound, self.shift, self.shared))
        return torch.where(ids < bound, ids - shift, shared)


class IndexMap(RowMap):
    """`index` [rows, 1] holds each row's place after the field's `base`, in the fewest bytes that hold it."""

    index: Tensor
    base: Tensor

    def __init__(self, kept: Tensor, starts: Tensor, inner_starts: Tensor, shared: Tensor):
        super().__init__()
        width, zero = _integer_of(int(torch.diff(inner_starts, append=kept.sum().reshape(1)).max()))
        index = torch.empty(len(kept), 1, dtype=width, device=kept.device)
        for field, (first, last) in enumerate(pairwise([*starts.tolist(), len(kept)])):
            own = kept[first:last]
            place = torch.cumsum(own, 0, dtype=torch.int32).sub_(1)
            place[~own] = int(shared[field] - inner_starts[field])
            index[first:last, 0] = place.sub_(zero).to(width)
        self.register_buffer("index", index)
        self.register_buffer("base", (inner_starts + zero).to(torch.int32))

    def forward(self, ids: Tensor, fields: Tensor) -> Tensor:
        place = functional.embedding(ids, self.index).squeeze(-1)
        return place.to(ids.dtype) + self.base[fields].to(ids.dtype)


class BitMap(RowMap):
    """`bits` [words, 8] uint8: bit r of a word says that its row r was kept; `before` [words, 1] kept rows before it.

    `masks` [65, 8] has in row r the r lowest bits of a word, and `ones` [256, 1] how many bits every byte has.
    """

    bits: Tensor
    before: Tensor
    masks: Tensor
    ones: Tensor
    shared: Tensor

    def __init__(self, kept: Tensor, starts: Tensor, inner_starts: Tensor, shared: Tensor):
        super().__init__()
        words = (len(kept) + WORD - 1) // WORD
        padded = np.zeros(words * WORD, bool)
        padded[: len(kept)] = kept.cpu().numpy()
        rows = padded.reshape(words, WORD)
        before = np.cumsum(rows.sum(axis=1)) - rows.sum(axis=1)
        self._store("bits", _packed(rows), kept)
        self._store("before", before.astype(np.int32)[:, None], kept)
        self._store("masks", _packed(np.arange(WORD + 1)[:, None] > np.arange(WORD)), kept)
        bytes_ = np.arange(256, dtype=np.uint8)[:, None]
        self._store("ones", np.unpackbits(bytes_, axis=1).sum(axis=1, dtype=np.uint8)[:, None], kept)
        self.register_buffer("shared", shared.to(torch.int32))

    def _store(self, name: str, values: npt.NDArray[np.generic], like: Tensor) -> None:
        self.register_buffer(name, torch.from_numpy(values).to(like.device))

    def forward(self, ids: Tensor, fields: Tensor) -> Tensor:
        word, place = divide(ids, WORD), modulo(ids, WORD)
        both = place.unsqueeze(-1) + torch.arange(2, dtype=ids.dtype, device=ids.device)
        found = functional.embedding(word, self.bits).unsqueeze(-2) & functional.embedding(both, self.masks)
        counts = functional.embedding(found.to(torch.int32), self.ones).squeeze(-1).to(torch.int32)
        below, upto = counts.sum(dim=-1, dtype=torch.int32).unbind(-1)  # kept rows before this one, and with it
        rank = functional.embedding(word, self.before).squeeze(-1) + below
        return torch.where(upto > below, rank, self.shared[fields]).to(ids.dtype)


def row_map(kept: Tensor, starts: Tensor, inner_starts: Tensor, shared: Tensor) -> RowMap:
    """The smallest map for `kept` [rows] bool, where every field keeps at least its shared row."""
    return _smallest(kept, starts)[0](kept, starts, inner_starts, shared)


def map_bytes(kept: Tensor, starts: Tensor) -> int:
    """Bytes of the map that `row_map` would make.

    >>> map_bytes(torch.arange(1000) < 10, torch.tensor([0])), map_bytes(torch.arange(1000) >= 990, torch.tensor([0]))
    (12, 972)
    """
    return _smallest(kept, starts)[1]


def _smallest(kept: Tensor, starts: Tensor) -> tuple[type[RowMap], int]:
    """The form with the fewest bytes, and how many they are."""
    bounds = list(pairwise([*starts.tolist(), len(kept)]))
    counts = [int(kept[first:last].sum()) for first, last in bounds]
    if all(bool(kept[first : first + count].all()) for (first, _), count in zip(bounds, counts, strict=True)):
        return FirstRows, 3 * 4 * len(bounds)
    words = (len(kept) + WORD - 1) // WORD
    index = len(kept) * _integer_of(max(counts))[0].itemsize
    bits = words * (8 + 4) + (WORD + 1) * 8 + 256
    return (IndexMap, index + 4 * len(bounds)) if index <= bits else (BitMap, bits + 4 * len(bounds))


def _integer_of(count: int) -> tuple[torch.dtype, int]:
    """The narrowest type for 0 .. count - 1, and what its zero stands for (two bytes are signed in torch)."""
    if count <= 1 << 8:
        return torch.uint8, 0
    return (torch.int16, 1 << 15) if count <= 1 << 16 else (torch.int32, 0)


def _packed(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Rows of 64 booleans as 8 bytes each, the first boolean in the lowest bit of the first byte."""
    return np.packbits(rows, axis=1, bitorder="little")
