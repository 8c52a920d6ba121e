"""The table of mixed widths: ids of a field are sorted by frequency, and bands of them have more or fewer bits.

The bands of a field are consecutive rows, so that a lookup needs no map, only the first row of every band. All integer
bands of a field share one grid of bytes: the step of band b is a whole multiple of the field's byte step,

    value = step of field * (byte - 128),    byte = 128 + multiple of band * (code - zero point of its width)

so that the bytes feed an integer layer as they are, whatever bits they come from. A band of 0 bits is one row for all
of its ids. Bits by frequency: MPE (Zhang et al. 2024, arXiv 2409.20305), SHARK (Zhang et al. 2023, arXiv 2308.09395).
Left out: how the bands are chosen; that is the step `mix-bits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from slimrank.config import Config, InputError, register
from slimrank.tables.affine import on_grid, quantize, round_through
from slimrank.tables.by_row import band_of, by_row
from slimrank.tables.codes import Codes, row_bytes
from slimrank.tables.dense import DenseTable
from slimrank.tables.grid import Grid
from slimrank.tables.integer import BYTE_ZERO, dequantize_linear, pack_bytes, unpack_bytes
from slimrank.tables.scaled import CHUNK, scales_of
from slimrank.tables.table import Table, check_rows, gather_rows, one_field

Width = Literal[0, 1, 2, 4, 8, 16, 32]
PARTS: tuple[Width, ...] = (8, 4, 2, 1, 16, 32)  # the packed form's arrays, in the order in which their rows count
FLOATS = {16: torch.float16, 32: torch.float32}
BAND_BYTES, FIELD_BYTES = 16, 4  # what a band and a field take beside their rows


class Mixed(Config):
    """Integers of 8, 4, 2, 1 or 0 bits and floats of 32 or 16, by bands of the rows of a field."""

    name: Literal["mixed"] = "mixed"
    bands: tuple[tuple[tuple[Annotated[int, Field(ge=1)], Width], ...], ...] = ()


@dataclass(frozen=True)
class Bands:
    """Bands in the order of their rows, by field, number of rows and bits."""

    field: tuple[int, ...]
    rows: tuple[int, ...]
    bits: tuple[Width, ...]

    @classmethod
    def of(cls, fields: Sequence[Sequence[tuple[int, Width]]]) -> Bands:
        """The bands given for each field as (rows, bits)."""
        flat = [(field, rows, bits) for field, bands in enumerate(fields) for rows, bits in bands]
        return cls(*(tuple(each) for each in zip(*flat, strict=True)))

    @property
    def firsts(self) -> list[int]:
        """The first row of each band."""
        return list(accumulate(self.rows, initial=0))[:-1]

    @property
    def stored(self) -> list[int]:
        """How many rows each band has of its own: one where it has 0 bits."""
        return [1 if bits == 0 else rows for rows, bits in zip(self.rows, self.bits, strict=True)]

    @property
    def stored_bits(self) -> list[Width]:
        """The bits of those rows: the one that a band of 0 bits shares has 8."""
        return [bits or 8 for bits in self.bits]

    def places(self, *, by_width: bool) -> list[int]:
        """Where the rows of each band begin among all stored ones, in their order or sorted by `PARTS`."""
        order = sorted(range(len(self.rows)), key=lambda band: PARTS.index(self.stored_bits[band]) if by_width else 0)
        begins = accumulate((self.stored[band] for band in order), initial=0)
        return [place for _, place in sorted(zip(order, begins, strict=False))]

    def nbytes(self, dim: int, fields: int) -> int:
        """Bytes of the packed form."""
        rows = sum(n * row_bytes(dim, bits) for n, bits in zip(self.stored, self.stored_bits, strict=True))
        return rows + BAND_BYTES * len(self.rows) + FIELD_BYTES * fields


def is_midrise(bits: int) -> bool:
    """Whether zero lies between two codes of that width: of the two of 1 bit none is spent on it."""
    return bits <= 1


def codes_of(bits: int) -> Codes:
    """The codes of a width, 8 at most."""
    return Codes.unsigned(min(bits, 8), midrise=is_midrise(bits))


def most_multiple(bits: int) -> int:
    """The largest multiple of a byte's step that is a band's step: then its codes fill the byte."""
    return 1 if bits > 8 else 2 ** (8 - bits)


def evenness(bits: int) -> int:
    """A band's multiple is a multiple of this: where zero lies between codes, half of it must be a whole byte."""
    return 2 if is_midrise(bits) else 1


