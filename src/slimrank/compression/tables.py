"""Which tables a step works on, and how what it makes of them takes their place.

All fields of a model share one fused table, and a step may treat them apart: a selection names fields, `find_parts`
gives the dense rows behind them, and `replace_parts` puts what was made of them where they stood. In a module of the
user's own each embedding is one field, whose name is where it sits. Dense rows inside a table of another kind (the rows
below a projection, the shared rows of a hashed table) count as well, so kinds compose.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from slimrank.compression.adopting import TABLES, tell_unfit
from slimrank.compression.selection import Selection, check_names, selected
from slimrank.compression.steps import Context, replace_module
from slimrank.config import InputError, runner
from slimrank.models.size import packed_bytes
from slimrank.tables.dense import DenseTable
from slimrank.tables.embedding import FusedEmbedding, Layout
from slimrank.tables.modules import Embedding, EmbeddingBag
from slimrank.tables.stacked import StackedTable, stacked
from slimrank.tables.table import Table, fault_of


@dataclass(frozen=True, eq=False)
class Part:
    """Consecutive fields of a dense table that a step may convert.

    `table` holds their rows alone. `counts` [rows] is how often training met each row, None where that is not known,
    and 0 for padding, which no score reads; the first `reserved` rows of a field are padding and out of vocabulary.
    `fields` is empty where ids share the rows.
    """

    name: str
    fields: tuple[str, ...]
    table: DenseTable
    owner: str
    places: tuple[int, int]
    counts: Tensor | None
    reserved: tuple[int, ...]


Model = TypeVar("Model", bound=nn.Module)
Lookup = FusedEmbedding | Embedding | EmbeddingBag


def lookups(model: nn.Module) -> list[tuple[str, Lookup, Layout]]:
    """Every embedding over a table of ours in `model`: where it sits, itself, and its fields.

    Several over one and the same table count once.
    """
    found: dict[int, tuple[str, Lookup, Layout]] = {}
    for name, module in model.named_modules():
        if isinstance(module, FusedEmbedding):
            found.setdefault(id(module.table), (name, module, module.layout))
        elif isinstance(module, Embedding | EmbeddingBag):
            padded = (name,) if module.padding_idx == 0 else ()
            layout = Layout((name,), (module.num_embeddings,), (1,), sequences=padded)
            found.setdefault(id(module.table), (name, module, layout))
    return list(found.values())


NEVER = 0.5  # how often a row that training never met counts as met


def row_counts(part: Part) -> Tensor | None:
    """How often each row of `part` counts as met, [rows], or None where that is not known."""
    return None if part.counts is None else part.counts.to(part.table.weight.device).clamp(min=NEVER)


@dataclass(frozen=True)
class _Dense:
    """A dense table of the model, where it stands, the fields that it serves, and whether its rows are their ids."""

    owner: str
    table: DenseTable
    names: tuple[str, ...]
    by_id: bool


def find_parts(model: nn.Module, selection: Selection, context: Context, *, per_field: bool = False) -> list[Part]:
    """The selected dense rows of `model`: runs of neighbouring fields, or field by field; what is left out is noted.

    Fields with values that no kind has an answer for (`fault_of`) are left out as well.

    Raises:
        InputError: a name or pattern of the selection matches no field.
    """
    check_fields(model, selection)
    if not tell_unfit(model, TABLES, context) and not lookups(model):
        context.skip("tables", "the model has no embedding that a step could take")
    parts = []
    for name, module, layout in lookups(model):
        for dense in _dense_tables(name, module, layout, context):
            others = tied_to(model, dense.owner)
            if others and not selection.tied:
                context.skip(dense.owner, f"is tied to {', '.join(others)}: `tied = true` converts the table alone")
                continue
            parts += _parts_of(name, dense, layout, selection, context, per_field)
    return parts


def check_fields(model: nn.Module, selection: Selection) -> None:
    """Raises `InputError` where a name or pattern of `selection` matches no field of any table."""
    found = [(name, field) for name, _, layout in lookups(model) for field in layout.names]
    check_names(selection, sorted({field for _, field in found}), sorted({_full_name(*each) for each in found}))


def replace_parts(model: nn.Module, made: Mapping[Part, Table], context: Context) -> Mapping[Part, Table]:
    """Put every table of `made` where its part stands, if it takes fewer bytes; what was done and not is noted.

    Returns:
        What was put in place.
    """
    kept = {part: table for part, table in made.items() if _pays(part, table, context)}
    for owner, parts in groupby(sorted(kept, key=lambda part: (part.owner, part.places)), lambda part: part.owner):
        dense = model.get_submodule(owner)
        assert isinstance(dense, DenseTable)
        replace_module(model, owner, stacked(_pieces(dense, {part: kept[part] for part in parts})))
    for name, module, _ in lookups(model):
        if isinstance(module.table, StackedTable):
            replace_module(model, f"{name}.table", stacked([module.table]))
    return kept


def _pays(part: Part, table: Table, context: Context) -> bool:
    """Whether `table` is smaller than what it would replace; says so either way."""
    before, after = part.table.nbytes, table.nbytes
    if after >= before:
        context.skip(part.name, f"would take {after:,} bytes, and takes {before:,} as it is")
        return False
    context.touch(f"{part.name}: {before:,} bytes to {after:,}", before)
    return True


def left_for(model: nn.Module, parts: Sequence[Part], budget: int, context: Context) -> int:
    """Bytes that `budget`, of the whole model, leaves for the tables of `parts`.

    Raises:
        InputError: there are no parts, so that nothing will get smaller, and the budget is exceeded.
    """
    rest = rest_bytes(model, parts, context)
    if not parts and rest > budget:
        raise InputError(f"a budget of {int(budget):,} bytes is below the least possible: {rest:,}")
    return int(budget) - rest


def rest_bytes(model: nn.Module, parts: Sequence[Part], context: Context) -> int:
    """Packed bytes of all of the model but the tables of `parts`.

    All else counts as what the steps still to come make of it: dense layers are quantised after the tables, so that
    they can read the tables' codes.
    """
    rest = beside_tables(model)
    trial = trial_of(context)
    for step in context.later:
        if not isinstance(step, Selection):
            rest = runner("step", step)(rest, step, trial)
    dense = packed_bytes(rest) - sum(table.nbytes for table in _tables(rest))
    return dense + sum(table.nbytes for table in _tables(model)) - sum(part.table.nbytes for part in parts)


def beside_tables(model: Model) -> Model:
    """A copy of `model` that shares its rows, which may be large: tables that hold no other table."""
    inner = [table for table in model.modules() if isinstance(table, Table) and not _holds_tables(table)]
    return copy.deepcopy(model, {id(table): table for table in inner})


def _holds_tables(table: Table) -> bool:
    return any(isinstance(module, Table) for module in table.modules() if module is not table)


def trial_of(context: Context) -> Context:
    """The same context with a record of its own, for steps that are only tried."""
    return replace(context, touched=[], skipped=[], facts={}, later=())


def _tables(model: nn.Module) -> list[Table]:
    return [module.table for _, module, _ in lookups(model)]


def field_rows(table: DenseTable, first: int, last: int) -> DenseTable:
    """A dense table of the rows of fields `first` to `last` - 1: itself where that is all, else a copy."""
    if (first, last) == (0, len(table.starts)):
        return table
    bounds = table.bounds()[first:last]
    start, stop = bounds[0][0], bounds[-1][1]
    return DenseTable(table.weight.detach()[start:stop].clone(), table.starts[first:last] - start, sparse=table.sparse)


def _pieces(dense: DenseTable, made: Mapping[Part, Table]) -> list[Table]:
    """What stands for `dense`, from its first field to its last: what was made, and the fields between."""
    pieces: list[Table] = []
    done = 0
    for part, table in made.items():
        first, last = part.places
        if done < first:
            pieces.append(field_rows(dense, done, first))
        pieces.append(table)
        done = last
    if done < len(dense.starts):
        pieces.append(field_rows(dense, done, len(dense.starts)))
    return pieces


def _dense_tables(name: str, module: Lookup, layout: Layout, context: Context) -> Iterator[_Dense]:
    """The dense tables of an embedding, wherever they are; a table without any is noted."""

    def within(owner: str, table: Table, names: tuple[str, ...], by_id: bool) -> Iterator[_Dense]:
        aligned = len(names) == len(table.starts)
        if isinstance(table, DenseTable):
            yield _Dense(owner, table, names, by_id and aligned)
        elif isinstance(table, StackedTable):
            first = 0
            for place, part in enumerate(table.tables):
                own = names[first : first + len(part.starts)] if aligned else names
                yield from within(f"{owner}.parts.{place}", part, own, by_id)
                first += len(part.starts)
        elif table.inner is not None:
            yield from within(f"{owner}.inner", table.inner, names, by_id and table.inner.num_rows == table.num_rows)
        else:
            context.skip(owner, f"is no dense table: {type(table).__name__}")

    yield from within(f"{name}.table", module.table, layout.names, by_id=True)


def _parts_of(
    embedding: str, dense: _Dense, layout: Layout, selection: Selection, context: Context, per_field: bool
) -> list[Part]:
    """The parts of one dense table."""
    others = [field for field in dense.names if not selected(selection, embedding, field)]
    places = list(range(len(dense.table.starts)))
    if len(dense.names) == len(places):
        for field in others:
            context.skip(_full_name(embedding, field), "is not selected")
        places = [place for place in places if dense.names[place] not in others]
    elif others:
        context.skip(dense.owner, f"its rows serve {', '.join(others)} as well, which the step leaves alone")
        return []
    fit = [(place, place + 1) for place in places if _takes(embedding, dense, place, context)]
    return [_part(embedding, dense, layout, run, context) for run in (fit if per_field else _runs(fit))]


def _full_name(embedding: str, field: str) -> str:
    """A field as it is told: with its embedding, whose only field has the embedding's own name in a user's module."""
    return field if field == embedding else f"{embedding}.{field}"


def _takes(embedding: str, dense: _Dense, place: int, context: Context) -> bool:
    """Whether a field of a dense table can be converted; else this is noted, with the field's name."""
    first, last = dense.table.bounds()[place]
    fault = fault_of(dense.table.weight[first:last])
    if fault:
        known = len(dense.names) == len(dense.table.starts)
        context.skip(_full_name(embedding, dense.names[place]) if known else dense.owner, fault)
    return not fault


