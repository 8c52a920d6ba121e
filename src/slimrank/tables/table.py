"""What every table kind is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional


class Table(nn.Module, ABC):
    """Integer ids in [0, num_rows) to vectors of `dim` numbers.

    Rows may fall into groups: consecutive ranges of rows (a field each, in a fused table) that share a scale.
    `starts` holds the first row of every group.
    """

    def __init__(self, num_rows: int, dim: int, starts: Tensor | None = None):
        super().__init__()
        self.num_rows = num_rows
        self.dim = dim
        self.starts: Tensor
        starts = torch.zeros(1, dtype=torch.int64) if starts is None else starts
        self.register_buffer("starts", starts, persistent=False)

    @abstractmethod
    def forward(self, ids: Tensor, groups: Tensor | None = None) -> Tensor:
        """Vectors [..., dim], float32, of `ids` [...].

        `groups` [last dimension of ids] is the group of each column where the caller knows it (a fused table does);
        otherwise it is found from the ids.
        """

    @abstractmethod
    def pack(self) -> Table:
        """The packed form: what the artifact stores. Packing a packed table gives itself."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the packed form: codes, scales and maps, all of it."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> Tensor:
        """Vectors [stop - start, dim] of a range of rows, as the table gives them; for steps that convert tables."""

    def groups_of(self, ids: Tensor) -> Tensor:
        """The group of every id, same shape."""
        if len(self.starts) == 1:
            return torch.zeros_like(ids)
        return torch.bucketize(ids, self.starts[1:].to(ids.dtype), right=True)

    def extra_repr(self) -> str:
        return f"{self.num_rows} x {self.dim}, {self.nbytes} bytes packed"


def gather_rows(weight: Tensor, ids: Tensor, *, sparse: bool = False) -> Tensor:
    """Rows [..., dim] of `weight` [num_rows, dim] at `ids` [...], with a sparse or a dense gradient where it has one.

    A dense gradient goes through `index_select`, whose gradient is an `index_add`: on a CPU twice as fast as that of
    `embedding`. Without a gradient `embedding` it is, which exports to one Gather and nothing else.
    """
    if sparse or not weight.requires_grad:
        return functional.embedding(ids, weight, sparse=sparse)
    return weight.index_select(0, ids.flatten()).view(*ids.shape, weight.shape[1])
