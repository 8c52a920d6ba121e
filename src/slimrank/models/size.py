"""How many bytes a model takes when packed."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


def packed_bytes(model: nn.Module) -> int:
    """Bytes of all tables, weights and biases as the artifact stores them, without the graph itself.

    A module that knows its packed size says so by `nbytes`; every other parameter counts 4 bytes a number, or, where
    enough of its numbers are 0, what they take as a bit mask and the rest. What is shared counts once.
    """
    total, counted = 0, set[int]()
    for module in model.modules():
        if isinstance(module, Packable) and id(module) not in counted:
            total += module.nbytes
            counted |= {id(part) for part in (*module.modules(), *module.parameters())}
    rest = {id(parameter): parameter for parameter in model.parameters() if id(parameter) not in counted}
    return total + sum(sparse_bytes(parameter) for parameter in rest.values())


@runtime_checkable
class Packable(Protocol):
    """A module that knows how many bytes it takes when packed, with all it is made of."""

    @property
    def nbytes(self) -> int:
        """Packed bytes."""


def sparse_bytes(values: Tensor) -> int:
    """Bytes of a tensor as it is, or as a bit mask and its nonzero values where that is less.

    >>> import torch
    >>> sparse_bytes(torch.ones(1000)), sparse_bytes(torch.arange(1000) % 10 == 0)
    (4000, 225)
    """
    width = values.element_size()
    return min(values.numel() * width, (values.numel() + 7) // 8 + int(values.count_nonzero()) * width)
