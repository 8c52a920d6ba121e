"""Modules of the user's own: layers of torch become those that steps work on, and go back where no step did.

Tables are found wherever they sit (containers, lists, modules and parameters that are shared) by their class; attention
and convolutions are taken apart into linear layers. What cannot be taken is left as it is, and `unfit` says why.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from slimrank.compression.steps import Context, swap
from slimrank.config import InputError
from slimrank.models.attention import SplitAttention
from slimrank.models.convolution import WindowedConv1d
from slimrank.tables.dense import DenseTable
from slimrank.tables.modules import Embedding, EmbeddingBag, TiedLinear

KINDS = (nn.Embedding, nn.EmbeddingBag, nn.MultiheadAttention, nn.Conv1d, nn.Linear)
TABLES = (nn.Embedding, nn.EmbeddingBag)
COMPUTED = ("WeightNorm", "SpectralNorm")  # hooks of torch that compute a weight before every call


@dataclass(frozen=True, eq=False)
class Adopted:
    """Modules of torch and what stands for each, and the shortcuts of torch around them that were closed."""

    pairs: list[tuple[nn.Module, nn.Module]]
    shortcuts: list[tuple[nn.Module, str, object]]


def unfit(module: nn.Module) -> str:
    """Why a module of one of the `KINDS` is not compressed, or nothing."""
    if isinstance(module, torch.jit.ScriptModule):
        return "is scripted: give the module as it was before torch.jit"
    if is_quantised(module):
        return f"is quantised already: it is a {type(module).__module__}.{type(module).__name__}"
    if parametrize.is_parametrized(module):
        names = ", ".join(module.parametrizations)  # type: ignore[arg-type]
        return f"is parametrised ({names}): `remove_parametrizations` comes first"
    computed = [type(hook).__name__ for hook in module._forward_pre_hooks.values() if type(hook).__name__ in COMPUTED]
    if computed:
        return f"has a weight that {computed[0]} computes before every call: remove it first"
    kind = next(kind for kind in KINDS if isinstance(module, kind))
    if type(module).forward is not kind.forward:
        return f"is a {type(module).__name__}, whose forward is its own"
    for weight in module.parameters(recurse=False):
        if type(weight) is not nn.Parameter or type(weight.data) is not Tensor:
            return f"is quantised already: its weight is a {type(weight.data).__name__}"
        if weight.dtype != torch.float32:
            return f"holds {weight.dtype}, must hold float32: `module.float()` comes first"
    return ""


def tell_unfit(model: nn.Module, kinds: tuple[type[nn.Module], ...], context: Context) -> bool:
    """Note every module of these kinds that is still torch's own, or was of them before it changed, and why.

    Returns:
        Whether there is any.
    """
    found = [each for each in model.named_modules() if isinstance(each[1], kinds) or _was(each[1], kinds)]
    for name, module in found:
        context.skip(name, unfit(module) or fault_of_kind(module))
    return bool(found)


def _was(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether `module` was one of these kinds before torch scripted or quantised it: it is of another class since."""
    if isinstance(module, torch.jit.ScriptModule):
        name = getattr(module, "original_name", "")
    else:
        name = type(module).__name__ if is_quantised(module) else ""
    return name in [kind.__name__ for kind in kinds]


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer is one of those that torch's own quantisation makes."""
    return re.match(r"torch\.ao\.nn\.(\w+\.)*quantized\.", type(module).__module__) is not None


def check_module(module: nn.Module) -> None:
    """Hold a module to what steps and export can do anything with at all.

    Raises:
        InputError: a part of it is compiled, or its weights have no numbers.
    """
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # which takes seconds to load, and is where one is compiled
    for name, part in module.named_modules():
        if dynamo is not None and isinstance(part, dynamo.OptimizedModule):
            what = f"{name} is" if name else "the module is"
            raise InputError(f"{what} compiled: give it as it was before torch.compile (`_orig_mod` in it)")
    empty = [name for name, each in module.named_parameters() if each.is_meta]
    if empty:
        raise InputError(f"{empty[0]} is on the device meta, without numbers: load the module's weights first")


