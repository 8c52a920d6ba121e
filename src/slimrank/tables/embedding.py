"""What a model holds: one fused table for all categorical fields, and one lookup for the whole row."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn

from slimrank.data.encoding import Encoding
from slimrank.tables.dense import DenseTable
from slimrank.tables.joined import Run, rows_of
from slimrank.tables.table import Table


@dataclass(frozen=True)
class Layout:
    """The columns of a model's input `ids` [N, K]: which field each belongs to and how many ids the field has.

    Categorical fields come first with one column each, then sequences, and a text as one, with `widths` columns each,
    whose id 0 is padding and whose id 1 is out of vocabulary (in a categorical field id 0 is). `numbers` is the width
    of the second input, 0 where there is none.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    widths: tuple[int, ...]
    numbers: int = 0
    sequences: tuple[str, ...] = ()

    @classmethod
    def of(cls, encoding: Encoding) -> Layout:
        """The columns that an encoding gives."""
        schema, sizes = encoding.schema, encoding.sizes
        widths = tuple(1 if each.kind == "categorical" else each.max_length for each in schema.looked_up)
        sequences = tuple(each.name for each in schema.sequences + schema.texts)
        return cls(tuple(sizes), tuple(sizes.values()), widths, len(schema.numeric), sequences)

    @property
    def num_rows(self) -> int:
        """Rows of the fused table."""
        return sum(self.sizes)

    @property
    def num_categorical(self) -> int:
        """Fields with one column: they come first."""
        return len(self.names) - len(self.sequences)

    @property
    def starts(self) -> tuple[int, ...]:
        """The first row of each field in the fused table."""
        return tuple(accumulate(self.sizes, initial=0))[:-1]

    def per_column(self, values: tuple[int, ...]) -> Tensor:
        """`values`, one a field, repeated for each of the field's columns: [K] int64."""
        return torch.tensor(values, dtype=torch.int64).repeat_interleave(torch.tensor(self.widths, dtype=torch.int64))

    def only(self, kept: Collection[str]) -> Layout:
        """The fields in `kept` alone, in their order; numbers stay."""
        chosen = [place for place, name in enumerate(self.names) if name in kept]
        return Layout(
            names=tuple(self.names[place] for place in chosen),
            sizes=tuple(self.sizes[place] for place in chosen),
            widths=tuple(self.widths[place] for place in chosen),
            numbers=self.numbers,
            sequences=tuple(name for name in self.sequences if name in kept),
        )

    def columns_of(self, kept: Collection[str]) -> Tensor:
        """The columns of `ids` that belong to the fields in `kept`: [K'] int64."""
        return self.per_column(tuple(int(name in kept) for name in self.names)).nonzero().flatten()

    def with_sizes(self, sizes: dict[str, int]) -> Layout:
        """The same fields with fewer ids: the ids of a field are sorted by frequency, so the rare ones are cut off."""
        return replace(self, sizes=tuple(sizes.get(n, s) for n, s in zip(self.names, self.sizes, strict=True)))


class Row(NamedTuple):
    """What a model sees of N rows: looked-up vectors, averaged sequences, and numbers, all float32."""

    lookups: Tensor  # [N, categorical fields, dim]
    averages: Tensor  # [N, sequence fields, dim]
    numbers: Tensor  # [N, numbers]

    @property
    def fields(self) -> Tensor:
        """All fields' vectors [N, fields, dim]."""
        return torch.cat([self.lookups, self.averages], dim=1) if self.averages.shape[1] else self.lookups

    @property
    def others(self) -> Tensor:
        """All that is not a plain lookup, side by side: [N, sequence fields * dim + numbers]."""
        return torch.cat([self.averages.flatten(1), self.numbers], dim=1)

    @property
    def flat(self) -> Tensor:
        """Everything side by side: [N, fields * dim + numbers]."""
        lookups = self.lookups.flatten(1)
        return torch.cat([lookups, self.others], dim=1) if self.others.shape[1] else lookups


