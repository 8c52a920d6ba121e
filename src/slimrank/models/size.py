"""How many bytes a model takes when packed."""

from __future__ import annotations

from torch import nn

from slimrank.tables.table import Table


def packed_bytes(model: nn.Module) -> int:
    """Bytes of all tables, weights and biases as the artifact stores them, without the graph itself.

    A module that knows its packed size says so by `nbytes`; every other parameter counts 4 bytes a number, or, where
    enough of its numbers are 0, what they take as a bit mask and the rest.
    """
    total, counted = 0, set()
    for module in model.modules():
        if id(module) in counted:
            continue
        if isinstance(module, Table) or hasattr(module, "nbytes"):
            total += int(module.nbytes)
            counted |= {id(part) for part in module.modules()}
            continue
        total += sum(sparse_bytes(p.numel(), int(p.count_nonzero()), 4) for p in module.parameters(recurse=False))
    return total


def sparse_bytes(numbers: int, nonzero: int, width: int) -> int:
    """Bytes of `numbers` numbers of `width` bytes: as they are, or as a bit mask and the nonzero ones if that is less.

    >>> sparse_bytes(1000, 1000, 4), sparse_bytes(1000, 100, 4)
    (4000, 525)
    """
    return min(numbers * width, (numbers + 7) // 8 + nonzero * width)
