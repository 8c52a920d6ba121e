"""Step: rows of tables become codes of a few bits into codebooks, one set of them a field, learned in retraining.

Codes come from the trained rows, or from the interactions of two fields before there are good rows: the singular
vectors of their matrix, each cut in equal parts (RecJPQ, Petrov and Macdonald 2023, arXiv 2312.06165).
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from slimrank.compression.budget import Option, allocate
from slimrank.compression.selection import Budgeted
from slimrank.compression.steps import Context
from slimrank.compression.tables import Part, find_parts, left_for, replace_parts
from slimrank.config import InputError, nearest, register
from slimrank.models.layers import Network
from slimrank.tables.codebook import codebook
from slimrank.tables.coding import Coding, check_codes, code_bytes
from slimrank.tables.embedding import Layout
from slimrank.tables.table import Table

SAMPLE = 1 << 12  # rows on which the error of a coding is measured
BITS: tuple[Literal[2, 4, 8], ...] = (8, 4, 2)
PARTS = (1, 2, 4, 8, 16, 32, 64)


class CodebookTables(Coding, Budgeted):
    """Codes and codebooks for every selected field, all coded alike, or each as a budget allows.

    `assign` "interactions" takes the codes of each field from the rows of label 1 it shares with the field
    `with_field`. With a `budget`, `parts` and `bits` are chosen for every field.
    """

    name: Literal["codebook-tables"] = "codebook-tables"
    assign: Literal["rows", "interactions"] = "rows"
    with_field: str | None = None

    @model_validator(mode="after")
    def _named(self) -> CodebookTables:
        if (self.assign == "interactions") != (self.with_field is not None):
            raise ValueError("assign 'interactions' and with_field go together: the other field of the interactions")
        return self


@register("step", CodebookTables)
def codebook_tables(model: nn.Module, config: CodebookTables, context: Context) -> nn.Module:
    """Every selected field of the model that gets smaller as codes and codebooks.

    Raises:
        InputError: `with_field` is no field, or the budget is below the least possible.
    """
    if config.with_field is not None:
        _check_interactions(model, config.with_field)
    parts = [part for part in find_parts(model, config, context, per_field=True) if _takes(part, config, context)]
    codings: dict[Part, Coding] = (
        dict.fromkeys(parts, config)
        if config.budget is None
        else _chosen(model, parts, config, int(config.budget), context)
    )
    made = {part: _coded(model, part, config, coding, context) for part, coding in codings.items()}
    replace_parts(model, made, context)
    return model


def _check_interactions(model: nn.Module, field: str) -> None:
    """Raises `InputError` where the interactions with `field` are not known."""
    if not isinstance(model, Network):
        raise InputError("assign 'interactions' needs a model of slimrank, which knows its rows' fields")
    names = model.embedding.layout.names
    if field not in names:
        raise InputError(f"with_field: unknown field {field!r}. {nearest(field, names)}")


def _takes(part: Part, config: CodebookTables, context: Context) -> bool:
    """Whether the rows of a part can be coded; why not is noted. A budget has to know before it is divided."""
    try:
        if not part.table.num_rows:
            raise InputError("has no rows")
        if config.budget is None:
            check_codes(part.table.dim, config)
        if config.with_field is not None and part.fields in ((), (config.with_field,)):
            raise InputError(f"has no interactions with {config.with_field}")
    except InputError as error:
        context.skip(part.name, str(error))
        return False
    return True


def _coded(model: nn.Module, part: Part, config: CodebookTables, coding: Coding, context: Context) -> Table:
    """The table of codes of one field."""
    codes = None
    if config.with_field is not None and isinstance(model, Network):
        codes = interaction_codes(model, part.fields[0], config.with_field, coding, context)
    return codebook(coding, part.table.weight.detach(), part.table.starts, part.counts, codes)


def _chosen(
    model: nn.Module, parts: list[Part], config: CodebookTables, budget: int, context: Context
) -> dict[Part, Coding]:
    """The coding of every field with which the weighted squared error is least; fields that stay are left out."""
    left = left_for(model, parts, budget, context)
    options = [_options(part, config, left) for part in parts]
    chosen = allocate([[option for _, option in own] for own in options], budget, fixed=budget - left)
    kept = {part: own[place][0] for part, own, place in zip(parts, options, chosen, strict=True)}
    for part in (part for part, coding in kept.items() if coding is None):
        context.skip(part.name, f"keeps its {part.table.nbytes:,} bytes within the budget")
    return {part: coding for part, coding in kept.items() if coding is not None}


def _options(part: Part, config: CodebookTables, left: int) -> list[tuple[Coding | None, Option]]:
    """The rows as they are, and every coding that is smaller, with its error on a sample of the rows.

    Codings of more than `left` bytes are none, but for the smallest, from which the least possible budget follows.
    """
    table = part.table
    found: list[tuple[Coding | None, Option]] = [(None, Option(table.nbytes, 0.0))]
    stride = max(1, table.num_rows // SAMPLE)
    rows = table.weight.detach()[::stride]
    counts = torch.ones(table.num_rows) if part.counts is None else part.counts.clamp(min=0.5)
    some = counts[::stride]
    share = float(counts.sum() / some.sum())
    codings = [
        Coding(parts=parts, bits=bits, entry_bits=config.entry_bits)
        for parts, bits in product(PARTS, BITS)
        if table.dim % parts == 0
    ]
    sizes = [code_bytes(table.num_rows, len(table.starts), table.dim, coding) for coding in codings]
    most = min(max(left, min(sizes, default=0)), table.nbytes - 1)
    for coding, size in zip(codings, sizes, strict=True):
        if size > most:
            continue
        made = codebook(coding, rows, None, some)
        error = ((made.rows(0, len(rows)) - rows).square().sum(dim=1) * some.to(rows.device)).sum()
        found.append((coding, Option(size, share * float(error))))
    return found


def interaction_codes(model: Network, field: str, other: str, coding: Coding, context: Context) -> Tensor:
    """Codes [rows, parts] uint8 of the ids of `field`: equal shares of the ids by each of the first singular vectors.

    The matrix has a row an id of `field`, a column an id of `other`, and the square root of the number of train rows
    of label 1 that hold both. Ids that none holds get codes at random.
    """
    layout = model.embedding.layout
    columns = [int(layout.columns_of({name})[0]) for name in (field, other)]
    ids = context.train.ids if model.embedding.reads is None else context.train.ids[:, model.embedding.reads]
    pairs = ids[context.train.label > 0][:, columns].long().T.cpu()
    size = tuple(_size(layout, name) for name in (field, other))
    known = (pairs[0] < size[0]) & (pairs[1] < size[1])
    matrix = torch.sparse_coo_tensor(
        pairs[:, known], torch.ones(int(known.sum())), size, check_invariants=True
    ).coalesce()
    matrix = torch.sparse_coo_tensor(matrix.indices(), matrix.values().sqrt(), size, check_invariants=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        vectors = torch.svd_lowrank(matrix, q=min(coding.parts, *size), niter=4)[0]
        vectors = vectors + 1e-3 * vectors.std() * torch.randn(vectors.shape)  # ties, and ids that none holds
    codes = torch.zeros(size[0], coding.parts, dtype=torch.uint8)
    for place in range(vectors.shape[1]):
        rank = vectors[:, place].argsort(stable=True).argsort(stable=True)
        codes[:, place] = (rank * (1 << coding.bits) // size[0]).to(torch.uint8)
    return codes


def _size(layout: Layout, name: str) -> int:
    return layout.sizes[layout.names.index(name)]
