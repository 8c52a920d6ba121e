"""Bands of one field's rows, in tables of several kinds: ids are sorted by frequency, and frequent ones get more.

Every band looks up its own ids, so that a batch moves no other rows. In an exported graph every band looks up all ids,
those of other bands as its nearest row, and what is not its own is dropped: a lookup costs a gather a band, and no map.
Left out: which rows a band holds and what it is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.onnx import is_in_onnx_export

from slimrank.tables.table import Table


class BandedTable(Table):
    """`parts`, each of the rows that follow those of the part before; all are of one field."""

    def __init__(self, parts: Sequence[Table]):
        firsts = list(accumulate((part.num_rows for part in parts), initial=0))
        super().__init__(firsts[-1], parts[0].dim, parts[0].starts)
        self.parts = nn.ModuleList(parts)
        self.firsts = firsts[:-1]

    @property
    def tables(self) -> list[Table]:
        """The parts."""
        return [part for part in self.parts if isinstance(part, Table)]

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        if not is_in_onnx_export():
            return look_up_own(self.tables, self.firsts, ids)
        vectors: Tensor | None = None
        for part, first in zip(self.tables, self.firsts, strict=True):
            own = part((ids - first).clamp(0, part.num_rows - 1))
            vectors = own if vectors is None else torch.where((ids >= first).unsqueeze(-1), own, vectors)
        assert vectors is not None
        return vectors

    def pack(self) -> BandedTable:
        packed = [part.pack() for part in self.tables]
        unchanged = all(one is other for one, other in zip(packed, self.tables, strict=True))
        return self if unchanged else BandedTable(packed)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.tables)


def look_up_own(parts: Sequence[Table], firsts: Sequence[int], ids: Tensor) -> Tensor:
    """Vectors [..., dim] of `ids` [...], each looked up in the part that holds it, the last one to begin before it.

    `firsts` is the first row of every part. No part sees the ids of another, whose rows would enter sparse gradients.
    """
    flat = ids.flatten()
    owner = torch.bucketize(flat, torch.tensor(firsts[1:], dtype=ids.dtype, device=ids.device), right=True)
    places = [(owner == place).nonzero().squeeze(1) for place in range(len(parts))]
    found = [part(flat[own] - first) for part, first, own in zip(parts, firsts, places, strict=True) if part.num_rows]
    vectors = torch.cat(found).index_select(0, torch.cat(places).argsort())
    return vectors.view(*ids.shape, vectors.shape[1])
