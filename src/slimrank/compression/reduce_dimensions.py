"""Step: the vectors of tables get shorter, along the directions in which what is looked up spreads least.

Where all that reads the vectors is linear, the projection becomes part of the layer that reads them, and the table is
just narrower (PCA of a table's outputs: AFM, Zhang et al. 2024, arXiv 2405.18146). Elsewhere a table holds short rows
and a projection. Post-training on any model; a table that was trained wide (MLET) is merged first.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from slimrank.compression.bands import cuts
from slimrank.compression.budget import Option, allocate
from slimrank.compression.selection import Budgeted, selected
from slimrank.compression.steps import Context, is_network
from slimrank.compression.tables import (
    Part,
    beside_tables,
    check_fields,
    find_parts,
    left_for,
    replace_parts,
    rest_bytes,
    row_counts,
    trial_of,
)
from slimrank.config import InputError, check_one_given, register
from slimrank.models.layers import InputLinear, Network
from slimrank.tables.dense import Dense, DenseTable
from slimrank.tables.embedding import FusedEmbedding
from slimrank.tables.low_rank import LowRankTable, banded
from slimrank.tables.principal import Spectrum, project, rank_that_keeps, spectrum
from slimrank.tables.table import Table

Band = tuple[int, int, Spectrum]  # first row, row after the last, and their principal components


class ReduceDimensions(Budgeted):
    """Shorten vectors to `rank` numbers, to the rank that keeps the share `energy`, or to what a budget allows.

    `weighted`: rows count as often as training met them. With `fold` the projection goes into the layers that read the
    vectors, where these are linear and every field is selected: then all fields have one rank. With `by_frequency` the
    ids of a field, where they are sorted by it, are cut into bands that each have a rank and a projection of their own.
    """

    name: Literal["reduce-dimensions"] = "reduce-dimensions"
    rank: int | None = Field(default=None, ge=1)
    energy: float | None = Field(default=None, gt=0, le=1)
    fold: bool = True
    weighted: bool = True
    by_frequency: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> ReduceDimensions:
        check_one_given(self, "rank", "energy", "budget")
        if self.by_frequency and self.rank is not None:
            raise ValueError("by_frequency finds the rank of every band by energy or budget, and rank is given")
        return self


@register("step", ReduceDimensions)
def reduce_dimensions(model: nn.Module, config: ReduceDimensions, context: Context) -> nn.Module:
    """The model with shorter vectors.

    Raises:
        InputError: the budget is below the least possible, which the message names.
    """
    check_fields(model, config)
    _merge_wide(model, config, context)
    found: dict[Part, Spectrum] = {}
    for part in find_parts(model, config, context, per_field=True):
        counts = part.counts if config.weighted else None
        try:
            found[part] = spectrum(part.table.weight.detach(), counts)
        except InputError as error:
            context.skip(part.name, str(error))
    folds = found and config.fold and not config.by_frequency and is_network(model, "projection", context)
    if isinstance(model, Network) and folds and _folds(model, found, context):
        _fold(model, found, _common_rank(model, found, config, context), context)
        return model
    bands = {part: _bands(part, own, config, context) for part, own in found.items()}
    ranks = _ranks(model, bands, config, context)
    made: dict[Part, Table] = {}
    for part, own in ranks.items():
        if min(own) >= part.table.dim:
            context.skip(part.name, f"keeps its {part.table.dim} dimensions")
            continue
        shorter = [(first, last, rank, found) for (first, last, found), rank in zip(bands[part], own, strict=True)]
        made[part] = banded(part.table.weight.detach(), shorter, Dense()).with_sparse(part.table.sparse)
    for part in replace_parts(model, made, context):
        if len(ranks[part]) > 1:
            sizes = [last - first for first, last, _ in bands[part]]
            told = (f"{rank} numbers for {size:,} ids" for rank, size in zip(ranks[part], sizes, strict=True))
            context.touch(f"{part.name}: {', '.join(told)}")
    return model


def _bands(part: Part, whole: Spectrum, config: ReduceDimensions, context: Context) -> list[Band]:
    """The bands of one field, each with its own principal components; one of all ids where they are in no order."""
    rows, counts = part.table.num_rows, row_counts(part) if config.weighted else None
    places = cuts(0, rows)
    if not config.by_frequency or part.counts is None or context.unsorted.intersection(part.fields) or len(places) == 2:
        return [(0, rows, whole)]
    weight = part.table.weight.detach()
    return [
        (first, last, spectrum(weight[first:last], None if counts is None else counts[first:last]))
        for first, last in pairwise(places)
    ]


def _merge_wide(model: nn.Module, config: ReduceDimensions, context: Context) -> None:
    """Tables that were trained wide become plain rows, if any of their fields is selected; they would be packed so."""
    for name, module in model.named_modules():
        if not (isinstance(module, FusedEmbedding) and isinstance(module.table, LowRankTable) and module.table.merges):
            continue
        if any(selected(config, name, field) for field in module.layout.names):
            module.table = module.table.merged()
            context.touch(f"{name}.table: merged to {module.table.dim} dimensions")


def _folds(model: Network, found: dict[Part, Spectrum], context: Context) -> bool:
    """Whether the projections can become part of the layers that read the vectors; why not is noted."""
    if not model.reads_linearly:
        context.skip("projection", "stays with the table: not all that reads the vectors is linear")
        return False
    if not isinstance(model.embedding.table, DenseTable) or len(found) < len(model.embedding.layout.names):
        context.skip("projection", "stays with the table: not every field is dense and selected")
        return False
    parts = [part for layer in _readers(model) for part in (layer.lookups, layer.others) if part is not None]
    if not all(isinstance(part, nn.Linear) for part in parts):
        context.skip("projection", "stays with the table: the layers that read it are quantised already")
        return False
    return True


def _readers(model: Network) -> list[InputLinear]:
    return [module for module in model.modules() if isinstance(module, InputLinear)]


def _common_rank(model: Network, found: dict[Part, Spectrum], config: ReduceDimensions, context: Context) -> int:
    """The one rank of all fields."""
    dim = model.embedding.dim
    if config.rank is not None:
        return min(config.rank, dim)
    if config.energy is not None:
        return rank_that_keeps(torch.stack([own.energy for own in found.values()]).sum(dim=0), config.energy)
    assert config.budget is not None
    return _rank_within(model, found, int(config.budget), context)


def _rank_within(model: Network, found: dict[Part, Spectrum], budget: int, context: Context) -> int:
    """The highest rank with which the whole model takes at most `budget` bytes.

    A rank is tried: it makes the first layers narrower as well, and what these then take is up to the steps to come.
    """

    def taken(rank: int) -> int:
        trial = beside_tables(model)
        _fold(trial, found, rank, trial_of(context))
        return rest_bytes(trial, [], context)

    rank = bisect_right(range(1, model.embedding.dim + 1), budget, key=taken)
    if rank < 1:
        raise InputError(f"a budget of {budget:,} bytes is below the least possible: {taken(1):,}")
    return rank


@torch.no_grad()
def _fold(model: Network, found: dict[Part, Spectrum], rank: int, context: Context) -> None:
    """Rows x become P x, and the layers' weights W P^T for each field's part of them, P [rank, dim]."""
    table, layout = model.embedding.table, model.embedding.layout
    assert isinstance(table, DenseTable)
    dim = table.dim
    if rank >= dim:
        context.skip("embedding.table", f"keeps its {dim} dimensions")
        return
    bases = [own.basis[:rank].to(table.weight.device) for own in found.values()]
    none = torch.zeros(dim, dtype=torch.float64)
    rows = [project(part.table.weight.detach(), none, basis) for part, basis in zip(found, bases, strict=True)]
    split = layout.num_categorical
    for layer in _readers(model):
        if layer.lookups is not None:
            layer.lookups = _narrower(layer.lookups, bases[:split])
        if layer.others is not None:
            layer.others = _narrower(layer.others, bases[split:])
    before = table.nbytes
    model.embedding.table = DenseTable(torch.cat(rows), table.starts, sparse=table.sparse)
    kept = sum(float(own.energy[:rank].sum()) for own in found.values())
    context.note(rank=rank, energy=kept / max(sum(float(own.energy.sum()) for own in found.values()), 1e-300))
    context.touch(f"embedding.table: {before:,} bytes to {model.embedding.table.nbytes:,}, folded into the first layer")


def _narrower(layer: nn.Module, bases: list[Tensor]) -> nn.Linear:
    """`layer` for inputs of which the first fields are cut to rank numbers each, bases [rank, dim]; the rest stays."""
    assert isinstance(layer, nn.Linear)
    weight = layer.weight.detach().double()
    dim = bases[0].shape[1] if bases else 0
    parts = [weight[:, place * dim : (place + 1) * dim] @ basis.T for place, basis in enumerate(bases)]
    narrow = torch.cat([*parts, weight[:, dim * len(bases) :]], dim=1).to(layer.weight.dtype)
    made = nn.Linear(narrow.shape[1], layer.out_features, bias=layer.bias is not None, device=narrow.device)
    made.weight = nn.Parameter(narrow)
    made.bias = layer.bias
    return made


def _ranks(
    model: nn.Module, bands: dict[Part, list[Band]], config: ReduceDimensions, context: Context
) -> dict[Part, list[int]]:
    """The rank of every band of every field, its dimension where it stays as it is."""
    if config.rank is not None:
        return {part: [config.rank] * len(own) for part, own in bands.items()}
    if config.energy is not None:
        energy = config.energy
        return {part: [found.rank_that_keeps(energy) for _, _, found in own] for part, own in bands.items()}
    assert config.budget is not None
    left = left_for(model, list(bands), config.budget, context)
    options = [
        [
            Option(low_rank_bytes(last - first, part.table.dim, rank), found.lost(rank))
            for rank in range(1, part.table.dim + 1)
        ]
        for part, own in bands.items()
        for first, last, found in own
    ]
    chosen = iter(allocate(options, int(config.budget), fixed=int(config.budget) - left))
    return {part: [next(chosen) + 1 for _ in own] for part, own in bands.items()}


def low_rank_bytes(rows: int, dim: int, rank: int) -> int:
    """Bytes of short rows and their projection, or of the rows as they are at full rank."""
    return 4 * rows * dim if rank >= dim else 4 * rank * (rows + dim)
