"""What hangs on the neurons of a layer, in modules of the user's own: followed by torch-pruning, and proved.

torch-pruning follows the graph of gradients (Fang et al. 2023, arXiv 2301.12900). It takes every operation that it does
not know for one that goes number by number: what it finds may be wrong, and a wrong cut need not fail. So its word is a
proposal. A cut stays where the narrower module, and every layer of it that reads those neurons, answers the first batch
as the whole one does with the weights that read them at 0, whatever the neurons say. Left out: norms over neurons,
recurrent layers, and attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from slimrank.compression.adopting import KINDS, unfit
from slimrank.compression.modules import ModuleContext, told
from slimrank.compression.steps import swap
from slimrank.compression.tracing import traced
from slimrank.config import InputError
from slimrank.models.attention import SplitAttention
from slimrank.models.convolution import PaddedConv1d, WindowedConv1d
from slimrank.tables.table import Table

WEIGHED = (nn.Linear, nn.Conv1d)
BY_NEURON = (nn.BatchNorm1d, nn.PReLU)  # with numbers of their own for every neuron
TOLERANCE = 1e-4  # of the largest number: sums in another order, and no more
LOUD = 10


@dataclass(frozen=True, eq=False)
class Part:
    """A layer that hangs on neurons: those numbered `own` [n] in it are the neurons `roots` [n] of the layer asked for.

    `writes` says that they are its outputs; else they are its inputs.
    """

    name: str
    layer: nn.Module
    writes: bool
    own: Tensor
    roots: Tensor

    def sizes(self) -> Tensor:
        """Squared norms [n] of the weights that write each of its neurons, or read it."""
        weight = self.layer.get_parameter("weight").detach()
        by_neuron = weight if self.writes else weight.transpose(0, 1)
        return by_neuron.flatten(1).square().sum(dim=1)[self.own]


@dataclass(frozen=True, eq=False)
class Neurons:
    """The neurons of one layer and all that hangs on them; `group` is torch-pruning's."""

    width: int
    group: Any
    parts: list[Part]  # with weights: linear layers and convolutions
    others: list[nn.Module]  # without: norms and owners of vectors, with a number for each neuron

    def writers(self) -> list[Part]:
        """Layers whose outputs they are: several, where outputs are added or multiplied."""
        return [part for part in self.parts if part.writes]

    def importance(self) -> Tensor:
        """The norm of all weights that write a neuron times that of all which read it, [width]."""
        sums = torch.zeros(2, self.width)
        for part in self.parts:
            sums[0 if part.writes else 1].index_add_(0, part.roots, part.sizes())
        return sums[0].sqrt() * sums[1].sqrt()


