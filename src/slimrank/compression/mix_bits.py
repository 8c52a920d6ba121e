"""Step: rows of tables get the more bits the more often they are met, under a budget of bytes for the whole model.

Each field is cut by id into bands, which are bands of frequency where its ids are sorted by it, and a knapsack chooses
a width for each: the sum over all rows of frequency * sensitivity * squared error is least. Neighbours of equal width
become one band. Post-training, or refined in retraining, where steps and multiples are learned. MPE (arXiv 2409.20305)
and SHARK (arXiv 2308.09395) choose bits by frequency as well; the widths there come from training or thresholds, here
from the bytes that there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Literal

from pydantic import ByteSize
from torch import Tensor, nn

from slimrank.compression.bands import cuts
from slimrank.compression.budget import Option, allocate
from slimrank.compression.selection import Budgeted
from slimrank.compression.sensitivity import Sensitivity, sensitivity
from slimrank.compression.steps import Context
from slimrank.compression.tables import NEVER, Part, find_parts, left_for, replace_parts, row_counts
from slimrank.config import InputError, register
from slimrank.models.layers import ItemScorer
from slimrank.tables.codes import packs, row_bytes
from slimrank.tables.mixed import Bands, Mixed, Width, codes_of, is_midrise, mixed, weighted_mean
from slimrank.tables.ranges import squared_error, squared_error_scale
from slimrank.tables.table import Table

SAMPLE = 1 << 16  # values of a band on which its errors are measured


class MixBits(Budgeted):
    """Bits by frequency, of `widths`, so that the whole model takes at most `budget` bytes.

    Floats (16, 32) keep the field's bytes from feeding an integer layer; of 8 bits no error is left to speak of. The
    first ids of a sequence have a width that holds zero exactly, 2 bits or more, and 8 where `widths` has none.
    """

    name: Literal["mix-bits"] = "mix-bits"
    budget: ByteSize
    widths: tuple[Width, ...] = (0, 1, 2, 4, 8)


@dataclass(frozen=True)
class Band:
    """Rows `first` to `last` - 1 of a part, which lie in its field `field`, and what they may become."""

    part: Part
    field: int
    first: int
    last: int
    widths: tuple[Width, ...]
    options: tuple[Option, ...]


@register("step", MixBits)
def mix_bits(model: nn.Module, config: MixBits, context: Context) -> nn.Module:
    """Every selected dense table of the model in bands of several widths.

    Raises:
        InputError: the budget is below the least possible, which the message names.
    """
    if isinstance(model, ItemScorer):
        context.skip("embedding", "its rows are as wide as the catalogue: prune them (`prune-neighbours`) instead")
        return model
    parts = [part for part in find_parts(model, config, context) if _takes(part, config, context)]
    measured = {owner: sensitivity(model, owner, context) for owner in {part.owner for part in parts}}
    bands = [band for part in parts for band in bands_of(part, config, _own(part, model, measured[part.owner]))]
    left = left_for(model, parts, config.budget, context)
    chosen = choose(bands, left, int(config.budget)) if bands else []
    made: dict[Part, Table] = {}
    for part in parts:
        runs = merged([(band, bits) for band, bits in zip(bands, chosen, strict=True) if band.part is part])
        table = mixed(Mixed(bands=runs), part.table.weight.detach(), part.table.starts, row_counts(part))
        table.sparse, made[part] = part.table.sparse, table
        for field, own in zip(part.fields, runs, strict=True):
            rows = sum(count for count, _ in own)
            context.note(**{f"bits of {field}": sum(count * bits for count, bits in own) / max(rows, 1)})
            if made[part].nbytes < part.table.nbytes:
                context.touch(f"{field}: " + ", ".join(f"{bits} bits for {count:,} ids" for count, bits in own))
    replace_parts(model, made, context)
    return model


def _takes(part: Part, config: MixBits, context: Context) -> bool:
    """Whether the rows of a part can be mixed; why not is noted."""
    try:
        if not part.fields:
            raise InputError("ids share its rows: they have no frequencies of their own")
        if not _packable(part.table.dim, config.widths):
            raise InputError(f"dimension {part.table.dim} packs at none of {', '.join(map(str, config.widths))} bits")
    except InputError as error:
        context.skip(part.name, str(error))
        return False
    return True


def _packable(dim: int, widths: Sequence[Width]) -> list[Width]:
    return [bits for bits in widths if bits == 0 or packs(dim, bits)]


def _own(part: Part, model: nn.Module, measured: Sensitivity) -> Sensitivity:
    """The rows of `part` out of what was measured on the table that it lies in, without the lookups of padding.

    No score reads these, and they would make a field with much padding look insensitive.
    """
    owner = model.get_submodule(part.owner)
    assert isinstance(owner, Table)
    first = owner.bounds()[part.places[0]][0]
    total, lookups = (each[first : first + part.table.num_rows].clone() for each in measured)
    padding = [start for (start, _), kept in zip(part.table.bounds(), part.reserved, strict=True) if kept > 1]
    total[padding] = lookups[padding] = 0.0
    return Sensitivity(total, lookups)


def bands_of(part: Part, config: MixBits, measured: Sensitivity) -> list[Band]:
    """The bands of all fields of `part`, each with its options.

    Bands of ids in no order of frequency are as right, and gain the less the less the order tells.
    """
    counts = row_counts(part)
    counts = measured.lookups.clamp(min=NEVER) if counts is None else counts
    overall = measured.of(0, part.table.num_rows, 0.0)
    bands = []
    for field, (first, last) in enumerate(part.table.bounds()):
        pool = measured.of(first, last, overall)
        for start, stop in pairwise([first, last] if part.counts is None else cuts(first, last)):
            # The average of a sequence adds its padding, which therefore has to be exactly 0.
            exact = start == first and part.reserved[field] > 1
            widths = [
                w for w in _packable(part.table.dim, config.widths) if not exact or (w and not is_midrise(w))
            ] or [8]
            weight = measured.of(start, stop, pool)
            options = [option(part.table.weight.detach()[start:stop], counts[start:stop], weight, w) for w in widths]
            bands.append(Band(part, field, start, stop, tuple(widths), tuple(options)))
    return bands


def option(rows: Tensor, counts: Tensor, weight: float, bits: Width) -> Option:
    """Bytes of `rows` [n, dim] at a width, and weight * sum of count * squared error, measured on an even sample."""
    stride = max(1, rows.numel() // SAMPLE)
    some, often = rows[::stride], counts[::stride]
    share = float(counts.sum() / often.sum())
    if bits == 0:
        errors = ((some - weighted_mean(some, often)).square().sum(dim=1) * often).sum()
        return Option(rows.shape[1], weight * share * float(errors))
    size = len(rows) * row_bytes(rows.shape[1], bits)
    if bits > 8:
        near = some.half().float() if bits == 16 else some
        return Option(size, weight * share * float(((near - some).square().sum(1) * often).sum()))
    values, often = some.reshape(1, -1), often.repeat_interleave(rows.shape[1]).unsqueeze(0)
    scale = squared_error_scale(values, codes_of(bits), often)
    error = squared_error(values, scale, codes_of(bits), often)
    return Option(size, weight * share * float(error))


def choose(bands: Sequence[Band], left: int, budget: int) -> list[Width]:
    """The width of every band so that the tables take at most `left` bytes, of a `budget` for the whole model.

    What bands take beside their rows hangs on which of them become one. So the rows get what is left when all
    neighbours do, and less where that turns out too much.

    Raises:
        InputError: the least possible is more.
    """
    smallest = [min(zip(band.options, range(len(band.options)), strict=True))[1] for band in bands]
    least = packed_bytes_of(bands, smallest)
    if least > left:
        raise InputError(f"a budget of {budget:,} bytes is below the least possible: {budget - left + least:,}")
    least_rows = sum(band.options[n].bytes for band, n in zip(bands, smallest, strict=True))
    room = left
    while room > least_rows:
        places = allocate([band.options for band in bands], room)
        over = packed_bytes_of(bands, places) - left
        if over <= 0:
            return [band.widths[n] for band, n in zip(bands, places, strict=True)]
        room = max(room - over, least_rows)
    return [band.widths[n] for band, n in zip(bands, smallest, strict=True)]


def packed_bytes_of(bands: Sequence[Band], places: Sequence[int]) -> int:
    """Bytes of all tables with the options at `places`."""
    total = 0
    for _, own in groupby(zip(bands, places, strict=True), lambda each: id(each[0].part)):
        chosen = [(band, band.widths[n]) for band, n in own]
        part = chosen[0][0].part
        total += Bands.of(merged(chosen)).nbytes(part.table.dim, len(part.fields))
    return total


def merged(chosen: Sequence[tuple[Band, Width]]) -> tuple[tuple[tuple[int, Width], ...], ...]:
    """(rows, bits) of the bands of each field of one part, neighbours of equal bits as one."""
    fields = []
    for _, own in groupby(chosen, lambda each: each[0].field):
        runs = [(bits, list(run)) for bits, run in groupby(own, lambda each: each[1])]
        fields.append(tuple((sum(band.last - band.first for band, _ in run), bits) for bits, run in runs))
    return tuple(fields)
