"""The table of small integers: every vector is scale * (codes - zero point), one scale per table or per group of rows.

One scale per group costs no bytes per row and lets the scale be folded into the layer that reads the table, so that
the gathered bytes feed an integer matrix product as they are. Left out: scales per row (at 16 dimensions they eat a
fifth of what 8 bits save, and three gathers are slower than one).
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Trainable form: float rows that are quantised as they are read, with learned scales.

    Shapes: `weight` [num_rows, dim] float32, `log_scale` [fields], or [1] where one is for all, float32.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bits: int, starts: Tensor, *, sparse: bool = False):
        super().__init__(weight.shape[0], weight.shape[1], starts)
        self.weight = nn.Parameter(weight)
        self.log_scale = nn.Parameter(scale.log())
        self.bits = bits
        self.codes = Codes.unsigned(bits)
        self.sparse = sparse

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        vectors = gather_rows(self.weight, ids, sparse=self.sparse)
        return fake_quantize(vectors, self.per_column(self.scale, ids, fields), self.codes)

    def steps(self, fields: Sequence[int]) -> Tensor:
        return byte_steps(self.scale, self.bits, fields)

    def sparse_parameters(self) -> list[nn.Parameter]:
        return [self.weight] if self.sparse else []

    @property
    def scale(self) -> Tensor:
        """The scale of each field, or of all: [fields] or [1] float32."""
        return self.log_scale.exp()

    def pack(self) -> PackedTable:
        return PackedTable(pack_rows(self.weight.detach(), self.scale.detach(), self.bits, self.bounds()), self)

    @property
    def nbytes(self) -> int:
        return self.num_rows * self.dim * self.bits // 8 + 4 * len(self.scale)


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

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        codes = unpack_bytes(gather_rows(self.packed, ids), self.bits)
        steps = self.scale / 2.0 ** (8 - self.bits)
        return dequantize_linear(codes, self.one, self.zero_point) * self.per_column(steps, ids, fields)

    def steps(self, fields: Sequence[int]) -> Tensor:
        return byte_steps(self.scale, self.bits, fields)

    def pack(self) -> PackedTable:
        return self

    @property
    def nbytes(self) -> int:
        return self.packed.numel() + 4 * len(self.scale)


def byte_steps(scale: Tensor, bits: int, fields: Sequence[int]) -> Tensor:
    """What one step of a byte is worth in each column, [columns]: codes fill a byte from its high bits."""
    steps = scale / 2.0 ** (8 - bits)
    return steps.expand(len(fields)) if len(steps) == 1 else steps[torch.tensor(fields, device=steps.device)]


def pack_rows(weight: Tensor, scale: Tensor, bits: int, bounds: Sequence[tuple[int, int]]) -> Tensor:
    """`weight` [num_rows, dim] quantised and packed to bytes [num_rows, dim * bits / 8], a chunk at a time."""
    num_rows, dim = weight.shape
    codes, width = Codes.unsigned(bits), dim * bits // 8
    packed = torch.empty(num_rows, width, dtype=torch.uint8)
    step = max(1, CHUNK // dim)
    for field, (first, last) in enumerate(bounds):
        for start in range(first, last, step):
            stop = min(start + step, last)
            chunk = quantize(weight[start:stop], scale[field % len(scale)], codes).to(torch.uint8)
            whole = chunk[:, :width].clone()
            for part in range(1, 8 // bits):
                whole |= chunk[:, part * width : (part + 1) * width] << (part * bits)
            packed[start:stop] = whole
    return packed


def field_scales(weight: Tensor, config: Grid, bounds: Sequence[tuple[int, int]]) -> Tensor:
    """A scale for every range of rows, [ranges] float32, searched on an even sample of its rows."""
    codes = Codes.unsigned(config.bits)
    search = range_scale if config.range == "max" else squared_error_scale
    scales = []
    for first, last in bounds:
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
    extremes = weight.detach().aminmax()  # both are NaN where any value is
    if not bool(torch.isfinite(extremes.min) & torch.isfinite(extremes.max)):
        raise InputError("the table holds NaN or infinite values: quantisation has no range for them")
    starts = torch.zeros(1, dtype=torch.int64) if starts is None else starts
    bounds = list(pairwise([*starts.tolist(), len(weight)])) if config.scale == "field" else [(0, len(weight))]
    return ScaledTable(weight, field_scales(weight, config, bounds), config.bits, starts)