class Followed:
    """A module's layers and what hangs on their neurons, as they are on the first batch.

    Raises:
        InputError: torch-pruning is not installed or cannot follow the module, or nothing that the module answers has a
            gradient.
    """

    def __init__(self, model: nn.Module, context: ModuleContext):
        self.model = model
        self.context = context
        self.names: dict[int, str] = {}
        self.owners: dict[int, list[str]] = {}
        parts = [each.children() for each in model.modules() if isinstance(each, SplitAttention)]
        self.attention = {id(part) for each in parts for part in each}
        for name, module in model.named_modules():
            self.names.setdefault(id(module), name)
            for part, parameter in module.named_parameters(recurse=False):
                self.owners.setdefault(id(parameter), []).append(f"{name}.{part}".lstrip("."))
        self.graph = traced(model, context)

    def neurons(self, layer: nn.Module, which: Sequence[int] | None = None) -> Neurons:
        """The neurons `which` of a layer, or all of them, and what hangs on them.

        Raises:
            InputError: they cannot go; the error is the reason.
        """
        if layer not in self.graph.module2node:
            raise InputError("is not run on the first batch, or has no gradient there")
        width = len(layer.get_parameter("weight"))
        asked = list(range(width) if which is None else which)
        try:
            neurons = self._neurons(layer, width, asked)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"torch-pruning cannot follow its neurons: {type(error).__name__}: {error}") from error
        if all(part.writes for part in neurons.parts):
            raise InputError("its neurons are read by no layer that can be narrowed")
        if any(part.layer is layer and part.writes and len(part.own) > len(asked) for part in neurons.parts):
            raise InputError("its neurons go only several together")
        return neurons

    def _neurons(self, layer: nn.Module, width: int, asked: list[int]) -> Neurons:
        group = self.graph.get_pruning_group(layer, self.graph.get_pruner_of_module(layer).prune_out_channels, asked)
        parts: list[Part] = []
        others: list[nn.Module] = []
        lost = ""
        for item in group.items:
            module = item.dep.target.module
            if isinstance(module, nn.Parameter):
                others.append(self._owner(module))
            elif not _is_operation(module):
                name = self.names.get(id(module), "")
                self._check(name, module)
                if isinstance(module, WEIGHED):
                    writes = bool(self.graph.is_out_channel_pruning_fn(item.dep.handler))
                    part = Part(name, module, writes, torch.tensor(item.idxs), torch.tensor(item.root_idxs))
                    if int(part.own.max()) >= module.get_parameter("weight").shape[0 if writes else 1]:
                        lost = f"its neurons are not told apart on their way to {name}"
                    parts.append(part)
                else:
                    others.append(module)
        if lost:  # the last of reasons: whatever else is in their way says more
            raise InputError(lost)
        return Neurons(width, group, parts, others)

    def _check(self, name: str, module: nn.Module) -> None:
        """Raises `InputError` where a module that hangs on neurons cannot be cut."""
        if type(module).__name__ == "_OutputOp":
            raise InputError("its neurons are what the module answers with")
        if isinstance(module, nn.Embedding):
            raise InputError(f"its neurons go with the dimensions of {name}, which stay")
        if not isinstance(module, (*WEIGHED, *BY_NEURON)):
            raise InputError(f"its neurons go with {name}, a {type(module).__name__}, which is not cut")
        if id(module) in self.attention:
            raise InputError(f"its neurons go with {name}, a part of an attention, which is not cut")
        why = unfit(module) if isinstance(module, KINDS) else ""
        if parametrize.is_parametrized(module):
            why = why or "is parametrised"
        shared = [each for parameter in module.parameters(recurse=False) for each in self._shared(parameter)]
        if shared:
            why = why or f"shares its weights: {', '.join(shared)}"
        if why:
            raise InputError(f"its neurons go with {name}, which {why}")

    def _owner(self, parameter: nn.Parameter) -> nn.Module:
        """The module that holds a vector with a number for each neuron.

        Raises:
            InputError: it is no vector, or held by several.
        """
        where = self.owners[id(parameter)][0]
        owner = self.model.get_submodule(where.rpartition(".")[0])
        if isinstance(owner, Table):
            raise InputError(f"its neurons go with the dimensions of {where.rpartition('.')[0]}, which stay")
        if parameter.numel() != max(parameter.shape) or self._shared(parameter):
            raise InputError(f"its neurons go with the parameter {where} {list(parameter.shape)}, which is not cut")
        return owner

    def _shared(self, parameter: nn.Parameter) -> list[str]:
        """All places of a parameter that sits in several modules."""
        places = self.owners[id(parameter)]
        return places if len(places) > 1 else []


def cut(followed: Followed, layer: nn.Module, gone: Sequence[int]) -> list[Part]:
    """Take the neurons `gone` of a layer out of its module, with all that hangs on them.

    Returns:
        The layers that had them as outputs, with what they were.

    Raises:
        InputError: they cannot go, and all is as it was; the error is the reason.
    """
    neurons = followed.neurons(layer, gone)
    if not followed.graph.check_pruning_group(neurons.group):
        raise InputError("nothing would be left of a layer that hangs on its neurons")
    saved = Saved([*(part.layer for part in neurons.parts), *neurons.others])
    try:
        _silence(neurons.parts)
        expected = _heard(followed, neurons.parts)
        saved.restore()
        neurons.group.prune(record_history=False)
        saved.freeze()
        found = _heard(followed, neurons.parts)
    except InputError as error:
        saved.restore()
        raise InputError(f"the module does not run without some of its neurons: {error}") from error
    except Exception as error:
        saved.restore()
        raise InputError(f"torch-pruning failed: {told(error)}") from error
    if not _alike(found, expected):
        saved.restore()
        raise InputError("its neurons act on more than the layers which are known to read them")
    return neurons.writers()


