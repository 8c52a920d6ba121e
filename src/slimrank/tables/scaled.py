"""The table of small integers: every vector is scale * (codes - zero point), with scales for fields, rows or all.

One scale for a field costs no bytes per row and lets the scale be folded into the layer that reads the table, so that
the gathered bytes feed an integer matrix product as they are. A scale for every row, or group of neighbouring rows,
leaves less error, and costs two bytes and a lookup of its own: these are kept as float16, as ratios to one unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from slimrank.config import register
from slimrank.tables.affine import fake_quantize, quantize
from slimrank.tables.codes import Codes, row_bytes
from slimrank.tables.dense import DenseTable
from slimrank.tables.grid import LEAST_RATIO, MOST_RATIO, Grid
from slimrank.tables.integer import dequantize_linear, divide, pack_bytes, unpack_bytes
from slimrank.tables.ranges import (
    affine_grid,
    near_zero,
    range_scale,
    squared_error_range,
    squared_error_scale,
)
from slimrank.tables.table import Table, check_rows, gather_rows, one_field

CHUNK = 1 << 18  # values worked on at a time: a chunk and its copies stay in the cache, and memory stays flat
SAMPLE = 1 << 18  # values looked at when the scale of a group is searched


class Scaled(Grid):
    """Integers of 8, 4, 2 or 1 bits with a scale for the table, each field, or each group of rows."""

    name: Literal["scaled"] = "scaled"


class GroupedTable(Table):
    """A table whose rows share scales as `grid` says."""

    def __init__(self, num_rows: int, dim: int, starts: Tensor, grid: Grid):
        super().__init__(num_rows, dim, starts)
        self.grid = grid
        self.places: Tensor  # [fields]: a row r of a field is of group (r + place of the field) // rows_per_scale
        groups = first_groups(self.bounds(), grid.rows_per_scale)[:-1]
        places = torch.tensor(groups, dtype=torch.int64) * grid.rows_per_scale - starts.cpu()
        self.register_buffer("places", places.to(starts.device), persistent=False)

    def of_groups(self, values: Tensor, ids: Tensor, fields: Sequence[int] | None, *, sparse: bool = False) -> Tensor:
        """Of `values`, one a group, those of each of `ids` [...]: they broadcast over vectors [..., dim]."""
        if not self.grid.by_rows:
            return self.per_column(values, ids, fields)
        if self.grid.rows_per_scale > 1:
            places = self.per_column(self.places, ids, fields)
            places = places if len(self.places) == 1 else places.squeeze(-1)
            ids = divide(ids + places.to(ids.dtype), self.grid.rows_per_scale)
        return gather_rows(values, ids, sparse=sparse)


class ScaledTable(GroupedTable):
    """Trainable form: float rows that are quantised as they are read, with scales that are learned or fixed.

    Shapes: `weight` [num_rows, dim] float32. `log_scale` is [fields], or [1] where one is for all; with scales for
    rows it is [groups, 1], and relative to `unit` [] float32. `zero_shift`, of as many, is in steps how far above the
    middle code's value the values lie, None for a symmetric grid.
    """

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor,
        grid: Grid,
        starts: Tensor,
        *,
        zero_shift: Tensor | None = None,
        sparse: bool = False,
    ):
        super().__init__(weight.shape[0], weight.shape[1], starts, grid)
        self.weight = nn.Parameter(weight)
        self.unit: Tensor
        self.log_scale: Tensor
        self.zero_shift: Tensor | None
        # Relative to the geometric mean, so that float16 has room both ways, and weight decay pulls towards the mean.
        unit = scale.log().mean().exp() if grid.by_rows else torch.ones_like(scale[0])
        self.register_buffer("unit", unit, persistent=grid.by_rows)
        relative = (scale / unit).log_().unsqueeze(1) if grid.by_rows else scale.log()
        if grid.learned:
            self.log_scale = nn.Parameter(relative)
        else:
            self.register_buffer("log_scale", relative)
        if zero_shift is not None and grid.by_rows:
            # In steps as float16 holds them: the middle of the values stays where it was.
            zero_shift = as_float16((zero_shift * scale).unsqueeze(1) / self._scale(relative.detach()))
        self.register_buffer("zero_shift", zero_shift)
        self.sparse = sparse

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        vectors = gather_rows(self.weight, ids, sparse=self.sparse)
        scale, codes = self.grid_at(ids, fields)
        stochastic = self.training and self.grid.rounding == "stochastic"
        return fake_quantize(vectors, scale, codes, stochastic=stochastic)

    def grid_at(self, ids: Tensor, fields: Sequence[int] | None = None) -> tuple[Tensor, Codes]:
        """The scale of each of `ids`, as it broadcasts over their vectors, and their codes."""
        sparse = self.sparse and self.grid.learned
        scale, codes = self._scale(self.of_groups(self.log_scale, ids, fields, sparse=sparse)), self.grid.codes
        if self.zero_shift is None:
            return scale, codes
        return scale, codes._replace(zero_point=codes.zero_point - self.of_groups(self.zero_shift, ids, fields))

    def _scale(self, log_scale: Tensor) -> Tensor:
        """The scale as the packed form has it, with the gradient of one that is not rounded."""
        if not self.grid.by_rows:
            return log_scale.exp()
        ratio = log_scale.exp()
        return (ratio + (as_float16(ratio) - ratio).detach()) * self.unit

    def steps(self, fields: Sequence[int]) -> Tensor | None:
        return byte_steps(self.scale, self.grid, fields)

    def sparse_parameters(self) -> list[nn.Parameter]:
        scales = [self.log_scale] if self.grid.by_rows and isinstance(self.log_scale, nn.Parameter) else []
        return [self.weight, *scales] if self.sparse else []

    @property
    def scale(self) -> Tensor:
        """The scale of each field, or of all: [fields] or [1] float32; [groups, 1] of groups of rows."""
        return self._scale(self.log_scale)

    @torch.no_grad()
    def pack(self) -> PackedTable:
        return PackedTable(self)

    @property
    def nbytes(self) -> int:
        scales = self.log_scale.numel() * (1 if self.zero_shift is None else 2)
        packed = self.num_rows * row_bytes(self.dim, self.grid.bits)
        return packed + (2 * scales + 4 if self.grid.by_rows else 4 * scales)


class PackedTable(GroupedTable):
    """Packed form: `packed` [num_rows, ceil(dim * bits / 8)] uint8, laid out as `unpack_bytes` reads it.

    A code has the high bits of its byte, and midrise codes the middle of what the other bits span, so a byte's step is
    scale / 2 ** (8 - bits) and the byte of zero 128 at every width. `scale` and `zero_shift` are as in `ScaledTable`;
    with scales for rows both are columns of `ratios` [groups, 1 or 2] float16, in units of `unit`.
    """

    packed: Tensor
    scale: Tensor
    zero_shift: Tensor | None
    ratios: Tensor
    unit: Tensor

    def __init__(self, source: ScaledTable):
        super().__init__(source.num_rows, source.dim, source.starts, source.grid)
        self.register_buffer("packed", pack_rows(source))
        self.hold_byte_grid()
        shift = source.zero_shift
        if self.grid.by_rows:
            ratio = source.log_scale.detach().exp().clamp(LEAST_RATIO, MOST_RATIO)
            self.register_buffer("ratios", torch.cat([ratio] if shift is None else [ratio, shift], dim=1).half())
            self.register_buffer("unit", source.unit.clone())
        else:
            self.register_buffer("scale", source.scale.clone())
            self.register_buffer("zero_shift", None if shift is None else shift.clone())

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        codes = unpack_bytes(gather_rows(self.packed, ids), self.grid.bits, self.dim, midrise=self.grid.midrise)
        part = 2.0 ** (8 - self.grid.bits)
        if not self.grid.by_rows:
            steps = dequantize_linear(codes, self.one, self.zero_point)
            if self.zero_shift is not None:
                steps = steps + self.of_groups(self.zero_shift * part, ids, fields)
            return steps * self.of_groups(self.scale / part, ids, fields)
        ratios = self.of_groups(self.ratios, ids, fields).to(torch.float32)
        values = dequantize_linear(codes, self.unit / part, self.zero_point)
        if self.grid.symmetric:
            return values * ratios
        return (values + ratios[..., 1:] * self.unit) * ratios[..., :1]

    def steps(self, fields: Sequence[int]) -> Tensor | None:
        return None if self.grid.by_rows else byte_steps(self.scale, self.grid, fields)

    def pack(self) -> PackedTable:
        return self

    @property
    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state_dict().values())


def byte_steps(scale: Tensor, grid: Grid, fields: Sequence[int]) -> Tensor | None:
    """What one step of a byte is worth in each column, [columns]: codes fill a byte from its high bits.

    None where the vectors of a column are not that many steps above byte 128.
    """
    if grid.by_rows or not grid.symmetric:
        return None
    steps = scale / 2.0 ** (8 - grid.bits)
    return steps.expand(len(fields)) if len(steps) == 1 else steps[torch.tensor(fields, device=steps.device)]


def as_float16(values: Tensor) -> Tensor:
    """`values`, float32, as float16 holds them; what it does not hold becomes the nearest that it does."""
    return values.clamp(LEAST_RATIO if bool((values > 0).all()) else -MOST_RATIO, MOST_RATIO).half().float()


def pack_rows(table: ScaledTable) -> Tensor:
    """The codes of all rows, packed to bytes [num_rows, ceil(dim * bits / 8)], a chunk at a time."""
    bits, width = table.grid.bits, row_bytes(table.dim, table.grid.bits)
    packed = torch.empty(table.num_rows, width, dtype=torch.uint8, device=table.weight.device)
    step = max(1, CHUNK // table.dim)
    for start in range(0, table.num_rows, step):
        stop = min(start + step, table.num_rows)
        scale, grid = table.grid_at(torch.arange(start, stop, device=packed.device))
        chunk = quantize(table.weight.detach()[start:stop], scale, grid).to(torch.uint8)
        packed[start:stop] = pack_bytes(chunk, bits)
    return packed


def first_groups(bounds: Sequence[tuple[int, int]], rows_per_scale: int) -> list[int]:
    """The first group of every range of rows, whose last group may be a shorter one, and the number of groups."""
    firsts = [0]
    for first, last in bounds:
        firsts.append(firsts[-1] + -(-(last - first) // rows_per_scale))
    return firsts


def search(values: Tensor, grid: Grid, weights: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Scale [groups] and, of a grid that is not symmetric, zero shift [groups] for `values` [groups, n]."""
    if not values.shape[1]:
        return values.new_ones(len(values)), None if grid.symmetric else values.new_zeros(len(values))
    if grid.symmetric:
        if grid.range == "max":
            return range_scale(values, grid.codes), None
        return squared_error_scale(values, grid.codes, weights), None
    whole = not grid.by_rows and grid.bits > 1
    if grid.range == "max":
        scale, zero_point = affine_grid(values.amin(dim=1), values.amax(dim=1), grid.bits, whole=whole)
    else:
        scale, zero_point = squared_error_range(values, grid.bits, weights, whole=whole)
    shift = grid.codes.zero_point - zero_point
    return near_zero(scale, shift) if grid.by_rows else (scale, shift)


