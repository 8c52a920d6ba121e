"""The kind `sparse`: of every row the few values that matter, each with its column; all others are 0.

For wide rows, whose values mean something by themselves: the weights of one item for every other in a linear model of
items, which lose more by fewer dimensions than by fewer values (Steck 2019, "Markov random fields for collaborative
filtering", arXiv 1910.09645). A row keeps as many values as its own are worth. Left out: which values matter, where
more is known than their size (a step may say), and speed for narrow rows: there are no zeros worth skipping in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from slimrank.config import Config, register
from slimrank.tables.table import Table, check_rows, one_field

LARGEST_CODE = 127
SHORT = 1 << 15  # columns, or values of a row, from which their numbers take four bytes


class Sparse(Config):
    """The share `keep` of the values, the largest in size, as bytes with one scale or floats, each with its column."""

    name: Literal["sparse"] = "sparse"
    keep: float = Field(default=0.1, gt=0, le=1)
    bits: Literal[8, 32] = 8


class Ragged(Table):
    """Rows of unequal length behind one another: row r has `lengths`[r] values, at `columns`, in rising order."""

    columns: Tensor
    lengths: Tensor

    def __init__(self, columns: Tensor, lengths: Tensor, dim: int, starts: Tensor):
        super().__init__(len(lengths), dim, starts)
        self.register_buffer("columns", columns)
        self.register_buffer("lengths", lengths)
        self.longest = int(lengths.max())

    def values_at(self, places: Tensor) -> Tensor:
        """The stored values [T] at `places` [T], of the type that they are added up in."""
        raise NotImplementedError

    def scaled(self, sums: Tensor) -> Tensor:
        """Sums of stored values as float32."""
        raise NotImplementedError

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        flat = ids.reshape(-1)
        return self._spread(flat, torch.arange(flat.shape[0], device=ids.device), flat.shape[0]).view(
            *ids.shape, self.dim
        )

    def summed(self, chosen: Tensor) -> Tensor:
        owner, row = chosen.nonzero().unbind(dim=1)
        return self._spread(row, owner, chosen.shape[0])

    def _spread(self, row: Tensor, owner: Tensor, count: int) -> Tensor:
        """Vectors [count, dim]: row `row`[m] is added to vector `owner`[m]. The work is that of the values met."""
        lengths = self.lengths.to(torch.int64)
        begins = torch.cumsum(lengths, dim=0) - lengths
        slots = torch.arange(self.longest, device=row.device)
        which, slot = (slots < lengths.index_select(0, row).unsqueeze(1)).nonzero().unbind(dim=1)
        places = begins.index_select(0, row).index_select(0, which) + slot
        target = owner.index_select(0, which) * self.dim + self.columns.index_select(0, places).to(torch.int64)
        values = self.values_at(places)
        sums = torch.zeros(count * self.dim, dtype=values.dtype, device=row.device).scatter_add(0, target, values)
        return self.scaled(sums.view(count, self.dim))


class SparseTable(Ragged):
    """The trainable form: floats that are rounded as they are read; which values there are does not change.

    `scale` [1] is the value of one step of a byte, so that the largest value has the code 127; None for floats.
    """

    scale: Tensor | None

    def __init__(self, values: Tensor, columns: Tensor, lengths: Tensor, dim: int, starts: Tensor, bits: int = 8):
        super().__init__(columns, lengths, dim, starts)
        self.values = nn.Parameter(values)
        self.register_buffer("scale", step_of(values) if bits == 8 else None)

    def values_at(self, places: Tensor) -> Tensor:
        values = self.values.index_select(0, places)
        if self.scale is None:
            return values
        rounded = (values.detach() / self.scale).round().clamp(-LARGEST_CODE, LARGEST_CODE) * self.scale
        return values + (rounded - values.detach())  # the gradient passes straight through

    def scaled(self, sums: Tensor) -> Tensor:
        return sums

    @torch.no_grad()
    def kept(self) -> Tensor:
        """Which values of all [num_rows, dim] are stored."""
        mask = torch.zeros(self.num_rows, self.dim, dtype=torch.bool, device=self.columns.device)
        mask[self._row_of_each(), self.columns.long()] = True
        return mask

    @torch.no_grad()
    def assign(self, weight: Tensor) -> None:
        """Take the stored values, and the scale that fits them, from `weight` [num_rows, dim]."""
        self.values.copy_(weight[self._row_of_each(), self.columns.long()])
        if self.scale is not None:
            self.scale.copy_(step_of(self.values))

    def pack(self) -> Table:
        codes = self.values.detach()
        if self.scale is not None:
            codes = (codes / self.scale).round().clamp(-LARGEST_CODE, LARGEST_CODE).to(torch.int8)
        return PackedSparseTable(codes, self.scale, self.columns, self.lengths, self.dim, self.starts)

    @property
    def nbytes(self) -> int:
        width = 4 if self.scale is None else 1
        return nbytes_of(len(self.values), self.num_rows, self.dim, self.longest, width)

    def _row_of_each(self) -> Tensor:
        return torch.arange(self.num_rows, device=self.columns.device).repeat_interleave(self.lengths.long())


class PackedSparseTable(Ragged):
    """The packed form: a byte (or a float) a value, two or four bytes for its column, and the length of every row.

    Bytes are added up as integers, so that a vector is the same whatever is computed beside it.
    """

    codes: Tensor
    scale: Tensor | None

    def __init__(self, codes: Tensor, scale: Tensor | None, columns: Tensor, lengths: Tensor, dim: int, starts: Tensor):
        longest = int(lengths.max())
        super().__init__(columns.to(narrow(dim)), lengths.to(narrow(longest + 1)), dim, starts)
        self.register_buffer("codes", codes.clone())
        self.register_buffer("scale", None if scale is None else scale.clone())

    def values_at(self, places: Tensor) -> Tensor:
        codes = self.codes.index_select(0, places)
        return codes if self.scale is None else codes.to(torch.int32)

    def scaled(self, sums: Tensor) -> Tensor:
        return sums if self.scale is None else sums.to(torch.float32) * self.scale

    def pack(self) -> Table:
        return self

    @property
    def nbytes(self) -> int:
        return nbytes_of(len(self.codes), self.num_rows, self.dim, self.longest, self.codes.element_size())


def step_of(values: Tensor) -> Tensor:
    """The value of one step of a byte [1], with which the largest of `values` in size has the code 127."""
    return values.detach().abs().max().clamp(min=torch.finfo(torch.float32).tiny).reshape(1) / LARGEST_CODE


def narrow(numbers: int) -> torch.dtype:
    """The smallest type that holds 0..numbers - 1 and that torch and ONNX both index with."""
    return torch.int16 if numbers <= SHORT else torch.int32


def nbytes_of(values: int, num_rows: int, dim: int, longest: int, width: int = 1) -> int:
    """Packed bytes of a table with so many values of `width` bytes, at most `longest` in a row.

    >>> nbytes_of(values=100, num_rows=10, dim=40, longest=20)
    324
    """
    scale = 4 if width == 1 else 0
    return values * (width + narrow(dim).itemsize) + num_rows * narrow(longest + 1).itemsize + scale


def sparse_table(weight: Tensor, kept: Tensor, starts: Tensor | None = None, bits: int = 8) -> SparseTable:
    """A sparse table of the values of `weight` [num_rows, dim] where `kept` [num_rows, dim] is true.

    Raises:
        InputError: the weight is empty, NaN, infinite or out of bounds.
    """
    check_rows(weight)
    row, column = kept.nonzero().unbind(dim=1)
    if not len(row):  # a graph gathers from no empty tensor
        row = column = torch.zeros(1, dtype=torch.int64, device=weight.device)
    lengths = torch.bincount(row, minlength=len(weight)).to(torch.int32)
    values = weight.detach()[row, column].clone()
    starts = one_field(weight) if starts is None else starts
    return SparseTable(values, column.to(torch.int32), lengths, weight.shape[1], starts, bits)


def largest(sizes: Tensor, count: int) -> Tensor:
    """Which of `sizes` (any shape) are the `count` largest: true there; of equal ones the first.

    >>> largest(torch.tensor([[3.0, 1.0], [2.0, 3.0]]), 3).tolist()
    [[True, False], [True, True]]
    """
    order = sizes.flatten().argsort(descending=True, stable=True)[:count]
    kept = torch.zeros(sizes.numel(), dtype=torch.bool, device=sizes.device)
    kept[order] = True
    return kept.view(sizes.shape)


@register("table", Sparse)
def sparse(config: Sparse, weight: Tensor, starts: Tensor | None = None) -> SparseTable:
    """A sparse table of the share `config.keep` of the values of `weight` [num_rows, dim], rounded up."""
    weight = weight.to(torch.float32)
    count = -(-int(config.keep * weight.numel() * 1000) // 1000)
    return sparse_table(weight, largest(weight.abs(), max(count, 1)), starts, config.bits)
