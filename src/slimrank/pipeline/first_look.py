"""A first look at a teacher, cheap and after training: what AUC it loses when one part of it is touched.

It tells a search which fields a student needs and how many bits a field bears. It measures modules and not artifacts,
and it decides nothing but what is worth trying. Left out: what retraining wins back, and how losses add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from slimrank.compression.fields import field_importance
from slimrank.compression.prune_weights import apply_threshold, threshold
from slimrank.compression.selection import Selection
from slimrank.compression.tables import Part, find_parts
from slimrank.metrics import auc
from slimrank.models.layers import Network
from slimrank.models.size import packed_bytes
from slimrank.pipeline.models import baseline
from slimrank.pipeline.workspace import Run
from slimrank.searching.automatic import BITS, SPARSITIES, Sensitivity
from slimrank.tables.dense import DenseTable
from slimrank.tables.grid import Grid
from slimrank.tables.scaled import scaled
from slimrank.training.examples import Examples, score

ROWS = 1 << 16  # search rows that are looked at
WHOLE_BYTES = 8  # numbers of a vector, at any bits


def first_look(run: Run, seed: int) -> Sensitivity:
    """Fields shuffled, each field's vectors in few bits, each layer's weights pruned; on at most 65,536 search rows."""
    model = baseline(run, seed).eval()
    rows = _head(run.valid, seed)
    context = replace(run.context(seed), valid=rows)
    label = rows.label.cpu().numpy()
    before = auc(label, score(model, rows))

    def loss() -> float:
        return before - auc(label, score(model, rows))

    fields = field_importance([model], rows, seed) if run.layout.names else {}
    tables = {}
    parts = find_parts(model, Selection(), context, per_field=True)
    read = {owner: _rows_read(model, owner, rows) for owner in {part.owner for part in parts}}
    for part in parts:
        name = part.fields[0] if part.fields else part.name
        own = _rows_of(model, part, read[part.owner])
        tables[name] = {bits: _with_rows(model, part, own, bits, loss) for bits in BITS}
    layers = {
        name: {share: _with(module.weight.data, _pruned(module.weight.data, share), loss) for share in SPARSITIES}
        for name, module in _layers(model)
    }
    return Sensitivity(fields=fields, tables=tables, layers=layers, bytes=packed_bytes(model))


def _head(rows: Examples, seed: int) -> Examples:
    """At most `ROWS` of them, drawn."""
    if len(rows) <= ROWS:
        return rows
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:ROWS]
    return rows.take(order.to(rows.label.device))


def _with(values: Tensor, others: Tensor, measured: Callable[[], float]) -> float:
    """What is measured while `others` stand in the place of `values`."""
    kept = values.clone()
    values.copy_(others)
    try:
        return measured()
    finally:
        values.copy_(kept)


def _rows_read(model: Network, owner: str, rows: Examples) -> Tensor:
    """The numbers of the rows of a table that `rows` look up: no other is touched, however many there are."""
    seen: list[Tensor] = []
    hook = model.get_submodule(owner).register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten()))
    try:
        score(model, rows)
    finally:
        hook.remove()
    read: Tensor = torch.unique(torch.cat(seen))
    return read


def _rows_of(model: Network, part: Part, read: Tensor) -> Tensor:
    """Those of the numbers that are a part's."""
    table = model.get_submodule(part.owner)
    assert isinstance(table, DenseTable)
    bounds = table.bounds()[part.places[0] : part.places[1]]
    return read[(read >= bounds[0][0]) & (read < bounds[-1][1])]


def _with_rows(model: Network, part: Part, read: Tensor, bits: int, measured: Callable[[], float]) -> float:
    """What is measured while the rows `read` of a part's table are rounded to so many bits."""
    weight = model.get_submodule(part.owner).get_parameter("weight").data
    kept = weight[read]
    if not len(read):
        return measured()
    weight[read] = _in_bits(kept, bits).to(weight.device)
    try:
        return measured()
    finally:
        weight[read] = kept


def _in_bits(rows: Tensor, bits: int) -> Tensor:
    """Rows rounded to that many bits, with one scale; zeros beside them fill whole bytes, and change no scale."""
    padded = nn.functional.pad(rows.cpu(), (0, -rows.shape[1] % WHOLE_BYTES))
    found = scaled(Grid.parse({"bits": bits, "levels": "midtread" if bits > 1 else None}), padded)
    return found.rows(0, len(rows))[:, : rows.shape[1]].detach()


def _layers(model: Network) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.weight.numel() > module.weight.shape[1]:
            yield name, module


def _pruned(weight: Tensor, sparsity: float) -> Tensor:
    """The weights with the smallest of them at 0."""
    made = weight.clone()
    apply_threshold([made], threshold([made], sparsity))
    return made
