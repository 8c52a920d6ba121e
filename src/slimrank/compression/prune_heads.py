"""Step: attention heads and feed-forward neurons of transformer layers go, so that every runtime gets faster.

The importance of either is the mean square of what it adds to its layer's output on train rows, and what those that go
add on average stays, as part of the bias (Michel et al. 2019, arXiv 1905.10650; Molchanov et al. 2019, arXiv
1906.10771).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from slimrank.compression.steps import Context
from slimrank.config import Config, register
from slimrank.models.layers import Network
from slimrank.models.text_encoder import Block, TextModel, outputs_of


class PruneHeads(Config):
    """Keep the fractions `heads` and `neurons` of every transformer layer, the most important on `rows` train rows."""

    name: Literal["prune-heads"] = "prune-heads"
    heads: float = Field(default=1.0, gt=0, le=1)
    neurons: float = Field(default=1.0, gt=0, le=1)
    rows: int = Field(default=128, ge=1)


@register("step", PruneHeads)
def prune_heads(model: Network, config: PruneHeads, context: Context) -> Network:
    """The model with narrower transformer layers."""
    found = {name: each for name, each in model.named_modules() if isinstance(each, Block)}
    if not found or not isinstance(model, TextModel):
        context.skip("heads", "the model has no transformer layers")
        return model
    inputs = _inputs(model, context.train.ids[: config.rows])
    for name, block in found.items():
        if not all(isinstance(each, nn.Linear) for each in (block.mix, block.output, block.up, block.down)):
            context.skip(name, "is quantised already: prune heads before quantising")
            continue
        before = block.heads, block.up.out_features
        heads, neurons = (
            max(1, round(share * n)) for share, n in zip((config.heads, config.neurons), before, strict=True)
        )
        if (heads, neurons) == before:
            context.skip(name, f"all of its {heads} heads and {neurons} neurons are kept")
            continue
        keep_heads(block, inputs[f"{name}.output"], heads)
        keep_neurons(block, inputs[f"{name}.down"], neurons)
        context.touch(f"{name}: {before[0]} heads to {heads}, {before[1]} neurons to {neurons}")
    return model


def keep_heads(block: Block, taken: Tensor, count: int) -> None:
    """Cut a block down to its `count` most important heads, in place; `taken` [T, heads * width] is what they gave."""
    width = block.head_width
    added = [taken[:, s : s + width] @ block.output.weight[:, s : s + width].T for s in range(0, taken.shape[1], width)]
    importance = torch.stack([each.square().mean() for each in added])
    kept = importance.topk(count).indices.sort().values
    columns = (kept.unsqueeze(1) * width + torch.arange(width)).flatten()
    _keep_inputs(block.output, columns, taken.mean(dim=0))
    rows = torch.cat([columns + part * block.heads * width for part in range(3)])
    _keep_outputs(block.mix, rows)
    block.heads = count


def keep_neurons(block: Block, given: Tensor, count: int) -> None:
    """Cut a block down to its `count` most important neurons, in place; `given` [T, neurons] is what they gave."""
    importance = given.square().mean(dim=0) * block.down.weight.square().sum(dim=0)
    kept = importance.topk(count).indices.sort().values
    _keep_inputs(block.down, kept, given.mean(dim=0))
    _keep_outputs(block.up, kept)


def _keep_outputs(layer: nn.Linear, kept: Tensor) -> None:
    layer.weight, layer.out_features = nn.Parameter(layer.weight.detach()[kept].clone()), len(kept)
    layer.bias = nn.Parameter(layer.bias.detach()[kept].clone())


def _keep_inputs(layer: nn.Linear, kept: Tensor, means: Tensor) -> None:
    """Cut the inputs of a layer; the mean of what goes becomes a part of the bias."""
    gone = torch.ones(layer.in_features, dtype=torch.bool)
    gone[kept] = False
    layer.bias = nn.Parameter(layer.bias.detach() + layer.weight.detach()[:, gone] @ means[gone])
    layer.weight, layer.in_features = nn.Parameter(layer.weight.detach()[:, kept].clone()), len(kept)


def _inputs(model: TextModel, ids: Tensor) -> dict[str, Tensor]:
    """What the last linear layers of attention and feed-forward part are given for `ids`, by name: [T, width]."""
    seen: dict[str, list[Tensor]] = {}

    def note(name: str, given: Tensor) -> None:
        seen.setdefault(name, []).append(given.detach())

    hooks = [
        part.register_forward_pre_hook(lambda _, given, name=f"{name}.{kind}": note(name, given[0]))
        for name, block in model.named_modules()
        if isinstance(block, Block)
        for kind, part in (("output", block.output), ("down", block.down))
    ]
    outputs_of(model, ids)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts).clone() for name, parts in seen.items()}
