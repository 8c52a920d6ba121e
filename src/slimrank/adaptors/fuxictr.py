"""FuxiCTR: its models take one mapping of features, know their device, and hold the optimizer that `fit` uses.

`fit` keeps what was best where the model says, in `checkpoint`: a compressed model says what the one before it said.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from slimrank.adaptors.adaptor import Adaptor, copied, whole


def prepare(model: Any) -> nn.Module:
    """A copy that works on the CPU, as steps and exports do."""
    made = copied(model)
    made.device = torch.device("cpu")  # type: ignore[assignment]  # where it moves the features of a batch
    return made


def finish(module: nn.Module) -> nn.Module:
    """The model, told of the device that it is on, its optimizer of the parameters that steps made."""
    module.device = next(module.parameters()).device  # type: ignore[assignment]
    optimizer = getattr(module, "optimizer", None)
    if isinstance(optimizer, torch.optim.Optimizer):
        module.optimizer = type(optimizer)(module.parameters(), **optimizer.defaults)  # type: ignore[assignment]
    return module


ADAPTOR = Adaptor(prepare, whole, finish)
