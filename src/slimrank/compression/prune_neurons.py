"""Step: structured pruning. Whole hidden neurons go, so that the layers get narrower and every runtime gets faster.

A neuron's importance is the product of the norms of its incoming and outgoing weights: what it can at most pass on
(the criterion of Molchanov et al. 2019, arXiv 1906.10771, compares several; norms need no data). In a module of the
user's own, all weights count of all layers that write or read it, and `dependencies.py` says which those are.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from slimrank.compression.adopting import linears
from slimrank.compression.dependencies import Followed, convolutions_of_torch, cut
from slimrank.compression.modules import ModuleContext
from slimrank.compression.steps import Context, Model
from slimrank.compression.tracing import load_torch_pruning
from slimrank.config import Config, InputError, register
from slimrank.models.attention import SplitAttention
from slimrank.models.convolution import WindowedConv1d
from slimrank.models.layers import MLP, Network, matrices
from slimrank.models.quantized import QuantizedLinear
from slimrank.models.rounded import RoundedLinear

QUANTISED = "is quantised already: prune neurons before quantising"


class PruneNeurons(Config):
    """Keep the fraction `keep` of the neurons of every hidden layer, the most important ones.

    In a module of your own channels of convolutions are neurons too, and layers whose outputs are added lose the same
    ones; that needs `slimrank[prune]`.
    """

    name: Literal["prune-neurons"] = "prune-neurons"
    keep: float = Field(default=0.5, gt=0, le=1)


@register("step", PruneNeurons)
def prune_neurons(model: Model, config: PruneNeurons, context: Context) -> Model:
    """The model with narrower hidden layers."""
    if isinstance(model, Network):
        _prune_mlps(model, config.keep, context)
    elif isinstance(context, ModuleContext):
        _prune_followed(model, config.keep, context)
    else:
        context.skip("neurons", "the model is no network of slimrank, and there are no batches to follow it by")
    return model


def _prune_mlps(model: Network, keep: float, context: Context) -> None:
    """Prune the MLPs of a network of slimrank: their layers follow each other."""
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
                context.skip(where, QUANTISED)
                continue
            kept = most_important(importance_of(layer, reader), keep)
            if len(kept) == width_of(layer):
                context.skip(where, f"all of its {len(kept)} neurons are kept")
                continue
            context.touch(f"{where}: {width_of(layer)} neurons to {len(kept)}")
            keep_outputs(layer, kept)
            keep_norm(mlp.norms[index], kept)
            reader.weight = nn.Parameter(reader.weight.detach()[:, kept].clone())
            reader.in_features = len(kept)


def _prune_followed(model: nn.Module, keep: float, context: ModuleContext) -> None:
    """Prune the layers of any module, one after the other, with those whose neurons go with theirs."""
    names = _candidates(model, context)
    if names:
        load_torch_pruning()
    followed: Followed | None = None
    done: set[nn.Module] = set()
    with convolutions_of_torch(model):
        for name in names:
            layer = model.get_submodule(name)
            if layer in done:
                continue
            try:
                followed = followed or Followed(model, context)
                importance = followed.neurons(layer).importance()
                kept = most_important(importance, keep)
                if len(kept) == len(importance):
                    context.skip(name, f"all of its {len(kept)} neurons are kept")
                    continue
                cut_off = cut(followed, layer, sorted({*range(len(importance))} - {*kept.tolist()}))
            except InputError as error:
                context.skip(name, str(error))
                continue
            followed = None  # what it says is of the module as it was
            for part in cut_off:
                done.add(part.layer)
                left = len(part.layer.get_parameter("weight"))
                context.touch(f"{part.name}: {left + len(part.own)} neurons to {left}")


def _candidates(model: nn.Module, context: ModuleContext) -> list[str]:
    """Names of the layers whose neurons may go; the others are noted."""
    names = []
    for name in linears(model, context):
        owner = name.rpartition(".")[0]
        if isinstance(model.get_submodule(owner), SplitAttention):
            context.skip(name, "is a part of an attention, whose heads stay")
        else:
            names.append(owner if isinstance(model.get_submodule(owner), WindowedConv1d) else name)
    quantised = [name for name, module in model.named_modules() if isinstance(module, QuantizedLinear | RoundedLinear)]
    for name in quantised:
        context.skip(name, QUANTISED)
    if not names and not quantised:
        context.skip("neurons", "the module has no layer whose neurons could go")
    return names


def reader_of(model: Network, mlp: MLP, index: int) -> nn.Module | None:
    """The one layer that reads layer `index`: the next one, or `model.out` after the last of `model.mlp`; else None."""
    if index + 1 < len(mlp.linears):
        return mlp.linears[index + 1]
    return getattr(model, "out", None) if mlp is getattr(model, "mlp", None) else None


def width_of(layer: nn.Module) -> int:
    """Neurons of a layer."""
    return int(layer.out_features)  # type: ignore[arg-type]


def importance_of(layer: nn.Module, reader: nn.Linear) -> Tensor:
    """Norm of a neuron's incoming weights times that of its outgoing ones, [neurons]."""
    incoming = sum(part.weight.detach().square().sum(dim=1) for part in matrices(layer))
    importance: Tensor = torch.sqrt(torch.as_tensor(incoming)) * reader.weight.detach().norm(dim=0)
    return importance


def most_important(importance: Tensor, keep: float) -> Tensor:
    """Indices, in order, of the neurons that stay: at least one, the fraction `keep` rounded up."""
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
