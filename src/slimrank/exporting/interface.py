"""What goes into a model's graph and what comes out of it, by the answer that the model gives.

A `Ranker`: `ids` [N, K] and, where there are numbers, `numbers` [N, M] to `logit` [N]. An `Encoder`: the same to
`vector` [N, D], and `items` [C] local ids of the catalogue to `item_vector` [C, D], so that a table that both read is
stored once; of a table of codes `item_codes` [C, parts] and the `entries` [parts, 2**bits, width] that they name come
out as well, for an index that adds up sub-scores. An `ItemScorer`: `ids` to `scores` [N, C] of all local ids of the
catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.export import Dim

from slimrank.models.layers import Encoder, ItemScorer, Network, SequenceEncoder
from slimrank.models.text_encoder import TextModel
from slimrank.tables.codebook import PackedCodebook


@dataclass(frozen=True)
class Interface:
    """A module that is traced, an example of each input by name with its axes of any size, and names of outputs."""

    module: nn.Module
    inputs: dict[str, Tensor]
    axes: dict[str, dict[int, Dim]]
    outputs: tuple[str, ...]


def of_rows(module: nn.Module, columns: int, numbers: int = 0) -> Interface:
    """`module` called with ids [N, columns] and numbers [N, numbers], which gives one number a row."""
    rows = Dim("N")
    inputs = {"ids": torch.zeros(2, columns, dtype=torch.int32)}
    if numbers:
        inputs["numbers"] = torch.zeros(2, numbers)
    return Interface(module, inputs, {name: {0: rows} for name in inputs}, ("logit",))


def interface_of(model: Network) -> Interface:
    """The interface of a packed model."""
    layout = model.embedding.layout
    rows = of_rows(model, sum(layout.widths), layout.numbers)
    if isinstance(model, ItemScorer):
        axes = {"ids": {**rows.axes["ids"], 1: Dim("L")}}
        return Interface(model, rows.inputs, axes, ("scores",))
    axes = dict(rows.axes)
    if isinstance(model, TextModel):
        axes["ids"] = {**axes["ids"], 1: Dim("L", min=2)}  # no text has fewer tokens than its two ends
    if not isinstance(model, Encoder):
        return replace(rows, axes=axes)
    if isinstance(model, SequenceEncoder) and len(layout.names) == 1:
        axes["ids"] = {**axes["ids"], 1: Dim("L")}
    if model.catalogue is None:
        return Interface(model, rows.inputs, axes, ("vector",))
    table = model.embedding.table
    codes = isinstance(table, PackedCodebook) and len(layout.names) == 1
    inputs = {**rows.inputs, "items": torch.zeros(2, dtype=torch.int32)}
    outputs = ("vector", "item_vector") + (("item_codes", "entries") if codes else ())
    module = QueriesAndItems(model, table if codes and isinstance(table, PackedCodebook) else None)
    return Interface(module, inputs, {**axes, "items": {0: Dim("C")}}, outputs)


class QueriesAndItems(nn.Module):
    """Both sides of an encoder in one graph."""

    def __init__(self, model: Encoder, codes: PackedCodebook | None):
        super().__init__()
        self.model = model
        self.codes = codes
        self.train(model.training)

    def forward(self, ids: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """`numbers`, where there are any, and `items` follow the ids."""
        *numbers, items = others
        found = (self.model(ids, *numbers), self.model.items(items))
        return found if self.codes is None else (*found, self.codes.codes(items), self.codes.books())