class MixedTable(Table):
    """Trainable form: float rows, those of each band quantised as they are read, with learned steps and multiples.

    Shapes: `weight` [stored rows, dim] float32; `log_step` [fields], of a byte; `log_multiple` [bands], of that step,
    in units of `evenness`.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bands: Bands, starts: Tensor, *, sparse: bool = False):
        super().__init__(sum(bands.rows), weight.shape[1], starts)
        self.bands, self.sparse = bands, sparse
        self.weight = nn.Parameter(weight)
        self._remember("field", bands.field)
        self._remember("firsts", bands.firsts)
        places = bands.places(by_width=False)
        self._remember("shift", [first - place for first, place in zip(bands.firsts, places, strict=True)])
        self._remember("last", [place + rows - 1 for place, rows in zip(places, bands.stored, strict=True)])
        codes = [codes_of(bits) for bits in bands.stored_bits]
        self._remember("negative", [float(each.negative) for each in codes])
        self._remember("positive", [float(each.positive) for each in codes])
        self._remember("fraction", [float(each.fraction) for each in codes])
        self._remember("unit", [float(evenness(bits)) for bits in bands.stored_bits])
        self._remember("most", [float(most_multiple(bits)) for bits in bands.stored_bits])
        step = field_steps(scale, bands, len(starts), self.most)
        self.log_step = nn.Parameter(step.log())
        multiple = scale / step[self.field] / self.unit
        self.log_multiple = nn.Parameter(torch.where(self.most > 1, multiple, 1.0).clamp(min=1.0).log())

    field: Tensor
    firsts: Tensor
    shift: Tensor
    last: Tensor
    negative: Tensor
    positive: Tensor
    fraction: Tensor
    unit: Tensor
    most: Tensor

    def _remember(self, name: str, values: Sequence[int] | Sequence[float]) -> None:
        self.register_buffer(name, torch.tensor(values, device=self.starts.device), persistent=False)

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        band = band_of(ids, self.firsts)
        rows = torch.minimum(ids - self.shift[band], self.last[band])
        vectors = gather_rows(self.weight, rows, sparse=self.sparse)
        return self._rounded(vectors, band.unsqueeze(-1))

    def _rounded(self, vectors: Tensor, band: Tensor) -> Tensor:
        """`vectors` [..., dim] as the widths of their `band` [..., 1] hold them, straight through."""
        scale, fraction = self.scale[band], self.fraction[band]
        values = on_grid(vectors, scale, self.negative[band], self.positive[band], fraction)
        for bits, dtype in FLOATS.items():
            if bits in self.bands.bits:
                most = torch.finfo(dtype).max
                exact = vectors + (vectors.clamp(-most, most).to(dtype).to(vectors.dtype) - vectors).detach()
                own = torch.tensor([each == bits for each in self.bands.bits], device=band.device)
                values = torch.where(own[band], exact, values)
        return values

    @property
    def multiple(self) -> Tensor:
        """How many byte steps of the field one step of each band is, whole: [bands] float32."""
        return (round_through(self.log_multiple.exp()) * self.unit).clamp(self.unit.clamp(max=self.most), self.most)

    @property
    def scale(self) -> Tensor:
        """The value of one step of each band: [bands] float32."""
        return self.log_step.exp()[self.field] * self.multiple

    def steps(self, fields: Sequence[int]) -> Tensor | None:
        return byte_steps(self.log_step.exp(), self.bands, fields)

    def sparse_parameters(self) -> list[nn.Parameter]:
        return [self.weight] if self.sparse else []

    @torch.no_grad()
    def pack(self) -> PackedMixed:
        return PackedMixed(self)

    @property
    def nbytes(self) -> int:
        return self.bands.nbytes(self.dim, len(self.starts))


def field_steps(scale: Tensor, bands: Bands, fields: int, most: Tensor) -> Tensor:
    """The byte step of each field, [fields]: the finest with which no band of step `scale` [bands] outgrows a byte."""
    step = scale.new_zeros(fields)
    for band, (field, bits) in enumerate(zip(bands.field, bands.stored_bits, strict=True)):
        if bits <= 8:
            step[field] = torch.maximum(step[field], scale[band] / most[band])
    return torch.where(step > 0, step, torch.ones_like(step))


def byte_steps(step: Tensor, bands: Bands, fields: Sequence[int]) -> Tensor | None:
    """The byte step of each column's field, or None where one of them has rows of floats."""
    floats = {field for field, bits in zip(bands.field, bands.bits, strict=True) if bits > 8}
    if floats.intersection(fields):
        return None
    return step[torch.tensor(fields, device=step.device)]


