"""What flows between the nodes of a graph while its module is made: tensors, and three things that are lazily one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = Any  # a tensor, a Python number (of a constant that is one), `Scaled`, `Rows`, or a shape as a list
INTEGERS = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767)}


class MissingError(Exception):
    """What cannot be converted; its text names the operator."""


@dataclass(frozen=True)
class Node:
    """One node of the graph; `integers` is the type of its first output where that is one of `INTEGERS`, else empty."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    integers: str = ""


@dataclass(frozen=True)
class Scaled:
    """Integers, held in floats, times a scale that is known and broadcast over them."""

    integers: Any
    scale: NDArray[np.float32]

    @property
    def is_even(self) -> bool:
        """Whether all have one scale."""
        return self.scale.size == 1

    def whole(self) -> Any:
        """The product."""
        return times(self.integers, self.scale)


@dataclass(frozen=True)
class Rows:
    """A table that is made of stored ones row by row: `make(tables)`, of all rows or of those that are looked up."""

    tables: tuple[Any, ...]
    make: Callable[[Sequence[Any]], Any]

    def whole(self) -> Any:
        """All rows of it."""
        return self.make(self.tables)


def whole(value: Value) -> Any:
    """A tensor or a number, of whatever is lazily one."""
    return value.whole() if isinstance(value, Scaled | Rows) else value


def tensor(value: Value) -> Any:
    """The same, a number and a shape as tensors too."""
    import torch

    found = whole(value)
    return found if isinstance(found, torch.Tensor) else torch.tensor(found)


def operand(values: NDArray[Any]) -> Any:
    """Constants as elementwise operators take them: a number where it is one, so that no shape hangs on it."""
    import torch

    return float(values.reshape(())) if values.size == 1 else torch.tensor(values.tolist(), dtype=torch.float32)


def times(tensor: Any, scale: NDArray[np.float32]) -> Any:
    """`tensor` times a known scale, and as it is where that is one."""
    return tensor if bool((scale == 1).all()) else tensor * operand(scale)
