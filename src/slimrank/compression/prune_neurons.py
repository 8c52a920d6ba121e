"""Step: structured pruning. Whole hidden neurons go, so that the layers get narrower and every runtime gets faster.

A neuron's importance is the product of the norms of its incoming and outgoing weights: what it can at most pass on
(the criterion of Molchanov et al. 2019, arXiv 1906.10771, compares several; norms need no data).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from slimrank.compression.steps import Context
from slimrank.config import Config, register
from slimrank.models.layers import MLP, Network, matrices


class PruneNeurons(Config):
    """Keep the fraction `keep` of the neurons of every hidden layer, the most important ones."""

    name: Literal["prune-neurons"] = "prune-neurons"
    keep: float = Field(default=0.5, gt=0, le=1)


@register("step", PruneNeurons)
def prune_neurons(model: Network, config: PruneNeurons, context: Context) -> Network:
    """The model with narrower hidden layers."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, MLP)}
    if not found:
        context.skip("neurons", "the model has no hidden layer")
    for name, mlp in found.items():
        for index, layer in enumerate(mlp.linears):
            where = f"{name}.linears.{index}"
            reader = reader_of(model, mlp, index)
            if reader is None:
                context.skip(where, "its neurons are not read by just one dense layer")
                continue
            if not matrices(layer) or not isinstance(reader, nn.Linear):
                context.skip(where, "is quantised already: prune neurons before quantising")
                continue
            kept = most_important(layer, reader, config.keep)
            if len(kept) == width_of(layer):
                context.skip(where, f"all of its {len(kept)} neurons are kept")
                continue
            context.touch(f"{where}: {width_of(layer)} neurons to {len(kept)}")
            keep_outputs(layer, kept)
            keep_norm(mlp.norms[index], kept)
            reader.weight = nn.Parameter(reader.weight.detach()[:, kept].clone())
            reader.in_features = len(kept)
    return model


def reader_of(model: Network, mlp: MLP, index: int) -> nn.Module | None:
    """The one layer that reads layer `index`: the next one, or `model.out` after the last of `model.mlp`; else None."""
    if index + 1 < len(mlp.linears):
        return mlp.linears[index + 1]
    return getattr(model, "out", None) if mlp is getattr(model, "mlp", None) else None


def width_of(layer: nn.Module) -> int:
    """Neurons of a layer."""
    return int(layer.out_features)  # type: ignore[arg-type]


def most_important(layer: nn.Module, reader: nn.Linear, keep: float) -> Tensor:
    """Indices, in order, of the neurons that stay: at least one, the fraction `keep` rounded up."""
    incoming = sum(part.weight.detach().square().sum(dim=1) for part in matrices(layer))
    importance = torch.sqrt(torch.as_tensor(incoming)) * reader.weight.detach().norm(dim=0)
    count = max(1, math.ceil(keep * len(importance)))
    kept: Tensor = importance.topk(count).indices.sort().values
    return kept


def keep_outputs(layer: nn.Module, kept: Tensor) -> None:
    """Cut a layer down to the neurons `kept`, in place."""
    for part in matrices(layer):
        part.weight = nn.Parameter(part.weight.detach()[kept].clone())
        if part.bias is not None:
            part.bias = nn.Parameter(part.bias.detach()[kept].clone())
        part.out_features = len(kept)
    layer.out_features = len(kept)  # type: ignore[assignment]


def keep_norm(norm: nn.Module, kept: Tensor) -> None:
    """Cut a batch normalisation down to the neurons `kept`, in place; nothing to do for any other module."""
    if isinstance(norm, nn.BatchNorm1d):
        norm.weight = nn.Parameter(norm.weight.detach()[kept].clone())
        norm.bias = nn.Parameter(norm.bias.detach()[kept].clone())
        norm.running_mean = norm.running_mean[kept].clone()  # type: ignore[index]
        norm.running_var = norm.running_var[kept].clone()  # type: ignore[index]
        norm.num_features = len(kept)
