"""What layers are given for a sample of train rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from slimrank.compression.steps import Context

MOST = 1 << 15  # vectors that are kept of a layer's inputs from one call: a text or a history has one at each place


def calibration_inputs(model: nn.Module, rows: int, context: Context) -> dict[str, Tensor]:
    """What every linear layer is given for a sample of train rows: by name, as [n, in_features]."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    return inputs_of(layers, model, rows, context)


def inputs_of(layers: Mapping[str, nn.Linear], model: nn.Module, rows: int, context: Context) -> dict[str, Tensor]:
    """What these layers of `model` are given, by their names; those that are not run have none."""
    seen: dict[str, list[Tensor]] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, given, name=name: seen.setdefault(name, []).append(_some(given[0], layer.in_features))
        )
        for name, layer in layers.items()
    ]
    try:
        context.ask(model, rows)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts).clone() for name, parts in seen.items()}


def _some(inputs: Tensor, width: int) -> Tensor:
    """An even sample of the vectors in `inputs` [..., width], of one call, as [n, width]."""
    vectors = inputs.detach().reshape(-1, width)
    return vectors[:: max(1, -(-len(vectors) // MOST))].clone()
