"""Step: dense layers are stored in bfloat16. The file shrinks, the speed stays, and almost no quality is lost."""

from __future__ import annotations

from typing import Literal

from torch import nn

from slimrank.compression.adopting import linears
from slimrank.compression.quantize_dense import is_folded
from slimrank.compression.steps import Context, replace_module, skip_others
from slimrank.config import Config, register
from slimrank.models.layers import MLP
from slimrank.models.rounded import RoundedLinear
from slimrank.models.size import packed_bytes


class RoundDense(Config):
    """Store the weights of dense layers in bfloat16, half the bytes of float32."""

    name: Literal["round-dense"] = "round-dense"


@register("step", RoundDense)
def round_dense(model: nn.Module, config: RoundDense, context: Context) -> nn.Module:
    """The model with every linear layer in its rounded, trainable form."""
    for module in model.modules():
        if isinstance(module, MLP):
            module.fold_norms()
    layers = linears(model, context)
    if not layers:
        context.skip("layers", "the model has no dense layer of floats")
    for name in layers:
        if is_folded(model, name):
            context.skip(name, "is folded into the tables: their rows are added, and nothing is multiplied")
            continue
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        replace_module(model, name, RoundedLinear(layer.weight, layer.bias))
        context.touch(name, packed_bytes(layer))
    skip_others(model, layers, context)
    return model
