"""What every table kind is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimrank.config import InputError
from slimrank.tables.codes import check_packs
from slimrank.tables.integer import BYTE_ZERO

MOST = 1e18  # in size: sums of squares of larger values leave float32


class Table(nn.Module, ABC):
    """Integer ids in [0, num_rows) to vectors of `dim` numbers.

    Rows may belong to fields: consecutive ranges of rows, of which `starts` holds the first one each. A table that
    reads another one for its vectors has it as `inner`; a step may replace it, say by a quantised one.
    """

    one: Tensor  # of packed forms that hold bytes
    zero_point: Tensor

    def __init__(self, num_rows: int, dim: int, starts: Tensor):
        super().__init__()
        self.inner: Table | None = None  # in the instance: a class attribute would hide the submodule of that name
        self.sparse = False  # whether gradients of rows hold those of the batch alone, where the kind has such rows
        self.num_rows = num_rows
        self.dim = dim
        self.starts: Tensor
        self.register_buffer("starts", starts, persistent=False)

    @abstractmethod
    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        """Vectors [..., dim], float32, of `ids` [...].

        `fields` holds the field of each column, the last dimension of ids, where the caller knows it (a fused
        embedding does); otherwise a table that needs it finds it from the ids.
        """

    @abstractmethod
    def pack(self) -> Table:
        """The packed form: what the artifact stores. Packing a packed table gives itself."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the packed form: codes, scales and maps, all of it."""

    def steps(self, fields: Sequence[int]) -> Tensor | None:
        """The value of one step of a byte in each column, [columns] float32, or None.

        A tensor where the vectors of a column are steps * (byte - 128), with bytes that the packed form looks up: then
        an integer layer can take the bytes as they are.
        """
        return None

    def with_sparse(self, sparse: bool) -> Self:
        """The table itself, after it and all tables inside it were told whether their gradients are `sparse`."""
        for module in self.modules():
            if isinstance(module, Table):
                module.sparse = sparse
        return self

    def sparse_parameters(self) -> list[nn.Parameter]:
        """Parameters whose gradients hold the rows of the batch and nothing else, without those of inner tables."""
        return []

    @torch.no_grad()
    def rows(self, start: int, stop: int) -> Tensor:
        """Vectors [stop - start, dim] of a range of rows, as the table gives them; for steps that convert tables."""
        vectors: Tensor = self(torch.arange(start, stop, device=self.starts.device))
        return vectors

    def summed(self, chosen: Tensor) -> Tensor:
        """Sums [N, dim] of the rows that `chosen` [N, num_rows] is not 0 at, each once: N bags without repetitions."""
        owner, row = chosen.nonzero().unbind(dim=1)
        zeros = torch.zeros(chosen.shape[0], self.dim, device=chosen.device)
        return zeros.index_add(0, owner, self(row))

    def hold_byte_grid(self) -> None:
        """Keep `one` and `zero_point`, with which `dequantize_linear` gives the steps of a byte above `BYTE_ZERO`."""
        self.register_buffer("one", self.starts.new_ones((), dtype=torch.float32), persistent=False)
        self.register_buffer("zero_point", self.starts.new_full((), BYTE_ZERO, dtype=torch.uint8), persistent=False)

    def bounds(self) -> list[tuple[int, int]]:
        """First row, and the row after the last, of every field."""
        return list(pairwise([*self.starts.tolist(), self.num_rows]))

    def per_column(self, values: Tensor, ids: Tensor, fields: Sequence[int] | None) -> Tensor:
        """`values`, one for all [1, ...] or one a field [fields, ...], for each of `ids` [...], as they broadcast."""
        if len(values) == 1:
            return values if ids.dim() else values[0]
        index = self.fields_of(ids) if fields is None else torch.tensor(fields, device=values.device)
        found = values[index]
        return found.unsqueeze(-1) if values.dim() == 1 else found

    def fields_of(self, ids: Tensor) -> Tensor:
        """The field of every id, same shape, int64."""
        if len(self.starts) == 1:
            return torch.zeros_like(ids, dtype=torch.int64)
        return torch.bucketize(ids.contiguous(), self.starts[1:].to(ids.dtype), right=True)

    def extra_repr(self) -> str:
        return f"{self.num_rows} x {self.dim}, {self.nbytes} bytes packed"


def one_field(weight: Tensor) -> Tensor:
    """The `starts` of a table whose rows all belong to one field, where `weight` is."""
    return torch.zeros(1, dtype=torch.int64, device=weight.device)


def check_rows(weight: Tensor, bits: int = 32) -> None:
    """Raises `InputError` where `weight` [num_rows, dim] is empty, too narrow for the bits, or out of bounds."""
    if not weight.numel():
        raise InputError("the table has no rows")
    check_packs(weight.shape[1], bits)
    fault = fault_of(weight)
    if fault:
        raise InputError(f"the table {fault}")


def fault_of(rows: Tensor) -> str:
    """What no kind has an answer for in `rows` [n, dim], which are not copied, or nothing."""
    if not rows.numel():
        return ""
    low, high = (float(bound) for bound in rows.detach().aminmax())  # both are NaN where any value is
    if not (isfinite(low) and isfinite(high)):
        return "holds NaN or infinite values"
    if max(-low, high) > MOST:
        return f"holds values up to {max(-low, high):.3g} in size; allowed are at most {MOST:.0e}"
    return ""


def gather_rows(weight: Tensor, ids: Tensor, *, sparse: bool = False) -> Tensor:
    """Rows [..., dim] of `weight` [num_rows, dim] at `ids` [...], with a sparse or a dense gradient where it has one.

    A dense gradient goes through `index_select`, whose gradient is an `index_add`: on a CPU twice as fast as that of
    `embedding`. Without a gradient `embedding` it is, which exports to one Gather and nothing else.
    """
    if sparse or not weight.requires_grad:
        return functional.embedding(ids, weight, sparse=sparse)
    return weight.index_select(0, ids.flatten()).view(*ids.shape, weight.shape[1])
