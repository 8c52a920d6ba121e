"""What a graph takes and gives: the name, type and shape of a tensor, and what of an array does not fit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError

DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(f"float{bits}" for bits in (16, 32, 64)),
)

RUNTIME_NAMES = {"float": "float32", "double": "float64"}  # of ONNX Runtime, where numpy calls them otherwise


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph: its type, and its shape with a name for every size that may vary."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]

    @classmethod
    def of(cls, name: str, dtype: np.dtype[Any], sizes: Sequence[int | str | None]) -> TensorSpec:
        """With a name of its own for every size that has none."""
        shape = (f"{name}_{axis}" if size is None else size for axis, size in enumerate(sizes))
        return cls(name, dtype, tuple(shape))

    @classmethod
    def of_end(cls, node: Any) -> TensorSpec:
        """What a session of ONNX Runtime says of one of its inputs or outputs."""
        kind = node.type.removeprefix("tensor(").removesuffix(")")
        return cls.of(node.name, np.dtype(RUNTIME_NAMES.get(kind, kind)), node.shape)

    def sizes(self, known: dict[str, int], varying: int) -> tuple[int, ...]:
        """A shape that it may have: `known` are the sizes of names, one that is new is `varying`."""
        parts = [(each, 0) if isinstance(each, int) else _parted(each) for each in self.shape]
        return tuple(name if isinstance(name, int) else known.setdefault(name, varying) + more for name, more in parts)

    def array(self, value: ArrayLike) -> NDArray[Any]:
        """`value` as an array of this type, where nothing is lost.

        Raises:
            InputError: it is of another type, or of another number of dimensions.
        """
        array = np.asarray(value)
        if array.dtype != self.dtype and not np.can_cast(array.dtype, self.dtype, "safe"):
            raise InputError(f"input {self.name!r}: type {array.dtype}, must be {self.dtype}")
        if array.ndim != len(self.shape):
            raise InputError(f"input {self.name!r}: shape {list(array.shape)}, must be {self.told()}")
        return array.astype(self.dtype, copy=False)

    def told(self) -> str:
        """Its shape in words."""
        return f"[{', '.join(map(str, self.shape))}]"

    def check_sizes(self, array: NDArray[Any], known: dict[str, int]) -> None:
        """Raises `InputError` where a size is not the graph's, or not the one that others of its name have.

        "rows + 1" is one more than "rows": `known` are the sizes of names.
        """
        for size, wanted in zip(array.shape, self.shape, strict=True):
            name, more = (wanted, 0) if isinstance(wanted, int) else _parted(wanted)
            expected = name if isinstance(name, int) else known.setdefault(name, size - more) + more
            if size != expected:
                told = ", ".join(f"{label} = {value}" for label, value in known.items()) or "these sizes"
                shape = list(array.shape)
                raise InputError(f"input {self.name!r}: shape {shape}, must be {self.told()} with {told}")


def _parted(size: str) -> tuple[str, int]:
    """The name in "rows + 1", and what is added to it."""
    name, _, more = (part.strip() for part in size.partition("+"))
    return (name, int(more)) if more.isdecimal() else (size, 0)
