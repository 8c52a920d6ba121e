"""Step: whole transformer layers go, and with them their share of bytes and time.

What is left starts as a copy of the teacher and is distilled (Sanh et al. 2019, arXiv 1910.01108; Sajjad et al. 2023,
arXiv 2004.03844, compare which layers to drop).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from slimrank.compression.steps import Context
from slimrank.config import Config, InputError, check_one_given, register
from slimrank.models.layers import Network
from slimrank.models.text_encoder import TextModel, outputs_of


class DropLayers(Config):
    """Keep some transformer layers: those named in `keep`, one of `every`, or the best `layers` of them.

    With `layers`, the layer whose loss changes the model's outputs least on `rows` train rows goes, again and again.
    """

    name: Literal["drop-layers"] = "drop-layers"
    keep: tuple[NonNegativeInt, ...] | None = None
    every: PositiveInt | None = None
    layers: PositiveInt | None = None
    rows: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _one_way(self) -> DropLayers:
        check_one_given(self, "keep", "every", "layers")
        if self.keep is not None and (not self.keep or list(self.keep) != sorted(set(self.keep))):
            raise InputError(f"keep is {list(self.keep)}, must be rising numbers of layers")
        return self


@register("step", DropLayers)
def drop_layers(model: Network, config: DropLayers, context: Context) -> Network:
    """The model with fewer transformer layers."""
    if not isinstance(model, TextModel):
        context.skip("layers", "the model has no transformer layers")
        return model
    count = len(model.blocks)
    if config.keep is not None:
        kept = list(config.keep)
        if kept[-1] >= count:
            raise InputError(f"drop-layers: keep names layer {kept[-1]}. Allowed: 0..{count - 1}.")
    elif config.every is not None:
        kept = list(range(0, count, config.every))
    else:
        kept = least_harmful(model, min(config.layers or count, count), context.train.ids[: config.rows])
    if len(kept) == count:
        context.skip("layers", f"all {count} are kept")
        return model
    model.blocks = nn.ModuleList(model.blocks[place] for place in kept)
    context.touch(f"layers: {count} to {len(kept)}, kept {', '.join(map(str, kept))}")
    return model


def least_harmful(model: TextModel, count: int, ids: Tensor) -> list[int]:
    """The layers that stay when, one at a time, the one goes without which the outputs for `ids` change least."""
    blocks, wanted = model.blocks, outputs_of(model, ids)
    kept = list(range(len(blocks)))

    def harm(places: Sequence[int]) -> float:
        model.blocks = nn.ModuleList(blocks[place] for place in places)
        return float((outputs_of(model, ids) - wanted).square().mean())

    while len(kept) > count:
        without = [[other for other in kept if other != place] for place in kept]
        kept = without[int(torch.tensor([harm(places) for places in without]).argmin())]
    model.blocks = blocks
    return kept
