"""The table of codes: every vector is put together of entries of codebooks, a few bits for each.

A vector is cut into parts of consecutive dimensions; each part is one of 2**bits entries of the codebook of that part
and field. Product quantisation (Jegou et al. 2011), as used for catalogues by RecJPQ (Petrov and Macdonald 2023, arXiv
2312.06165). Codes are fixed once they are assigned, codebooks are trained. Entries of 8 bits lie on one grid of bytes
per field, so that an integer layer takes what is looked up as it is. Left out: codes that move while training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimrank.config import register
from slimrank.tables.affine import fake_quantize, quantize
from slimrank.tables.buckets import bounds_of
from slimrank.tables.clusters import centres, nearest
from slimrank.tables.codes import Codes
from slimrank.tables.coding import Coding, check_codes, code_bytes
from slimrank.tables.integer import BYTE_ZERO, dequantize_linear, divide, pack_bytes, unpack_bytes
from slimrank.tables.ranges import range_scale
from slimrank.tables.table import Table, check_rows, gather_rows, one_field

BYTES = Codes.unsigned(8)


class Codebook(Coding):
    """Codes of a few bits for the parts of a vector, and a codebook of entries per part and field."""

    name: Literal["codebook"] = "codebook"


class CodebookTable(Table):
    """Trainable form: `packed` [rows, ceil(parts * bits / 8)] uint8 codes that stay, `entries` that learn.

    `entries` [fields * parts * 2**bits, dim / parts] float32, rounded as they are read to a grid of bytes whose step is
    exp(`log_step`) [fields], None where entries are floats.
    """

    packed: Tensor
    offsets: Tensor

    def __init__(self, packed: Tensor, entries: Tensor, log_step: Tensor | None, config: Coding, starts: Tensor):
        super().__init__(len(packed), entries.shape[1] * config.parts, starts)
        self.config = config
        self.entries = nn.Parameter(entries)
        self.log_step = None if log_step is None else nn.Parameter(log_step)
        self.register_buffer("packed", packed)
        self.register_buffer("offsets", offsets_of(len(starts), config).to(starts.device), persistent=False)

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        entries = gather_rows(self.entries, places(self, ids, fields)).flatten(-2)
        if self.log_step is None:
            return entries
        return fake_quantize(entries, self.per_column(self.log_step.exp(), ids, fields), BYTES)

    def steps(self, fields: Sequence[int]) -> Tensor | None:
        return None if self.log_step is None else self.log_step.exp()[torch.tensor(fields, device=self.starts.device)]

    @torch.no_grad()
    def pack(self) -> PackedCodebook:
        return PackedCodebook(self)

    @property
    def nbytes(self) -> int:
        return code_bytes(self.num_rows, len(self.starts), self.dim, self.config)


class PackedCodebook(Table):
    """Packed form: the same codes, `entries` as bytes around 128 with `step` [fields], or as floats."""

    packed: Tensor
    offsets: Tensor
    entries: Tensor
    step: Tensor | None

    def __init__(self, source: CodebookTable):
        super().__init__(source.num_rows, source.dim, source.starts)
        self.config = source.config
        entries, step = source.entries.detach().clone(), None
        if source.log_step is not None:
            step = source.log_step.exp()
            own = step.repeat_interleave(len(entries) // len(step)).unsqueeze(1)
            entries = quantize(entries, own, BYTES).to(torch.uint8)
        self.register_buffer("packed", source.packed)
        self.register_buffer("offsets", source.offsets, persistent=False)
        self.register_buffer("entries", entries)
        self.register_buffer("step", step)
        self.hold_byte_grid()

    def forward(self, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        entries = functional.embedding(places(self, ids, fields), self.entries).flatten(-2)
        if self.step is None:
            return entries
        return dequantize_linear(entries, self.one, self.zero_point) * self.per_column(self.step, ids, fields)

    def codes(self, ids: Tensor) -> Tensor:
        """[..., parts] int32: which entry of each part the rows `ids` [...] of a table of one field have."""
        return places(self, ids, (0,)) - self.offsets[0]

    def books(self) -> Tensor:
        """[parts, 2**bits, width] float32: the entries of a table of one field."""
        entries = self.entries
        if self.step is not None:
            entries = (entries.to(torch.float32) - BYTE_ZERO) * self.step[0]
        return entries.view(self.config.parts, 1 << self.config.bits, -1)

    def steps(self, fields: Sequence[int]) -> Tensor | None:
        return None if self.step is None else self.step[torch.tensor(fields, device=self.starts.device)]

    def pack(self) -> PackedCodebook:
        return self

    @property
    def nbytes(self) -> int:
        return code_bytes(self.num_rows, len(self.starts), self.dim, self.config)


def places(table: CodebookTable | PackedCodebook, ids: Tensor, fields: Sequence[int] | None) -> Tensor:
    """The entries of the parts of `ids` [...], among those of all parts and fields: [..., parts] int32."""
    bits = table.config.bits
    codes = unpack_bytes(functional.embedding(ids, table.packed), bits, table.config.parts).to(torch.int32)
    codes = codes if bits == 8 else divide(codes, 2 ** (8 - bits))  # they fill the byte from its high bits
    return codes + table.per_column(table.offsets, ids, fields)


def offsets_of(fields: int, config: Coding) -> Tensor:
    """The first entry of every part of every field: [fields, parts] int32."""
    return (torch.arange(fields * config.parts, dtype=torch.int32) << config.bits).view(fields, config.parts)


@register("table", Codebook)
def codebook(
    config: Coding,
    weight: Tensor,
    starts: Tensor | None = None,
    counts: Tensor | None = None,
    codes: Tensor | None = None,
) -> CodebookTable:
    """The table of codes over `weight` [rows, dim], each row counting by `counts` [rows] where given.

    A field's part with no more distinct vectors than entries is exact, but for the rounding of entries. `codes` [rows,
    parts] uint8 may be assigned before: then entries are the means of the rows that have them.

    Raises:
        InputError: there are no rows, a value is NaN or infinite, or parts and bits do not fit the dimension.
    """
    check_rows(weight)
    check_codes(weight.shape[1], config)
    starts = one_field(weight) if starts is None else starts
    weight = weight.detach().to(torch.float32)
    packed, books = [], []
    for first, last in bounds_of(starts, len(weight)):
        own = None if counts is None else counts[first:last]
        known = None if codes is None else codes[first:last]
        found, entries = _coded(weight[first:last], config, own, known)
        packed.append(pack_bytes(found, config.bits))
        books.append(entries)
    entries = torch.stack(books)
    log_step = None
    if config.entry_bits == 8:
        log_step = range_scale(entries.flatten(1), BYTES).log().to(weight.device)
    flat = entries.view(-1, entries.shape[-1]).to(weight.device)
    return CodebookTable(torch.cat(packed).to(weight.device), flat, log_step, config, starts)


def _coded(rows: Tensor, config: Coding, counts: Tensor | None, given: Tensor | None) -> tuple[Tensor, Tensor]:
    """Codes [n, parts] uint8 and entries [parts, 2**bits, dim / parts] of one field's rows."""
    cut = rows.view(len(rows), config.parts, rows.shape[1] // config.parts)
    codes = torch.zeros(len(rows), config.parts, dtype=torch.uint8)
    entries = torch.zeros(config.parts, 1 << config.bits, cut.shape[2])
    for part in range(config.parts if len(rows) else 0):
        if given is None:
            entries[part] = centres(cut[:, part], 1 << config.bits, counts, seed=part)
            codes[:, part] = nearest(cut[:, part], entries[part]).to(torch.uint8)
        else:
            codes[:, part] = given[:, part].cpu()
            entries[part] = means(cut[:, part].cpu(), given[:, part].cpu().long(), 1 << config.bits, counts)
    return codes, entries


def means(vectors: Tensor, codes: Tensor, count: int, counts: Tensor | None) -> Tensor:
    """The mean of the `vectors` [n, width] of each code, weighted by `counts` [n]: [count, width]; 0 without any."""
    weights = torch.ones(len(vectors)) if counts is None else counts.cpu().float().clamp(min=0.01)
    total = torch.zeros(count, vectors.shape[1]).index_add_(0, codes, vectors * weights.unsqueeze(1))
    return total / torch.zeros(count).index_add_(0, codes, weights).clamp(min=1e-12).unsqueeze(1)
