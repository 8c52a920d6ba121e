"""Step: the first layer is done ahead of time on the rows of the tables, so that a request only adds rows.

The scores stay as they are to within rounding, and so do file and training: table and layer are stored and trained
apart, and multiplied when the artifact is loaded (`models/folded.py`). That takes memory, 4 bytes a row and output, and
is cheaper where a row of outputs is not much longer than a row of the table. Measured in ONNX Runtime at 256 rows, 4 to
26 fields: 1.1 to 1.6 times as fast from dimension 16 on, 2 to 3.8 times at dimension 64. Left out: layers of integers.
Their sums would have to be gathered as 32-bit numbers, which takes longer than the product of bytes.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import ByteSize, Field
from torch import Tensor, nn

from slimrank.compression.steps import Context
from slimrank.config import Config, register
from slimrank.models.folded import folded_bytes
from slimrank.models.layers import InputLinear, Ranker
from slimrank.tables.joined import EXACT

LONGEST = 4  # times the dimension of a table: outputs up to which sums were never slower


class FoldFirstLayer(Config):
    """Fold the first layer into the tables, in at most `budget` bytes of memory."""

    name: Literal["fold-first-layer"] = "fold-first-layer"
    budget: ByteSize = Field(default=ByteSize(64 << 20), ge=0)


@register("step", FoldFirstLayer)
def fold_first_layer(model: Ranker, config: FoldFirstLayer, context: Context) -> Ranker:
    """The same model, its first layer marked to be folded where that is cheaper."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, InputLinear)}
    if not layers:
        context.skip("layers", "none reads the row alone: there is no first layer to fold")
    for name, layer in layers.items():
        why = _unfit(model, name, layer, config, context)
        if why:
            context.skip(f"{name}.lookups", why)
            continue
        layer.folded = True
        taken = folded_bytes(model.embedding, layer.out_features)
        context.touch(f"{name}.lookups: {taken:,} bytes of memory and none of the file")
    return model


def _unfit(model: Ranker, name: str, layer: InputLinear, config: FoldFirstLayer, context: Context) -> str:
    """Why `layer` stays as it is, or nothing."""
    if layer.lookups is None:
        return "there is none: the row has no field of one id"
    if not isinstance(layer.lookups, nn.Linear):
        return "works on integers: sums of 32-bit rows take longer than its product of bytes"
    outputs, dim = layer.out_features, model.embedding.dim
    if outputs > LONGEST * dim:
        return f"has {outputs} outputs, rows have {dim} numbers: sums are slower from {LONGEST} times as many on"
    taken = folded_bytes(model.embedding, outputs)
    if taken > config.budget:
        return f"would take {taken:,} bytes of memory, and the budget is {int(config.budget):,}"
    if model.embedding.joined and taken // (4 * outputs) >= EXACT:
        return f"would have {taken // (4 * outputs):,} rows: joined row numbers are exact below {EXACT:,}"
    if read_by_others(model, layer, context):
        return "is not all that reads the vectors of a row: they would be looked up beside its sums"
    return ""


@torch.no_grad()
def read_by_others(model: Ranker, layer: InputLinear, context: Context) -> bool:
    """Whether anything but `layer` reads what is looked up: whether scores change to NaN with it, `layer` aside."""
    # One row of zeros will do, whatever rows there are: all that was looked up of it becomes NaN.
    ids, numbers = (each.new_zeros(1, each.shape[1]) for each in (context.valid.ids, context.valid.numbers))
    training, lookups = model.training, layer.lookups
    model.eval()
    try:
        layer.lookups = Zeros(layer.out_features)
        row = model.row(ids, numbers)
        scores = model.score(ids, row._replace(lookups=torch.full_like(row.lookups, torch.nan)))
    finally:
        layer.lookups = lookups
        model.train(training)
    return bool(scores.isnan().any())


class Zeros(nn.Module):
    """A layer [N, in] to zeros [N, out], whatever it is given."""

    def __init__(self, out_features: int):
        super().__init__()
        self.out_features = out_features

    def forward(self, values: Tensor) -> Tensor:
        return values.new_zeros(len(values), self.out_features)