class PackedMixed(Table):
    """Packed form: the rows of all bands of a width in one array, by width in the order of `PARTS`.

    `packed_8`, `packed_4` ... are [rows, ceil(dim * bits / 8)] uint8, as `unpack_bytes` reads them; `packed_16` and
    `packed_32` are floats [rows, dim]. A row r of band b is row min(r - shift[b], last[b]) of all these arrays, one
    below the other. Its unpacked bytes, which fill the byte, are drawn together by gain[b] <= 1 around 128.
    """

    firsts: Tensor  # [bands] int32
    shift: Tensor  # [bands, 1] int32
    last: Tensor  # [bands, 1] int32
    gain: Tensor  # [bands, 1] float32
    step: Tensor  # [fields] float32

    def __init__(self, source: MixedTable):
        super().__init__(source.num_rows, source.dim, source.starts)
        bands = self.bands = source.bands
        places = bands.places(by_width=True)
        self._store("firsts", bands.firsts)
        self._store("shift", [[first - place] for first, place in zip(bands.firsts, places, strict=True)])
        self._store("last", [[place + rows - 1] for place, rows in zip(places, bands.stored, strict=True)])
        self.register_buffer("gain", (source.multiple / source.most).unsqueeze(1))
        self.register_buffer("step", source.log_step.detach().exp())
        self.hold_byte_grid()
        for bits in PARTS:
            if bits in bands.stored_bits:
                self.register_buffer(f"packed_{bits}", pack_width(source, bits))

    def _store(self, name: str, values: Sequence[object]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.int32, device=self.starts.device))

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        band = band_of(ids, self.firsts)
        place = ids.unsqueeze(-1) - functional.embedding(band, self.shift).to(ids.dtype)
        place = torch.minimum(place, functional.embedding(band, self.last).to(ids.dtype))
        values = self._of_integers(ids, band, place, fields)
        for bits in FLOATS:
            own = self._gathered(place, bits)
            if own is not None:
                own = own.to(torch.float32)
                values = own if values is None else torch.where(place >= self._base(bits), own, values)
        assert values is not None
        return values

    def _of_integers(self, ids: Tensor, band: Tensor, place: Tensor, fields: Sequence[int] | None) -> Tensor | None:
        """The vectors of the rows of integers, None where there are none; anything in place of rows of floats."""
        codes: Tensor | None = None
        for bits in PARTS[:4]:
            packed = self._gathered(place, bits)
            if packed is not None:
                own = unpack_bytes(packed, bits, self.dim, midrise=is_midrise(bits))
                codes = own if codes is None else torch.where(place >= self._base(bits), own, codes)
        if codes is None:
            return None
        if set(self.bands.bits) - {0, 8}:
            gain = functional.embedding(band, self.gain)
            codes = ((codes.to(torch.float32) - BYTE_ZERO) * gain + BYTE_ZERO).to(torch.uint8)
        codes = by_row(codes, ids, self.num_rows)
        return dequantize_linear(codes, self.one, self.zero_point) * self.per_column(self.step, ids, fields)

    def _gathered(self, place: Tensor, bits: int) -> Tensor | None:
        """The packed rows of that width at `place` [..., 1], others being the nearest of them; None without any."""
        packed: Tensor | None = getattr(self, f"packed_{bits}", None)
        if packed is None:
            return None
        own = (place - self._base(bits)).clamp(0, packed.shape[0] - 1).squeeze(-1)
        return functional.embedding(own, packed)

    def _base(self, bits: int) -> int:
        """Stored rows of the widths before that one."""
        before = PARTS[: PARTS.index(bits)]
        return sum(rows for rows, each in zip(self.bands.stored, self.bands.stored_bits, strict=True) if each in before)

    def steps(self, fields: Sequence[int]) -> Tensor | None:
        return byte_steps(self.step, self.bands, fields)

    def pack(self) -> PackedMixed:
        return self

    @property
    def nbytes(self) -> int:
        return self.bands.nbytes(self.dim, len(self.starts))