class FusedEmbedding(nn.Module):
    """All categorical fields of a row from one table in one lookup, and sequences averaged over what is not padding.

    Rows may have been encoded for a larger model: with `clip`, ids beyond a field's size count as out of vocabulary;
    with `reads`, only those columns of the rows' ids are this layout's. The fields of each run in `joined` are looked
    up together once the model is exported; until then it changes nothing.
    """

    def __init__(
        self,
        layout: Layout,
        table: Table,
        *,
        clip: bool = False,
        reads: Tensor | None = None,
        joined: tuple[Run, ...] = (),
    ):
        super().__init__()
        self.joined = joined
        self.reads: Tensor | None
        self.register_buffer("reads", reads, persistent=False)
        self.layout = layout
        self.table = table
        self.clip = clip
        self.masks_padding = True
        unknown = tuple(int(name in layout.sequences) for name in layout.names)
        self.offsets: Tensor
        self.sizes: Tensor
        self.unknown: Tensor
        self.register_buffer("offsets", layout.per_column(layout.starts).to(torch.int32), persistent=False)
        self.register_buffer("sizes", layout.per_column(layout.sizes).to(torch.int32), persistent=False)
        self.register_buffer("unknown", layout.per_column(unknown).to(torch.int32), persistent=False)
        self.fields = tuple(layout.per_column(tuple(range(len(layout.names)))).tolist())

    @classmethod
    def create(cls, layout: Layout, dim: int, *, std: float, sparse: bool = False) -> FusedEmbedding:
        """A dense fused table with normal rows, except the rows of ids that training may never meet, which are 0.

        Those are each field's out-of-vocabulary row and a sequence's padding: a row that stays at random values
        would add noise to the score of every new id.
        """
        weight = torch.randn(layout.num_rows, dim).mul_(std)
        for name, start in zip(layout.names, layout.starts, strict=True):
            weight[start : start + 1 + (name in layout.sequences)] = 0.0
        return cls(layout, DenseTable(weight, torch.tensor(layout.starts), sparse=sparse))

    def forward(self, ids: Tensor, numbers: Tensor) -> Row:
        """`ids` [N, K] local ids and `numbers` [N, M] to the row that the model scores."""
        ids = self._columns(ids)
        if not self.layout.sequences:
            lookups = self.look_up(ids, self.offsets)
            return Row(lookups, lookups[:, :0], numbers)
        split = self.layout.num_categorical
        lookups = self.look_up(ids[:, :split], self.offsets[:split])
        return Row(lookups, self._averages(ids[:, split:], split), numbers)

    def look_up(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Vectors [N, K, dim] of `ids` [N, K], the columns of the fields that have one each, with their `offsets`."""
        columns = offsets.shape[0]
        vectors: Tensor = self.table(
            rows_of(ids, offsets, self.layout.sizes[:columns], self.joined), self.fields[:columns]
        )
        return vectors

    def _columns(self, ids: Tensor) -> Tensor:
        """The columns of `ids` that this embedding reads, with ids beyond a field's size as out of vocabulary."""
        if self.reads is not None:
            ids = ids.index_select(1, self.reads)
        return torch.where(ids < self.sizes, ids, self.unknown.to(ids.dtype)) if self.clip else ids

    def _averages(self, ids: Tensor, split: int) -> Tensor:
        """For each sequence the mean of its vectors that are not padding, [N, sequences, dim]; 0 for an empty one."""
        widths = list(self.layout.widths[split:])
        vectors = self.table(ids + self.offsets[split:], self.fields[split:])
        kept = (ids != 0).to(vectors.dtype).unsqueeze(-1)
        if self.masks_padding:
            vectors = vectors * kept
        totals = [part.sum(dim=1) for part in torch.split(vectors, widths, dim=1)]
        counts = [part.sum(dim=1).clamp(min=1.0) for part in torch.split(kept, widths, dim=1)]
        return torch.stack([total / count for total, count in zip(totals, counts, strict=True)], dim=1)

    def distinct_rows(self, ids: Tensor) -> Tensor:
        """The vectors [R, dim] of the table's rows that `ids` [N, K] use, each once."""
        rows: Tensor = self.table(torch.unique(self._columns(ids) + self.offsets))
        return rows

    def with_table(self, table: Table) -> FusedEmbedding:
        """The same fields over another table."""
        return FusedEmbedding(self.layout, table, clip=self.clip, reads=self.reads, joined=self.joined)

    def pack(self) -> FusedEmbedding:
        """The form that is exported: packed table, and rows that the artifact's own, smaller schema has encoded.

        Padding rows get no gradients, so most are still 0 and add nothing to a sum: then the graph need not mask them.
        """
        packed = FusedEmbedding(self.layout, self.table.pack(), joined=self.joined)
        starts = self.layout.starts[self.layout.num_categorical :]
        packed.masks_padding = any(bool(packed.table.rows(start, start + 1).any()) for start in starts)
        return packed

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self.table.dim
