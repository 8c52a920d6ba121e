"""The table of small integers: every vector is scale * (codes - zero point), one scale per table or per group of rows.

One scale per group costs no bytes per row and lets the scale be folded into the layer that reads the table, so that
the gathered bytes feed an integer matrix product as they are. Left out: scales per row (at 16 dimensions they eat a
fifth of what 8 bits save, and three gathers are slower than one).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimrank.config import Config, InputError, register
from slimrank.tables.affine import Codes, fake_quantize, learned_scale, quantize, range_scale, squared_error_scale
from slimrank.tables.table import Table

CHUNK = 1 << 18  # values worked on at a time: a chunk and its copies stay in the cache, and memory stays flat
SAMPLE = 1 << 18  # values looked at when a scale is searched


class Scaled(Config):
    """Integers of 8, 4 or 2 bits with one scale per table or per field."""

    name: Literal["scaled"] = "scaled"
    bits: Literal[2, 4, 8] = 8
    scale: Literal["table", "field"] = "field"
    range: Literal["max", "squared-error"] = "squared-error"


class ScaledTable(Table):
    """Trainable form: float rows that are quantised as they are read, with a learned scale per group.

    Shapes: `weight` [num_rows, dim] float32, `scale` [groups] float32.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bits: int, starts: Tensor, *, sparse: bool = False):
        super().__init__(weight.shape[0], weight.shape[1], starts)
        self.weight = nn.Parameter(weight)
        self.scale = nn.Parameter(scale)
        self.bits = bits
        self.codes = Codes.unsigned(bits)
        self.sparse = sparse

    def forward(self, ids: Tensor, groups: Tensor | None = None) -> Tensor:
        vectors = functional.embedding(ids, self.weight, sparse=self.sparse)
        groups = self.groups_of(ids) if groups is None else groups
        scale = learned_scale(self.scale, vectors.numel() / len(self.scale), self.codes)
        return fake_quantize(vectors, scale[groups].unsqueeze(-1), self.codes)

    def pack(self) -> PackedTable:
        return PackedTable(pack_rows(self.weight.detach(), self.scale.detach(), self.bits, self.starts), self)

    @property
    def nbytes(self) -> int:
        return self.num_rows * self.dim * self.bits // 8 + 4 * len(self.scale)

    def rows(self, start: int, stop: int) -> Tensor:
        with torch.no_grad():
            vectors: Tensor = self(torch.arange(start, stop, device=self.weight.device))
        return vectors


class PackedTable(Table):
    """Packed form. Byte j of a row holds, from its low bits up, dimensions j, j + width, j + 2 width, ...

    `packed` [num_rows, width] uint8 with width = dim * bits / 8: unpacking is a mask or a shift for each part and one
    concatenation, with no interleaving.
    """

    def __init__(self, packed: Tensor, source: ScaledTable):
        super().__init__(source.num_rows, source.dim, source.starts)
        self.bits = source.bits
        self.codes = source.codes
        self.packed: Tensor
        self.scale: Tensor
        self.register_buffer("packed", packed)
        self.register_buffer("scale", source.scale.detach().clone())

    def codes_of(self, ids: Tensor) -> Tensor:
        """Codes [..., dim], uint8, of `ids` [...]: the gather and the unpacking, before any arithmetic."""
        packed = functional.embedding(ids, self.packed)
        if self.bits == 8:
            return packed
        mask = 2**self.bits - 1
        parts = []
        for shift in range(0, 8, self.bits):
            part = torch.bitwise_right_shift(packed, shift) if shift else packed
            parts.append(part if shift + self.bits == 8 else torch.bitwise_and(part, mask))
        return torch.cat(parts, dim=-1)

    def forward(self, ids: Tensor, groups: Tensor | None = None) -> Tensor:
        groups = self.groups_of(ids) if groups is None else groups
        codes = self.codes_of(ids).to(torch.float32) - self.codes.zero_point
        return codes * self.scale[groups].unsqueeze(-1)

    def pack(self) -> PackedTable:
        return self

    @property
    def nbytes(self) -> int:
        return self.packed.numel() + 4 * len(self.scale)

    def rows(self, start: int, stop: int) -> Tensor:
        vectors: Tensor = self(torch.arange(start, stop, device=self.packed.device))
        return vectors


def pack_rows(weight: Tensor, scale: Tensor, bits: int, starts: Tensor) -> Tensor:
    """`weight` [num_rows, dim] quantised and packed to bytes [num_rows, dim * bits / 8], a chunk at a time."""
    num_rows, dim = weight.shape
    codes, width = Codes.unsigned(bits), dim * bits // 8
    packed = torch.empty(num_rows, width, dtype=torch.uint8)
    bounds = [*starts.tolist(), num_rows]
    step = max(1, CHUNK // dim)
    for group, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False)):
        for start in range(first, last, step):
            stop = min(start + step, last)
            chunk = quantize(weight[start:stop], scale[group], codes).to(torch.uint8)
            whole = chunk[:, :width].clone()
            for part in range(1, 8 // bits):
                whole |= chunk[:, part * width : (part + 1) * width] << (part * bits)
            packed[start:stop] = whole
    return packed


def group_scales(weight: Tensor, config: Scaled, starts: Tensor) -> Tensor:
    """A scale for every group of rows, [groups] float32, searched on an even sample of the group's rows."""
    codes = Codes.unsigned(config.bits)
    search = range_scale if config.range == "max" else squared_error_scale
    bounds = [*starts.tolist(), len(weight)]
    scales = []
    for first, last in zip(bounds, bounds[1:], strict=False):
        stride = 1 if config.range == "max" else max(1, (last - first) * weight.shape[1] // SAMPLE)
        rows = weight[first:last:stride]
        scales.append(search(rows, codes) if rows.numel() else torch.ones((), device=weight.device))
    return torch.stack(scales)


@register("table", Scaled)
def scaled(config: Scaled, weight: Tensor, starts: Tensor | None = None) -> ScaledTable:
    """A scaled table in its trainable form over `weight` [num_rows, dim], which is not copied.

    Raises:
        InputError: the dimension does not fill whole bytes, or a value is NaN or infinite.
    """
    dim, per_byte = weight.shape[1], 8 // config.bits
    if dim % per_byte:
        raise InputError(f"dimension {dim} does not pack at {config.bits} bits: {per_byte} codes fill a byte")
    if starts is None or config.scale == "table":
        starts = torch.zeros(1, dtype=torch.int64)
    extremes = weight.detach().aminmax()  # both are NaN where any value is
    if not bool(torch.isfinite(extremes.min) & torch.isfinite(extremes.max)):
        raise InputError("the table holds NaN or infinite values: quantisation has no range for them")
    return ScaledTable(weight, group_scales(weight, config, starts), config.bits, starts)