def scales_of(
    weight: Tensor, grid: Grid, bounds: Sequence[tuple[int, int]], counts: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Scale and zero shift of every group, [groups] each, where each of `bounds` is a group or holds groups of rows."""
    found = [search(values, grid, weights) for values, weights in _groups(weight, grid, bounds, counts)]
    shifts = [shift for _, shift in found if shift is not None]
    return torch.cat([scale for scale, _ in found]), torch.cat(shifts) if shifts else None


def _groups(
    weight: Tensor, grid: Grid, bounds: Sequence[tuple[int, int]], counts: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The values [groups, n] and weights of consecutive groups of one size, as many as are worked on at a time.

    Rows that are in a sample are as good as all of them, but for the largest values, which "max" has to see.
    """
    for first, last in bounds:
        size = grid.rows_per_scale if grid.by_rows else max(last - first, 1)
        at_once = size * max(1, CHUNK // (size * weight.shape[1]))
        whole = first + (last - first) // size * size
        blocks = [(start, min(start + at_once, whole), size) for start in range(first, whole, at_once)]
        if whole < last or first == last:
            blocks.append((whole, last, last - whole))
        for start, stop, rows in blocks:
            stride = 1 if grid.range == "max" else max(1, rows * weight.shape[1] // SAMPLE)
            values, weights = weight[start:stop], None if counts is None else counts[start:stop]
            if stride > 1:  # a group as large as that is a block of its own
                values, weights = _sampled(values, weights, stride)
                rows = len(values)
            yield _side_by_side(values, weights, rows)


def _sampled(values: Tensor, weights: Tensor | None, stride: int) -> tuple[Tensor, Tensor | None]:
    """One row in `stride`; where rows have weights, half of the sample are the heaviest, and count for themselves."""
    if weights is None:
        return values[::stride], None
    heavy = weights.topk(len(values) // (2 * stride)).indices
    rest = torch.arange(0, len(values), 2 * stride, device=values.device)
    rest = rest[~torch.isin(rest, heavy)]
    share = (weights.sum() - weights[heavy].sum()) / weights[rest].sum().clamp(min=1.0)
    return values[torch.cat([heavy, rest])], torch.cat([weights[heavy], weights[rest] * share])


def _side_by_side(values: Tensor, weights: Tensor | None, rows: int) -> tuple[Tensor, Tensor | None]:
    """Rows [groups * rows, dim] as [groups, rows * dim], with the weight of each value."""
    groups = len(values) // rows if rows else 1
    flat = values.reshape(groups, rows * values.shape[1])
    if weights is None or not rows:
        return flat, None
    weights = weights.reshape(groups, rows)
    weights = torch.where(weights.sum(dim=1, keepdim=True) > 0, weights, 1.0)  # never met: all count alike
    return flat, weights.repeat_interleave(values.shape[1], dim=1)


@register("table", Scaled)
def scaled(
    config: Grid, weight: Tensor, starts: Tensor | None = None, counts: Tensor | None = None
) -> ScaledTable | DenseTable:
    """A scaled table in its trainable form over `weight` [num_rows, dim], which is not copied; dense with 32 bits.

    `counts` [num_rows], where given, weigh the squared error of each row when a scale is chosen.

    Raises:
        InputError: there are no rows, the dimension is too short for the bits, or a value is NaN or infinite.
    """
    starts = one_field(weight) if starts is None else starts
    check_rows(weight, config.bits)
    weight = weight.to(torch.float32)
    if config.bits == 32:
        return DenseTable(weight, starts)
    bounds = [(0, len(weight))]
    if config.scale != "table":
        ends = [*starts.tolist()[1:], len(weight)]
        bounds = list(zip(starts.tolist(), ends, strict=True))
    if config.by_rows:
        bounds = [(first, last) for first, last in bounds if first < last]
        counts = None if config.rows_per_scale == 1 else counts
    scale, zero_shift = scales_of(weight.detach(), config, bounds, counts)
    return ScaledTable(weight, scale, config, starts, zero_shift=zero_shift)
