"""Tables of several kinds that stand for one: each holds a range of consecutive fields.

So a large field can be a codebook beside small ones of plain integers. Where the caller says which field each column
is, every part looks up its own columns and no other; else its own ids. In an exported graph, where those cannot be
told, every part is asked for all ids, and what is not its own is dropped. Left out: parts that share a field (a kind
that treats the rows of a field apart does that by itself).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.onnx import is_in_onnx_export

from slimrank.tables.banded import look_up_own
from slimrank.tables.dense import DenseTable
from slimrank.tables.table import Table


class StackedTable(Table):
    """`parts`, one below the other: row r of part p is row r + first row of p."""

    def __init__(self, parts: Sequence[Table]):
        firsts = list(accumulate((part.num_rows for part in parts), initial=0))
        starts = torch.cat([part.starts + first for part, first in zip(parts, firsts, strict=False)])
        super().__init__(firsts[-1], parts[0].dim, starts)
        self.parts = nn.ModuleList(parts)
        self.firsts = firsts[:-1]

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        if fields is None:
            return self._of_any_field(ids) if is_in_onnx_export() else look_up_own(self.tables, self.firsts, ids)
        found, order = [], []
        for part, first, places, own in self._columns(fields):
            found.append(part(_take(ids, places) - first, own))
            order += places
        vectors = found[0] if len(found) == 1 else torch.cat(found, dim=-2)
        if order == sorted(order):
            return vectors
        back = torch.tensor([order.index(place) for place in range(len(order))], device=ids.device)
        return vectors.index_select(-2, back)

    def _columns(self, fields: Sequence[int]) -> list[tuple[Table, int, list[int], tuple[int, ...]]]:
        """The parts that are read: part, its first row, its columns, and their fields counted from its own first."""
        read, first_field = [], 0
        for part, first in zip(self.tables, self.firsts, strict=True):
            last_field = first_field + len(part.starts)
            places = [place for place, field in enumerate(fields) if first_field <= field < last_field]
            if places:
                read.append((part, first, places, tuple(fields[place] - first_field for place in places)))
            first_field = last_field
        return read

    def _of_any_field(self, ids: Tensor) -> Tensor:
        total: Tensor | None = None
        for part, first in zip(self.tables, self.firsts, strict=True):
            if not part.num_rows:
                continue
            local = ids - first
            own = (local >= 0) & (local < part.num_rows)
            vectors = part(local.clamp(0, part.num_rows - 1))
            kept = torch.where(own.unsqueeze(-1), vectors, torch.zeros_like(vectors))
            total = kept if total is None else total + kept
        assert total is not None
        return total

    @property
    def tables(self) -> list[Table]:
        """The parts."""
        return [part for part in self.parts if isinstance(part, Table)]

    def steps(self, fields: Sequence[int]) -> Tensor | None:
        read = self._columns(fields)
        found = [part.steps(own) for part, _, _, own in read]
        known = [steps for steps in found if steps is not None]
        if len(known) < len(found):
            return None
        order = [place for _, _, places, _ in read for place in places]
        return torch.cat(known)[torch.tensor(order).argsort().to(known[0].device)]

    def pack(self) -> StackedTable:
        packed = [part.pack() for part in self.tables]
        unchanged = all(one is other for one, other in zip(packed, self.tables, strict=True))
        return self if unchanged else StackedTable(packed)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.tables)


def stacked(parts: Sequence[Table]) -> Table:
    """One table out of `parts`: neighbours that are dense become one, and neither one part nor a stack is stacked."""
    merged: list[Table] = []
    for part in _flat(parts):
        last = merged[-1] if merged else None
        if isinstance(part, DenseTable) and isinstance(last, DenseTable) and part.sparse == last.sparse:
            starts = torch.cat([last.starts, part.starts + last.num_rows])
            weight = torch.cat([last.weight.detach(), part.weight.detach()])
            merged[-1] = DenseTable(weight, starts, sparse=last.sparse)
        else:
            merged.append(part)
    return merged[0] if len(merged) == 1 else StackedTable(merged)


def _flat(parts: Sequence[Table]) -> list[Table]:
    return [each for part in parts for each in (_flat(part.tables) if isinstance(part, StackedTable) else [part])]


def _take(ids: Tensor, places: list[int]) -> Tensor:
    """Those columns of `ids`; a slice where they are neighbours."""
    if places == list(range(places[0], places[-1] + 1)):
        return ids[..., places[0] : places[-1] + 1]
    return ids.index_select(-1, torch.tensor(places, device=ids.device))