def _runs(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbouring ranges joined: [(0, 1), (1, 2), (4, 5)] to [(0, 2), (4, 5)]."""
    if not places:
        return []
    breaks = [0, *(n for n, (one, other) in enumerate(pairwise(places), 1) if one[1] != other[0]), len(places)]
    return [(places[start][0], places[stop - 1][1]) for start, stop in pairwise(breaks)]


def _part(embedding: str, dense: _Dense, layout: Layout, run: tuple[int, int], context: Context) -> Part:
    first, last = run
    names = dense.names[first:last]
    whole = run == (0, len(dense.table.starts))
    name = _full_name(embedding, names[0]) if len(names) == 1 else f"{dense.owner}[{', '.join(names)}]"
    fields = names if dense.by_id else ()
    return Part(
        name=dense.owner if whole else name,
        fields=fields,
        table=field_rows(dense.table, first, last),
        owner=dense.owner,
        places=run,
        counts=_counts(fields, layout, context),
        reserved=tuple(1 + (field in layout.sequences) for field in fields) or (0,),
    )


def _counts(fields: Sequence[str], layout: Layout, context: Context) -> Tensor | None:
    """How often training met each row of `fields`, padding never, or None where one of them was not counted."""
    if not fields or any(field not in context.counts for field in fields):
        return None
    size, found = dict(zip(layout.names, layout.sizes, strict=True)), []
    for field in fields:
        own = torch.tensor(context.counts[field][: size[field]], dtype=torch.float32)
        own[: int(field in layout.sequences)] = 0.0
        found.append(own)
    return torch.cat(found)


def tied_to(model: nn.Module, owner: str) -> list[str]:
    """Names of the other parameters that are the rows of the dense table `owner`."""
    table = model.get_submodule(owner)
    assert isinstance(table, DenseTable)
    return [
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter is table.weight and model.get_submodule(name.rpartition(".")[0]) is not table
    ]