@contextmanager
def convolutions_of_torch(model: nn.Module) -> Iterator[None]:
    """Convolutions over windows are torch's own meanwhile, which torch-pruning knows; then windows of what is left."""
    found = [each for each in model.modules() if isinstance(each, WindowedConv1d) and type(each.linear) is nn.Linear]
    pairs = [(each, PaddedConv1d(each)) for each in found]
    for windowed, plain in pairs:
        swap(model, windowed, plain)
    try:
        yield
    finally:
        for windowed, plain in pairs:
            plain.write_to(windowed)
            swap(model, plain, windowed)


class Saved:
    """Modules as they are, to be put back: their parameters, buffers and sizes, none of which is changed in place."""

    def __init__(self, modules: Iterable[nn.Module]):
        self.modules = list(dict.fromkeys(modules))
        self.states = [
            (dict(each._parameters), dict(each._buffers), {k: v for k, v in vars(each).items() if isinstance(v, int)})
            for each in self.modules
        ]

    def restore(self) -> None:
        """Put all back."""
        for module, (parameters, buffers, sizes) in zip(self.modules, self.states, strict=True):
            module._parameters.update(parameters)
            module._buffers.update(buffers)
            vars(module).update(sizes)

    def freeze(self) -> None:
        """Freeze the parameters whose predecessors were."""
        for module, (parameters, _, _) in zip(self.modules, self.states, strict=True):
            for name, before in parameters.items():
                now = module._parameters[name]
                if before is not None and now is not None:
                    now.requires_grad_(before.requires_grad)


def _is_operation(module: nn.Module) -> bool:
    """Whether a node is no layer but something that is done to neurons one by one, or to their order."""
    own = type(module).__module__.startswith("torch_pruning.")
    return own and type(module).__name__ != "_OutputOp"


def _heard(followed: Followed, parts: Sequence[Part]) -> list[Tensor]:
    """What the module answers to the first batch, and the readers of neurons: layers behind may level that out."""
    seen: list[Tensor] = []
    writers = [part.layer for part in parts if part.writes]
    hooks = [
        part.layer.register_forward_hook(lambda layer, given, output: seen.append(output.detach().clone()))
        for part in parts
        if part.layer not in writers
    ]
    try:
        with torch.no_grad():
            return [*followed.context.answer(followed.model), *seen]
    finally:
        for hook in hooks:
            hook.remove()


def _silence(parts: Sequence[Part]) -> None:
    """Let nothing be read of neurons, and make them loud: each says `LOUD` times what the loudest of its layer says.

    If something but the readers hears them, the answers tell.
    """
    for part in parts:
        layer = part.layer
        weight = layer.get_parameter("weight").detach().clone()
        if part.writes:
            loudest = weight.flatten(1).square().sum(dim=1).argmax()
            weight[part.own] = LOUD * weight[loudest]
            bias = layer._parameters["bias"]
            if bias is not None:
                layer.register_parameter("bias", nn.Parameter(_repeated(bias.detach(), part.own, loudest)))
        else:
            weight[:, part.own] = 0.0
        layer.register_parameter("weight", nn.Parameter(weight))


def _repeated(values: Tensor, places: Tensor, source: Tensor) -> Tensor:
    made = values.clone()
    made[places] = LOUD * values[source]
    return made


def _alike(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether answers are the same, but for the order of sums."""
    if [each.shape for each in found] != [each.shape for each in expected]:
        return False
    for one, other in zip(found, expected, strict=True):
        finite = other[other.isfinite()].abs().double()
        scale = float(finite.max()) if finite.numel() else 0.0
        if not torch.allclose(one.double(), other.double(), rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True):
            return False
    return True
