"""Step: structured pruning. Whole hidden neurons go, so that the layers get narrower and every runtime gets faster.

A neuron's importance is the product of the norms of its incoming and outgoing weights: what it can at most pass on
(the criterion of Molchanov et al. 2019, arXiv 1906.10771, compares several; norms need no data). With `compensate` it
is what the layers that read it would miss, and these make up for it (`surgeon.py`): much less is lost before training.
In a module of the user's own, all weights count of all layers that write or read it, and `dependencies.py` says which
those are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from slimrank.compression.adopting import linears
from slimrank.compression.calibration import moments_of
from slimrank.compression.dependencies import Followed, Neurons, convolutions_of_torch, cut
from slimrank.compression.modules import ModuleContext
from slimrank.compression.steps import Context, Model
from slimrank.compression.surgeon import Reader, least_missed
from slimrank.compression.tracing import load_torch_pruning
from slimrank.config import Config, InputError, register
from slimrank.models.attention import SplitAttention
from slimrank.models.convolution import WindowedConv1d
from slimrank.models.layers import MLP, Network, matrices
from slimrank.models.quantized import QuantizedLinear
from slimrank.models.rounded import RoundedLinear
from slimrank.training.examples import SCORED_AT_ONCE

ALREADY = "is quantised already: prune neurons before quantising"


class PruneNeurons(Config):
    """Keep the fraction `keep` of the neurons of every hidden layer, the most important ones.

    In a module of your own channels of convolutions are neurons too, and layers whose outputs are added lose the same
    ones; that needs `slimrank[prune]`. With `compensate` those stay that are missed most on `rows` train rows, and the
    layers that read them make up for the others; where a convolution reads them, norms decide.
    """

    name: Literal["prune-neurons"] = "prune-neurons"
    keep: float = Field(default=0.5, gt=0, le=1)
    compensate: bool = False
    rows: int = Field(default=16384, ge=1, le=SCORED_AT_ONCE)
    LATER: ClassVar = frozenset({"compensate", "rows"})


@register("step", PruneNeurons)
def prune_neurons(model: Model, config: PruneNeurons, context: Context) -> Model:
    """The model with narrower hidden layers."""
    if isinstance(model, Network):
        _prune_mlps(model, config, context)
    elif isinstance(context, ModuleContext):
        _prune_followed(model, config, context)
    else:
        context.skip("neurons", "the model is no network of slimrank, and there are no batches to follow it by")
    return model


def _prune_mlps(model: Network, config: PruneNeurons, context: Context) -> None:
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
                context.skip(where, ALREADY)
                continue
            width = width_of(layer)
            count = left_of(width, config.keep)
            if count == width:
                context.skip(where, f"all of its {width} neurons are kept")
                continue
            own = torch.arange(width)
            try:
                readers = readers_of({"reader": (reader, own, own)}, model, config, context)
            except InputError as error:
                context.skip(where, str(error))
                continue
            kept = least_missed(readers, width, count) if readers else most(importance_of(layer, reader), count)
            context.touch(f"{where}: {width} neurons to {count}{_told(config, readers)}")
            keep_outputs(layer, kept)
            keep_norm(mlp.norms[index], kept)
            reader.weight = nn.Parameter(reader.weight.detach()[:, kept].clone())
            reader.in_features = count
            for each in readers:
                each.write()


def _prune_followed(model: nn.Module, config: PruneNeurons, context: ModuleContext) -> None:
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
                neurons = followed.neurons(layer)
                count = left_of(neurons.width, config.keep)
                if count == neurons.width:
                    context.skip(name, f"all of its {count} neurons are kept")
                    continue
                readers = readers_of(_linear_readers(neurons), model, config, context)
                kept = least_missed(readers, neurons.width, count) if readers else most(neurons.importance(), count)
                cut_off = cut(followed, layer, sorted({*range(neurons.width)} - {*kept.tolist()}))
            except InputError as error:
                context.skip(name, str(error))
                continue
            for reader in readers:
                reader.write()
            followed = None  # what it says is of the module as it was
            for part in cut_off:
                done.add(part.layer)
                left = len(part.layer.get_parameter("weight"))
                context.touch(f"{part.name}: {left + len(part.own)} neurons to {left}{_told(config, readers)}")


def _linear_readers(neurons: Neurons) -> dict[str, tuple[nn.Linear, Tensor, Tensor]]:
    """Layers that read neurons, by name, with the places of these among their inputs; none where not all are linear.

    Nor where a layer reads what it writes: its outputs go as well.
    """
    writers = [part.layer for part in neurons.writers()]
    found: dict[str, tuple[nn.Linear, Tensor, Tensor]] = {}
    for part in neurons.parts:
        if part.writes:
            continue
        if not isinstance(part.layer, nn.Linear) or part.layer in writers:
            return {}
        own, roots = found[part.name][1:] if part.name in found else (part.own[:0], part.roots[:0])
        found[part.name] = part.layer, torch.cat([own, part.own]), torch.cat([roots, part.roots])
    return found


def readers_of(
    layers: Mapping[str, tuple[nn.Linear, Tensor, Tensor]], model: nn.Module, config: PruneNeurons, context: Context
) -> Sequence[Reader]:
    """What reads neurons, ready to make up for some; none where it is not asked to, or not run on the sample.

    Raises:
        InputError: it is given NaN or infinity.
    """
    if not config.compensate or not layers:
        return []
    moments = moments_of({name: layer for name, (layer, *_) in layers.items()}, model, config.rows, context)
    if len(moments) < len(layers):
        return []
    return [Reader(layer, moments[name], own, roots) for name, (layer, own, roots) in layers.items()]


def _told(config: PruneNeurons, readers: Sequence[Reader]) -> str:
    """What decided, where that is not what was asked for."""
    fell_back = config.compensate and not readers
    return " by norms: not all that reads them is a linear layer that was run" if fell_back else ""


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
        context.skip(name, ALREADY)
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


def left_of(width: int, keep: float) -> int:
    """How many neurons of `width` stay: at least one, the fraction `keep` rounded up."""
    return max(1, math.ceil(keep * width))


def most(importance: Tensor, count: int) -> Tensor:
    """Indices, in order, of the `count` most important neurons."""
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
