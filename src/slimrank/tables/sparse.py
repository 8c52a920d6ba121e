"""The kind `sparse`: of every row the few values that matter, each with its column; all others are 0.

For wide rows, whose values mean something by themselves: the weights of one item for every other in a linear model of
items, which lose more by fewer dimensions than by fewer values (Steck 2019, "Markov random fields for collaborative
filtering", arXiv 1910.09645). A row keeps as many values as its own are worth, in blocks of eight: a block is copied
at once, where single values would each cost a lookup. Left out: which values matter, where more is known than their
size (a step may say), and speed for narrow rows, whose zeros are not worth skipping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from slimrank.config import Config, register
from slimrank.tables.table import Table, check_rows, one_field

BLOCK = 8
LARGEST_CODE = 127
MOST_ROWS = 1 << 31  # that one call may add up
SHORT = 1 << 15  # numbers from 0 that fit two bytes


class Sparse(Config):
    """The share `keep` of the values, the largest in size, as bytes with one scale or floats, each with its column."""

    name: Literal["sparse"] = "sparse"
    keep: float = Field(default=0.1, gt=0, le=1)
    bits: Literal[8, 32] = 8


class Blocks(Table):
    """Rows of blocks behind one another: row r has the blocks `begins`[r] to `begins`[r + 1], each of `BLOCK` values.

    `columns` [blocks, BLOCK] says where the values belong; where a row has fewer than its blocks hold, the column is
    `dim`, which is no column, and the value counts nowhere.
    """

    columns: Tensor
    begins: Tensor

    def __init__(self, columns: Tensor, begins: Tensor, dim: int, starts: Tensor):
        super().__init__(len(begins) - 1, dim, starts)
        self.register_buffer("columns", columns)
        self.register_buffer("begins", begins)
        self.most_blocks = int(begins.diff().max())

    def values_of(self, blocks: Tensor) -> Tensor:
        """The stored values [T, BLOCK] of `blocks` [T], of the type that they are added up in."""
        raise NotImplementedError

    def scaled(self, sums: Tensor) -> Tensor:
        """Sums of stored values as float32."""
        raise NotImplementedError

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        row = ids.reshape(-1)
        vectors = self._spread(row, torch.arange(row.shape[0], device=ids.device), row.shape[0])
        return vectors.view(*ids.shape, self.dim)

    def summed(self, chosen: Tensor) -> Tensor:
        owner, row = chosen.nonzero().unbind(dim=1)
        # Without a bound on the rows the exporter writes down one of its own, which is beyond 64 bits.
        torch._check(row.shape[0] <= MOST_ROWS)  # type: ignore[no-untyped-call]
        return self._spread(row, owner, chosen.shape[0])

    def _spread(self, row: Tensor, owner: Tensor, count: int) -> Tensor:
        """Vectors [count, dim]: row `row`[m] is added to vector `owner`[m]. The work is that of the blocks met."""
        row = row.long()
        first = self.begins.index_select(0, row).long()
        length = self.begins.index_select(0, row + 1).long() - first
        slots = torch.arange(self.most_blocks, device=row.device)
        which, slot = (slots < length.unsqueeze(1)).nonzero().unbind(dim=1)
        blocks = first.index_select(0, which) + slot
        width = self.dim + 1
        target = self.columns.index_select(0, blocks).long() + (owner.index_select(0, which) * width).unsqueeze(1)
        values = self.values_of(blocks)
        zeros = torch.zeros(count * width, dtype=values.dtype, device=row.device)
        sums = zeros.scatter_add(0, target.reshape(-1), values.reshape(-1))
        return self.scaled(sums.view(count, width)[:, : self.dim])


class SparseTable(Blocks):
    """The trainable form: floats that are rounded as they are read; which values there are does not change.

    `scale` [1] is the value of one step of a byte, so that the largest value has the code 127; None for floats.
    """

    scale: Tensor | None

    def __init__(self, values: Tensor, columns: Tensor, begins: Tensor, dim: int, starts: Tensor, bits: int = 8):
        super().__init__(columns, begins, dim, starts)
        self.values = nn.Parameter(values)
        self.register_buffer("scale", step_of(values) if bits == 8 else None)

    def values_of(self, blocks: Tensor) -> Tensor:
        values = self.values.index_select(0, blocks)
        if self.scale is None:
            return values
        rounded = (values.detach() / self.scale).round().clamp(-LARGEST_CODE, LARGEST_CODE) * self.scale
        return values + (rounded - values.detach())  # the gradient passes straight through

    def scaled(self, sums: Tensor) -> Tensor:
        return sums

    @torch.no_grad()
    def kept(self) -> Tensor:
        """Which values of all [num_rows, dim] are stored."""
        mask = torch.zeros(self.num_rows, self.dim + 1, dtype=torch.bool, device=self.columns.device)
        mask[self._row_of_each(), self.columns.long()] = True
        return mask[:, : self.dim]

    @torch.no_grad()
    def assign(self, weight: Tensor) -> None:
        """Take the stored values, and the scale that fits them, from `weight` [num_rows, dim]."""
        padded = torch.nn.functional.pad(weight, (0, 1))
        self.values.copy_(padded[self._row_of_each(), self.columns.long()])
        if self.scale is not None:
            self.scale.copy_(step_of(self.values))

    def pack(self) -> Table:
        codes = self.values.detach().clone()
        if self.scale is not None:
            codes = (codes / self.scale).round().clamp(-LARGEST_CODE, LARGEST_CODE).to(torch.int8)
        return PackedSparseTable(codes, self.scale, self.columns, self.begins, self.dim, self.starts)

    @property
    def nbytes(self) -> int:
        return nbytes_of(len(self.values), self.num_rows, self.dim, 8 if self.scale is not None else 32)

    def _row_of_each(self) -> Tensor:
        """The row of every block, [blocks, 1]."""
        rows = torch.arange(self.num_rows, device=self.columns.device)
        return rows.repeat_interleave(self.begins.long().diff()).unsqueeze(1)


class PackedSparseTable(Blocks):
    """The packed form: a byte (or a float) a value, two or four bytes for its column, and where every row begins.

    Bytes are added up as integers, so that a vector is the same whatever is computed beside it.
    """

    codes: Tensor
    scale: Tensor | None

    def __init__(self, codes: Tensor, scale: Tensor | None, columns: Tensor, begins: Tensor, dim: int, starts: Tensor):
        super().__init__(columns.to(narrow(dim + 1)), begins.to(narrow(len(columns) + 1)), dim, starts)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", None if scale is None else scale.clone())

    def values_of(self, blocks: Tensor) -> Tensor:
        codes = self.codes.index_select(0, blocks)
        return codes if self.scale is None else codes.to(torch.int32)

    def scaled(self, sums: Tensor) -> Tensor:
        return sums if self.scale is None else sums.to(torch.float32) * self.scale

    def pack(self) -> Table:
        return self

    @property
    def nbytes(self) -> int:
        return nbytes_of(len(self.codes), self.num_rows, self.dim, 8 if self.scale is not None else 32)


def step_of(values: Tensor) -> Tensor:
    """The value of one step of a byte [1], with which the largest of `values` in size has the code 127."""
    return values.detach().abs().max().clamp(min=torch.finfo(torch.float32).tiny).reshape(1) / LARGEST_CODE


def narrow(numbers: int) -> torch.dtype:
    """The smallest type that holds 0..numbers - 1 and that torch and ONNX both look up."""
    return torch.int16 if numbers <= SHORT else torch.int32


def nbytes_of(blocks: int, num_rows: int, dim: int, bits: int = 8) -> int:
    """Packed bytes of a table of so many blocks.

    >>> nbytes_of(blocks=10, num_rows=9, dim=40)  # 80 values of 1 + 2 bytes, 10 numbers of blocks, one scale
    264
    """
    each = bits // 8 + narrow(dim + 1).itemsize
    return blocks * BLOCK * each + (num_rows + 1) * narrow(blocks + 1).itemsize + 4 * (bits == 8)


def sparse_table(weight: Tensor, blocks: int, starts: Tensor | None = None, bits: int = 8) -> SparseTable:
    """The `blocks` blocks of values of `weight` [num_rows, dim] whose sizes add up to most, at least one, as a table.

    A row's first block holds its eight largest values, its second the next eight: a row has as many as are worth it.

    Raises:
        InputError: the weight is empty, NaN, infinite or out of bounds.
    """
    check_rows(weight)
    weight = weight.detach()
    ordered = torch.nn.functional.pad(weight.abs(), (0, -weight.shape[1] % BLOCK), value=-1.0)
    sizes, order = ordered.sort(dim=1, descending=True, stable=True)
    worth = sizes.clamp(min=0).view(len(weight), -1, BLOCK).sum(dim=2)
    kept = worth.flatten().argsort(descending=True, stable=True)[: max(blocks, 1)].sort().values
    row = kept // worth.shape[1]
    columns = order.view(-1, BLOCK)[kept].clamp(max=weight.shape[1]).sort(dim=1).values
    values = torch.nn.functional.pad(weight, (0, 1))[row.unsqueeze(1), columns]
    ends = torch.bincount(row, minlength=len(weight)).cumsum(0).to(torch.int32)
    begins = torch.nn.functional.pad(ends, (1, 0))
    starts = one_field(weight) if starts is None else starts
    return SparseTable(values, columns.to(torch.int32), begins, weight.shape[1], starts, bits)


@register("table", Sparse)
def sparse(config: Sparse, weight: Tensor, starts: Tensor | None = None) -> SparseTable:
    """A sparse table of the share `config.keep` of the values of `weight` [num_rows, dim], in whole blocks."""
    weight = weight.to(torch.float32)
    blocks = weight.shape[0] * (-(-weight.shape[1] // BLOCK))
    return sparse_table(weight, round(config.keep * blocks), starts, config.bits)
