"""DeepCTR-Torch: its models are called with one tensor of columns, and hold their optimizer and what is regularised.

Both lists of parameters were made when the model was built and compiled. They are made again, so that `fit` trains and
regularises what steps have put in the place of the layers.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from slimrank.adaptors.adaptor import Adaptor, copied


def prepare(model: Any) -> nn.Module:
    """A copy that lists what it regularises by name, and works on the CPU, as steps and exports do."""
    made: Any = copied(model)
    made.device = "cpu"  # where it makes what it masks histories with
    names = {id(parameter): name for name, parameter in made.named_parameters()}
    made.regularization_weight = [
        ([names.get(id(_parameter(each)), each) for each in weights], *factors)
        for weights, *factors in made.regularization_weight
    ]
    return made  # type: ignore[no-any-return]


def finish(module: nn.Module) -> Any:
    """The model, which regularises and trains what is there now."""
    made: Any = module
    made.device = str(next(module.parameters()).device)
    made.regularization_weight = [
        ([now for each in weights for now in _now(made, each)], *factors)
        for weights, *factors in made.regularization_weight
    ]
    if hasattr(made, "optim"):
        made.optim = type(made.optim)(made.parameters(), **made.optim.defaults)
    return made


def _parameter(listed: Any) -> Any:
    """The parameter of an entry of the list, which may have its name beside it."""
    return listed[1] if isinstance(listed, tuple) else listed


def _now(model: nn.Module, name: Any) -> list[Any]:
    """The parameter of that name, or else those of the layer that has its place; scales and shifts are not among them.

    What is no name is no parameter of the model, and stays.
    """
    if not isinstance(name, str):
        return [name]
    owner, _, own = name.rpartition(".")
    while owner not in dict(model.named_modules()):
        owner, own = owner.rpartition(".")[0], ""
    layer = model.get_submodule(owner)
    if own in layer._parameters:
        return [layer.get_parameter(own)]
    return [each for each in layer.parameters() if each.dim() > 1]


ADAPTOR = Adaptor(prepare=prepare, finish=finish)
