"""Step: dense layers become 8-bit integers, their input ranges calibrated on train rows and learned in retraining.

Unsigned activations with one scale a layer, signed weights with one scale an output. A layer that reads a quantised
table takes the table's codes as they are. `models/quantized.py` has the arithmetic. Of recurrent layers the weights
alone become bytes (`models/recurrent.py`): they get smaller, not faster.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from slimrank.compression.adopting import linears
from slimrank.compression.calibration import calibration_inputs
from slimrank.compression.steps import Context, replace_module, skip_others
from slimrank.config import Config, register
from slimrank.models.layers import MLP, InputLinear, Network
from slimrank.models.quantized import ActivationQuantizer, InputQuantizer, QuantizedLinear, TableQuantizer
from slimrank.models.recurrent import QuantizedRecurrence, Recurrence
from slimrank.models.size import packed_bytes
from slimrank.tables.codes import WEIGHT_CODES, Codes
from slimrank.training.examples import SCORED_AT_ONCE

CODES = {8: WEIGHT_CODES, 4: Codes(-7, 7, 0)}


class QuantizeDense(Config):
    """Quantise dense layers to int8, calibrated on `rows` train rows.

    With `bits` 4 their weights have 15 values each and are stored two a byte. They are multiplied as bytes all the
    same: the file gets smaller, and retraining has to win back what they lose.
    """

    name: Literal["quantize-dense"] = "quantize-dense"
    rows: int = Field(default=4096, ge=1, le=SCORED_AT_ONCE)
    bits: Literal[4, 8] = 8
    LATER: ClassVar = frozenset({"bits"})


@register("step", QuantizeDense)
def quantize_dense(model: nn.Module, config: QuantizeDense, context: Context) -> nn.Module:
    """The model with every linear layer in its quantised, trainable form."""
    for module in model.modules():
        if isinstance(module, MLP):
            module.fold_norms()
    inputs = calibration_inputs(model, config.rows, context)
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        context.skip("layers", "the model has no dense layer of floats")
    layers = linears(model, context)
    for name in layers:
        if is_folded(model, name):
            context.skip(name, "is folded into the tables: their rows are added, and nothing is multiplied")
            continue
        if name not in inputs:
            context.skip(name, "was not run on the calibration rows")
            continue
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        quantizer = input_quantizer(model, name, inputs[name])
        replace_module(model, name, QuantizedLinear(layer.weight, layer.bias, quantizer, CODES[config.bits]))
        context.touch(name, packed_bytes(layer))
    recurrent = [name for name, module in model.named_modules() if isinstance(module, Recurrence)]
    for name in recurrent:
        layer = model.get_submodule(name)
        assert isinstance(layer, Recurrence)
        replace_module(model, name, QuantizedRecurrence(layer))
        context.touch(f"{name}: stored as bytes, multiplied as floats")
    skip_others(model, [*layers, *recurrent], context)
    return model


def input_quantizer(model: nn.Module, name: str, inputs: Tensor) -> InputQuantizer:
    """What turns the inputs of the layer `name` into bytes: the table's own codes, or a range found on `inputs`."""
    owner, _, part = name.rpartition(".")
    of_row = owner in inputs_of_rows(model)
    if of_row and part == "lookups" and isinstance(model, Network):
        table, fields = model.embedding.table, model.embedding.fields[: model.embedding.layout.num_categorical]
        if table.steps(fields) is not None:
            return TableQuantizer(table, fields)
    return ActivationQuantizer.calibrated(inputs, per_column=of_row)


def is_folded(model: nn.Module, name: str) -> bool:
    """Whether the layer `name` multiplies rows that will be stored multiplied."""
    owner, _, part = name.rpartition(".")
    return part == "lookups" and bool(getattr(model.get_submodule(owner), "folded", False))


def inputs_of_rows(model: nn.Module) -> list[str]:
    """Names of the layers that read a row of the model's embedding."""
    return [name for name, module in model.named_modules() if isinstance(module, InputLinear)]