def pack_width(table: MixedTable, bits: int) -> Tensor:
    """The rows of all bands of that width: [rows, ceil(dim * bits / 8)] uint8, or [rows, dim] floats."""
    bands, scale = table.bands, table.scale
    rows = zip(bands.places(by_width=False), bands.stored, bands.stored_bits, scale, strict=True)
    own = [(table.weight.detach()[first : first + count], step) for first, count, each, step in rows if each == bits]
    if bits > 8:
        most = torch.finfo(FLOATS[bits]).max
        return torch.cat([weight.clamp(-most, most).to(FLOATS[bits]) for weight, _ in own])
    packed = torch.empty(
        sum(len(w) for w, _ in own), row_bytes(table.dim, bits), dtype=torch.uint8, device=scale.device
    )
    done, at_once = 0, max(1, CHUNK // table.dim)
    for weight, step in own:
        for start in range(0, len(weight), at_once):
            codes = quantize(weight[start : start + at_once], step, codes_of(bits)).to(torch.uint8)
            packed[done : done + len(codes)] = pack_bytes(codes, bits)
            done += len(codes)
    return packed


@register("table", Mixed)
def mixed(
    config: Mixed, weight: Tensor, starts: Tensor | None = None, counts: Tensor | None = None
) -> MixedTable | DenseTable:
    """A table of mixed widths in its trainable form over `weight` [num_rows, dim]; all of 8 bits without `bands`.

    It is not copied, unless there are bands of 0 bits: such a band's one row is the mean of its rows, each counted as
    often as it is met by `counts` [num_rows]. All 32 bits give the dense table. Steps have the least squared error.

    Raises:
        InputError: the bands are not those of the fields, or a width does not pack; as `check_rows` does.
    """
    starts = one_field(weight) if starts is None else starts
    sizes = torch.diff(starts, append=starts.new_tensor([len(weight)])).tolist()
    check_rows(weight, 32)
    weight = weight.to(torch.float32)
    bands = Bands.of(config.bands or [[(size, 8)] if size else [] for size in sizes])
    _check_bands(config, sizes)
    if set(bands.bits) == {32}:
        return DenseTable(weight, starts)
    for bits in set(bands.stored_bits):
        check_rows(weight[:1], bits)
    kept = shared_rows(weight, bands, counts) if 0 in bands.bits else weight
    places = bands.places(by_width=False)
    scales = []
    for first, place, rows, bits in zip(bands.firsts, places, bands.stored, bands.stored_bits, strict=True):
        own = None if counts is None else counts[first : first + rows]
        scales.append(band_scale(kept[place : place + rows], bits, own))
    return MixedTable(kept, torch.cat(scales), bands, starts)


def band_scale(rows: Tensor, bits: int, counts: Tensor | None) -> Tensor:
    """The step [1] with the least squared error for `rows` [n, dim]; 1 for floats."""
    if bits > 8:
        return rows.new_ones(1)
    grid = Grid.model_validate({"bits": bits, "levels": "midrise" if is_midrise(bits) else "midtread"})
    return scales_of(rows, grid, [(0, len(rows))], counts)[0]


def _check_bands(config: Mixed, sizes: Sequence[int]) -> None:
    """Raises `InputError` where the bands do not make up the fields."""
    found = [sum(rows for rows, _ in bands) for bands in config.bands]
    if config.bands and found != list(sizes):
        raise InputError(f"bands: have {found} rows by field, must be {list(sizes)}")


def shared_rows(weight: Tensor, bands: Bands, counts: Tensor | None) -> Tensor:
    """`weight` [num_rows, dim] with one row, their mean weighted by `counts`, for the rows of each band of 0 bits."""
    kept = []
    for first, rows, bits in zip(bands.firsts, bands.rows, bands.bits, strict=True):
        own = weight[first : first + rows]
        kept.append(weighted_mean(own, None if counts is None else counts[first : first + rows]) if bits == 0 else own)
    return torch.cat(kept)


def weighted_mean(rows: Tensor, counts: Tensor | None) -> Tensor:
    """The mean [1, dim] of `rows` [n, dim], weighted by `counts` [n] where they are known and not all 0."""
    if counts is None or not bool(counts.sum() > 0):
        return rows.mean(dim=0, keepdim=True)
    return (counts @ rows / counts.sum()).unsqueeze(0)
