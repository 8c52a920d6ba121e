"""Tables in models of the user's own: what `torch.nn.Embedding` and `torch.nn.EmbeddingBag` promise, over any table.

Vectors and gradients are those of torch's modules; ids and offsets are int32 or int64. The packed form exports to
standard ONNX by `torch.onnx.export`, where torch's own bag becomes a loop over the bags. Left out: `max_norm`, which
writes to the rows that are read, and `scale_grad_by_freq`.
"""

from __future__ import annotations

from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.onnx import is_in_onnx_export

from slimrank.config import InputError, nearest
from slimrank.tables.bags import EvenBags, RaggedBags
from slimrank.tables.by_row import every_row
from slimrank.tables.dense import Dense, DenseTable, dense
from slimrank.tables.table import Table

Mode = Literal["sum", "mean", "max"]
INTEGERS = (torch.int32, torch.int64)


class _Lookup(nn.Module):
    """A table, and the id in it that is padding."""

    def __init__(self, table: Table, padding_idx: int | None = None):
        super().__init__()
        self.table = table
        self.padding_idx = _padding(padding_idx, table.num_rows)

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""
        return self.table.num_rows

    @property
    def embedding_dim(self) -> int:
        """Numbers in a vector."""
        return self.table.dim

    @property
    def weight(self) -> Tensor:
        """All rows [num_embeddings, dim], with gradients, for models that multiply with the whole table."""
        return all_rows(self.table)


class Embedding(_Lookup):
    """Vectors of ids, with the call contract of `torch.nn.Embedding`.

    Args:
        table: of any kind, trainable or packed.
        padding_idx: the row of this id gets no gradient; negative ones count from the end.
        zero_padding: whether the vector of padding is 0 whatever the table makes of that row, since few bits, codes and
            shared rows cannot all hold a zero; None where it is if the table's row is 0 now.
    """

    def __init__(self, table: Table, padding_idx: int | None = None, *, zero_padding: bool | None = None):
        super().__init__(table, padding_idx)
        self.zero_padding = self._pads_with_zeros() if zero_padding is None else zero_padding

    def _pads_with_zeros(self) -> bool:
        return self.padding_idx is not None and not self.table.rows(self.padding_idx, self.padding_idx + 1).any()

    @classmethod
    def of(cls, module: nn.Embedding) -> Self:
        """The same over a dense table of the module's rows, which are not copied.

        Raises:
            InputError: the module has `max_norm` or `scale_grad_by_freq`.
        """
        return cls(_dense_of(module), module.padding_idx)

    def forward(self, input: Tensor) -> Tensor:
        """Vectors [..., dim] float32 of the ids `input` [...].

        Raises:
            InputError: the ids are no integers, or not in the table.
        """
        _check_ids(input, self.num_embeddings)
        vectors: Tensor = self.table(input)
        if self.padding_idx is None or not (self.zero_padding or vectors.requires_grad):
            return vectors
        padding = torch.zeros_like(vectors) if self.zero_padding else vectors.detach()
        return torch.where((input == self.padding_idx).unsqueeze(-1), padding, vectors)

    def pack(self) -> Embedding:
        """The form that is exported."""
        return Embedding(self.table.pack(), self.padding_idx, zero_padding=self.zero_padding)

    def extra_repr(self) -> str:
        return "" if self.padding_idx is None else f"padding_idx={self.padding_idx}"


class EmbeddingBag(_Lookup):
    """Sums, means or maxima over bags of ids, with the call contract of `torch.nn.EmbeddingBag`.

    Args:
        table: of any kind, trainable or packed.
        mode: what becomes of a bag's vectors; an empty bag gives 0.
        padding_idx: this id adds nothing to a bag, nor to a mean's count, and its row gets no gradient.
        include_last_offset: the last offset is where the last bag ends.
    """

    def __init__(
        self,
        table: Table,
        mode: Mode = "mean",
        padding_idx: int | None = None,
        include_last_offset: bool = False,
    ):
        super().__init__(table, padding_idx)
        if mode not in get_args(Mode):
            raise InputError(f"unknown mode {mode!r}. {nearest(mode, get_args(Mode))}")
        self.mode = mode
        self.include_last_offset = include_last_offset

    @classmethod
    def of(cls, module: nn.EmbeddingBag) -> Self:
        """The same over a dense table of the module's rows, which are not copied.

        Raises:
            InputError: the module has `max_norm` or `scale_grad_by_freq`.
        """
        mode: Mode = module.mode  # type: ignore[assignment]  # torch has checked it
        return cls(_dense_of(module), mode, module.padding_idx, module.include_last_offset)

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """One vector a bag, [B, dim] float32.

        Args:
            input: ids [B, N], a bag a row, or [n] with `offsets`.
            offsets: where in `input` [n] each bag begins: [B], or [B + 1] with `include_last_offset`.
            per_sample_weights: a factor for every id, of the shape of `input`; for sums only.

        Raises:
            InputError: an id is not in the table, or the inputs do not fit each other.
        """
        self._check(input, offsets, per_sample_weights)
        vectors = self.table(input)
        if per_sample_weights is not None:
            vectors = vectors * per_sample_weights.unsqueeze(-1)
        kept = None if self.padding_idx is None else input != self.padding_idx
        if kept is not None:
            nothing = torch.full_like(vectors, -torch.inf if self.mode == "max" else 0.0)
            vectors = torch.where(kept.unsqueeze(-1), vectors, nothing)
        return self._pool(vectors, kept, self._bags(input, offsets))

    def _bags(self, ids: Tensor, offsets: Tensor | None) -> EvenBags | RaggedBags:
        return EvenBags(ids) if offsets is None else RaggedBags(ids, offsets, last=self.include_last_offset)

    def _pool(self, vectors: Tensor, kept: Tensor | None, bags: EvenBags | RaggedBags) -> Tensor:
        if self.mode == "sum":
            return bags.total(vectors)
        counts = bags.counts(kept)
        if self.mode == "mean":
            return bags.total(vectors) / counts.clamp(min=1.0)
        most = bags.most(vectors)
        return torch.where(counts > 0, most, torch.zeros_like(most))

    def _check(self, ids: Tensor, offsets: Tensor | None, weights: Tensor | None) -> None:
        _check_ids(ids, self.num_embeddings)
        if ids.dim() not in (1, 2):
            raise InputError(f"ids have {ids.dim()} dimensions; allowed are [B, N], and [n] with offsets")
        if (ids.dim() == 1) != (offsets is not None):
            raise InputError(
                "ids [n] need offsets" if offsets is None else "ids [B, N] are bags: offsets do not go with them"
            )
        if weights is not None and self.mode != "sum":
            raise InputError(f"per_sample_weights go with the mode 'sum', not with {self.mode!r}")
        if weights is not None and weights.shape != ids.shape:
            raise InputError(f"per_sample_weights are {list(weights.shape)}, must be like the ids {list(ids.shape)}")
        if offsets is not None:
            _check_offsets(offsets, ids.shape[0], last=self.include_last_offset)

    def pack(self) -> EmbeddingBag:
        """The form that is exported."""
        return EmbeddingBag(self.table.pack(), self.mode, self.padding_idx, self.include_last_offset)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"mode={self.mode!r}{padding}" + (", include_last_offset=True" if self.include_last_offset else "")


