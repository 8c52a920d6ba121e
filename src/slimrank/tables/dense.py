"""The table of full-precision rows: what a teacher has, and what every other kind is made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from slimrank.config import Config, register
from slimrank.tables.table import Table, gather_rows, one_field


class Dense(Config):
    """Rows of 32-bit floats."""

    name: Literal["dense"] = "dense"


class DenseTable(Table):
    """Rows of float32. With `sparse` the gradient holds the rows of the batch and nothing else."""

    def __init__(self, weight: Tensor, starts: Tensor | None = None, *, sparse: bool = False):
        super().__init__(weight.shape[0], weight.shape[1], one_field(weight) if starts is None else starts)
        self.weight = nn.Parameter(weight)
        self.sparse = sparse

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        return gather_rows(self.weight, ids, sparse=self.sparse)

    def summed(self, chosen: Tensor) -> Tensor:
        return (chosen != 0).to(self.weight.dtype) @ self.weight  # rows of a batch, side by side, would take its memory

    def pack(self) -> Table:
        return self

    @property
    def nbytes(self) -> int:
        return self.num_rows * self.dim * 4

    def sparse_parameters(self) -> list[nn.Parameter]:
        return [self.weight] if self.sparse else []

    def rows(self, start: int, stop: int) -> Tensor:
        return self.weight.detach()[start:stop]


@register("table", Dense)
def dense(config: Dense, weight: Tensor, starts: Tensor | None = None) -> DenseTable:
    """A dense table over `weight` [num_rows, dim], which is not copied."""
    return DenseTable(weight.to(torch.float32), starts)
