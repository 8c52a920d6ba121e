"""The table of small integers: every vector is scale * (codes - zero point), one scale per table or per group of rows.

One scale per group costs no bytes per row and lets the scale be folded into the layer that reads the table, so that
the gathered bytes feed an integer matrix product as they are. Left out: scales per row (at 16 dimensions they eat a
fifth of what 8 bits save, and three gathers are slower than one).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from slimrank.config import Config, InputError, register
from slimrank.tables.affine import Codes, fake_quantize, quantize, range_scale, squared_error_scale
from slimrank.tables.integer import BYTE_ZERO, dequantize_linear, unpack_bytes
from slimrank.tables.table import Table, gather_rows

CHUNK = 1 << 18  # values worked on at a time: a chunk and its copies stay in the cache, and memory stays flat
SAMPLE = 1 << 18  # values looked at when a scale is searched


class Grid(Config):
    """The integers of a table: their bits, what shares a scale, and how the scale is first chosen."""

    bits: Literal[2, 4, 8] = 8
    scale: Literal["table", "field"] = "field"
    range: Literal["max", "squared-error"] = "squared-error"


class Scaled(Grid):
    """Integers of 8, 4 or 2 bits with one scale per table or per field."""

    name: Literal["scaled"] = "scaled"


class ScaledTable(Table):
    """Trainable form: float rows that are quantised as they are read, with a learned scale per group.

    Shapes: `weight` [num_rows, dim] float32, `log_scale` [groups] float32.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bits: int, starts: Tensor, *, sparse: bool = False):
        super().__init__(weight.shape[0], weight.shape[1], starts)
        self.weight = nn.Parameter(weight)
        self.log_scale = nn.Parameter(scale.log())
        self.bits = bits
        self.codes = Codes.unsigned(bits)
        self.sparse = sparse

    def forward(self, ids: Tensor, groups: Tensor | None = None) -> Tensor:
        vectors = gather_rows(self.weight, ids, sparse=self.sparse)
        groups = self.groups_of(ids) if groups is None else groups
        return fake_quantize(vectors, self.scale[groups].unsqueeze(-1), self.codes)

    @property
    def scale(self) -> Tensor:
        """The scale of each group: [groups] float32."""
        return self.log_scale.exp()

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
    """Packed form: `packed` [num_rows, width] uint8 with width = dim * bits / 8, laid out as `unpack_bytes` reads it.

    A code has the high bits of its byte, so its step is scale / 2 ** (8 - bits) and its zero point 128 at every width.
    """

    def __init__(self, packed: Tensor, source: ScaledTable):
        super().__init__(source.num_rows, source.dim, source.starts)
        self.bits = source.bits
        self.packed: Tensor
        self.scale: Tensor
        self.one: Tensor
        self.zero_point: Tensor
        self.register_buffer("packed", packed)
        self.register_buffer("scale", source.scale.detach().clone())
        self.register_buffer("one", torch.ones(()), persistent=False)
        self.register_buffer("zero_point", torch.tensor(BYTE_ZERO, dtype=torch.uint8), persistent=False)

    def forward(self, ids: Tensor, groups: Tensor | None = None) -> Tensor:
        groups = self.groups_of(ids) if groups is None else groups
        codes = unpack_bytes(gather_rows(self.packed, ids), self.bits)
        steps = self.scale / 2.0 ** (8 - self.bits)
        return dequantize_linear(codes, self.one, self.zero_point) * steps[groups].unsqueeze(-1)

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
    for group, (first, last) in enumerate(pairwise(bounds)):
        for start in range(first, last, step):
            stop = min(start + step, last)
            chunk = quantize(weight[start:stop], scale[group], codes).to(torch.uint8)
            whole = chunk[:, :width].clone()
            for part in range(1, 8 // bits):
                whole |= chunk[:, part * width : (part + 1) * width] << (part * bits)
            packed[start:stop] = whole
    return packed


def group_scales(weight: Tensor, config: Grid, starts: Tensor) -> Tensor:
    """A scale for every group of rows, [groups] float32, searched on an even sample of the group's rows."""
    codes = Codes.unsigned(config.bits)
    search = range_scale if config.range == "max" else squared_error_scale
    bounds = [*starts.tolist(), len(weight)]
    scales = []
    for first, last in pairwise(bounds):
        stride = 1 if config.range == "max" else max(1, (last - first) * weight.shape[1] // SAMPLE)
        rows = weight[first:last:stride]
        scales.append(search(rows, codes) if rows.numel() else torch.ones((), device=weight.device))
    return torch.stack(scales)


@register("table", Scaled)
def scaled(config: Grid, weight: Tensor, starts: Tensor | None = None) -> ScaledTable:
    """A scaled table in its trainable form over `weight` [num_rows, dim], which is not copied.

    Raises:
        InputError: there are no rows, the dimension does not fill whole bytes, or a value is NaN or infinite.
    """
    dim, per_byte = weight.shape[1], 8 // config.bits
    if not weight.numel():
        raise InputError("the table has no rows")
    if dim % per_byte:
        raise InputError(f"dimension {dim} does not pack at {config.bits} bits: {per_byte} codes fill a byte")
    if starts is None or config.scale == "table":
        starts = torch.zeros(1, dtype=torch.int64)
    extremes = weight.detach().aminmax()  # both are NaN where any value is
    if not bool(torch.isfinite(extremes.min) & torch.isfinite(extremes.max)):
        raise InputError("the table holds NaN or infinite values: quantisation has no range for them")
    return ScaledTable(weight, group_scales(weight, config, starts), config.bits, starts)