class TiedLinear(nn.Module):
    """A linear layer whose weight is all rows of an embedding: scores of every id, from the table that is looked up.

    Args:
        embedding: what it is tied to; it is a part of both.
        bias: [num_embeddings] or None.
    """

    def __init__(self, embedding: Embedding | EmbeddingBag, bias: nn.Parameter | None):
        super().__init__()
        self.embedding = embedding
        self.bias = bias
        self.in_features, self.out_features = embedding.embedding_dim, embedding.num_embeddings

    @property
    def weight(self) -> Tensor:
        """[num_embeddings, dim]."""
        return self.embedding.weight

    def forward(self, input: Tensor) -> Tensor:
        """[..., dim] to [..., num_embeddings]."""
        return functional.linear(input, self.weight, self.bias)


def all_rows(table: Table) -> Tensor:
    """Every row [num_rows, dim] of a table, with gradients."""
    if isinstance(table, DenseTable):
        return table.weight
    rows: Tensor = table(every_row(0, table.num_rows).to(table.starts.device)).squeeze(1)
    return rows


def _padding(padding_idx: int | None, num_rows: int) -> int | None:
    """`padding_idx` counted from the first row."""
    if padding_idx is None:
        return None
    if not -num_rows <= padding_idx < num_rows:
        raise InputError(f"padding_idx is {padding_idx}; the table has rows 0 to {num_rows - 1}")
    return padding_idx % num_rows


def _dense_of(module: nn.Embedding | nn.EmbeddingBag) -> DenseTable:
    """A dense table of the module's rows; frozen ones stay frozen."""
    if module.max_norm is not None:
        raise InputError("max_norm is not supported: it changes the rows that are read")
    if module.scale_grad_by_freq:
        raise InputError("scale_grad_by_freq is not supported")
    if module.weight.dtype != torch.float32:
        raise InputError(f"rows are {module.weight.dtype}, must be float32: `module.float()` comes first")
    table = dense(Dense(), module.weight.detach())
    table.sparse = module.sparse
    table.weight = module.get_parameter("weight")  # itself, so that whoever else holds it is seen to be tied
    return table


def _check_ids(ids: Tensor, num_rows: int) -> None:
    """That `ids` are rows of a table, which not every kind finds out; a graph that is exported cannot look at them."""
    if ids.dtype not in INTEGERS:
        raise InputError(f"ids are {ids.dtype}; allowed are int32 and int64")
    if is_in_onnx_export() or torch.compiler.is_compiling() or not ids.numel():
        return
    low, high = (int(bound) for bound in ids.aminmax())
    if low < 0 or high >= num_rows:
        raise InputError(f"id {low if low < 0 else high} is not in the table; allowed are 0 to {num_rows - 1}")


def _check_offsets(offsets: Tensor, count: int, *, last: bool) -> None:
    """That `offsets` cut a list of `count` ids; a graph that is exported cannot look at them."""
    if offsets.dtype not in INTEGERS or offsets.dim() != 1:
        raise InputError(f"offsets are {offsets.dtype} {list(offsets.shape)}; must be int32 or int64 [B]")
    if is_in_onnx_export():
        return
    if len(offsets) == 0:
        if last:
            raise InputError("with include_last_offset there is at least one offset, the end")
        return
    first, final = int(offsets[0]), int(offsets[-1])
    if first != 0 or final > count or bool((offsets.diff() < 0).any()):
        raise InputError(
            f"offsets go from {first} to {final}; they must begin with 0, never fall, and stay within the {count} ids"
        )
