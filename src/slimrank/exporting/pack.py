"""From the trainable form of a model to the packed form: integers, codes and folded layers, as they are exported."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from slimrank.models.folded import fold_lookups
from slimrank.models.layers import MLP
from slimrank.models.quantized import QuantizedLinear
from slimrank.models.recurrent import Recurrence
from slimrank.models.rounded import RoundedLinear
from slimrank.tables.embedding import FusedEmbedding
from slimrank.tables.modules import Embedding, EmbeddingBag

Model = TypeVar("Model", bound=nn.Module)


def pack(model: Model, *, in_place: bool = False) -> Model:
    """A packed copy of `model` (with `in_place` the model itself), on the CPU and in evaluation mode.

    It computes the same scores to within rounding.
    """
    packed = (model if in_place else copy.deepcopy(model)).cpu().eval()
    for module in packed.modules():
        if isinstance(module, MLP):
            module.fold_norms()
    _pack_children(packed)
    fold_lookups(packed)
    return packed.requires_grad_(False)


def _pack_children(module: nn.Module) -> None:
    """Layers before tables, since a layer that reads a table asks its trainable form for the scales.

    What is shared stays so.
    """
    packed: dict[int, nn.Module] = {}
    for kind in (QuantizedLinear, RoundedLinear, Recurrence, FusedEmbedding, Embedding, EmbeddingBag):
        for owner in list(module.modules()):
            for name, child in list(owner.named_children()):
                if isinstance(child, kind):
                    if id(child) not in packed:
                        packed[id(child)] = child.pack()
                    setattr(owner, name, packed[id(child)])