def linears(model: nn.Module, context: Context) -> list[str]:
    """Names of the linear layers that steps may work on; the others are noted."""
    fit = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        why = unfit(module)
        if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention):
            why = "is a part of an attention that is left as it is"
        if why:
            context.skip(name, why)
        else:
            fit.append(name)
    tell_unfit(model, (nn.MultiheadAttention, nn.Conv1d), context)
    for name, module in model.named_modules():
        if _was(module, (nn.Linear,)):
            context.skip(name, unfit(module))
    return fit


def fault_of_kind(module: nn.Module) -> str:
    """Why a module that is fit in general cannot be taken by its kind, or nothing."""
    try:
        _taken(module, {})
    except InputError as error:
        return str(error)
    return ""


def adopt(model: nn.Module) -> Adopted:
    """Put what steps work on in the place of torch's layers, in `model` itself."""
    pairs: list[tuple[nn.Module, nn.Module]] = []
    tables: dict[int, Embedding | EmbeddingBag] = {}  # by the parameter that holds the rows
    for kinds in (TABLES, (nn.MultiheadAttention, nn.Conv1d), (nn.Linear,)):
        for module in [each for each in model.modules() if isinstance(each, kinds) and not unfit(each)]:
            try:
                new = _taken(module, tables)
            except InputError:
                continue
            if new is not None:
                swap(model, module, new)
                pairs.append((module, new))
    return Adopted(pairs, _close_shortcuts(model))


def _taken(module: nn.Module, tables: dict[int, Embedding | EmbeddingBag]) -> nn.Module | None:
    """What stands for `module`; None where it stays. `tables` is added to.

    Raises:
        InputError: its settings are not supported.
    """
    if isinstance(module, nn.Linear):
        tied = tables.get(id(module.weight))
        return None if tied is None else TiedLinear(tied, module.bias)
    if isinstance(module, nn.MultiheadAttention):
        return SplitAttention(module)
    if isinstance(module, nn.Conv1d):
        return WindowedConv1d(module)
    assert isinstance(module, TABLES)
    made = Embedding.of(module) if isinstance(module, nn.Embedding) else EmbeddingBag.of(module)
    first = tables.setdefault(id(module.weight), made)
    made.table = first.table
    return made


def _close_shortcuts(model: nn.Module) -> list[tuple[nn.Module, str, object]]:
    """Torch's transformers go around their own layers in evaluation, and read the weights; here they must not."""
    closed: list[tuple[nn.Module, str, object]] = []
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            closed.append((module, "activation_relu_or_gelu", module.activation_relu_or_gelu))
        elif isinstance(module, nn.TransformerEncoder):
            closed.append((module, "use_nested_tensor", module.use_nested_tensor))
    for module, name, _ in closed:
        setattr(module, name, 0)
    return closed


def give_back(model: nn.Module, adopted: Adopted) -> None:
    """Put torch's own layers back where no step changed what stood for them."""
    for original, new in reversed(adopted.pairs):  # ties before the tables that they ask
        if RESTORE[type(new)](original, new):
            swap(model, new, original)
    for module, name, value in adopted.shortcuts:
        if not any(type(each).__module__.startswith("slimrank.") for each in module.modules()):
            setattr(module, name, value)


def _restore_table(original: nn.Module, new: nn.Module) -> bool:
    table = new.get_submodule("table")
    if not isinstance(table, DenseTable) or table.weight.shape != original.get_parameter("weight").shape:
        return False
    original.register_parameter("weight", table.weight)
    return True


def _restore_tie(original: nn.Module, new: nn.Module) -> bool:
    return _restore_table(original, new.get_submodule("embedding"))


def _restore_layers(original: nn.Module, new: nn.Module) -> bool:
    assert isinstance(new, SplitAttention | WindowedConv1d)
    if not all(type(layer) is nn.Linear for layer in new.children()):
        return False
    new.write_to(original)  # type: ignore[arg-type]  # it was made of one of that class
    return True


# What gives its numbers back to the original, if it is as that was but for them, and whether it is.
RESTORE: dict[type[nn.Module], Callable[[nn.Module, nn.Module], bool]] = {
    Embedding: _restore_table,
    EmbeddingBag: _restore_table,
    TiedLinear: _restore_tie,
    SplitAttention: _restore_layers,
    WindowedConv1d: _restore_layers,
}
