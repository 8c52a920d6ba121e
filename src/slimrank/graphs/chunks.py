"""Rows of large tensors a chunk at a time, and tensors that are computed as they are written.

A table of gigabytes is read through a window on its file that is closed after each chunk, and what is made of it is
never whole in memory: the writer asks for it part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Floats = NDArray[np.float32]
CHUNK = 1 << 20  # values worked on at a time
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


class Rows:
    """The rows of a matrix [num_rows, dim] as float32, wherever they lie."""

    def __init__(self, tensor: ir.TensorProtocol):
        self.num_rows, self.dim = (int(size) for size in tensor.shape.numpy())
        self.tensor = tensor
        self.array = None if isinstance(tensor, ir.ExternalTensor) else tensor.numpy()

    def read(self, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` - 1, copied."""
        rows = self._window(start, stop) if self.array is None else self.array[start:stop]
        return np.array(rows, dtype=np.float32)

    def chunks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, Floats]]:
        """Rows `first` to `last` - 1, or to the end, about `CHUNK` numbers at a time, each part after its first row."""
        end, step = self.num_rows if last is None else last, max(1, CHUNK // self.dim)
        for start in range(first, end, step):
            yield start, self.read(start, min(start + step, end))

    def take(self, places: NDArray[np.int64]) -> Floats:
        """The rows at `places`, which rise, so that a file is read from its beginning to its end."""
        rows = self._window(0, self.num_rows) if self.array is None else self.array
        return np.array(rows[places], dtype=np.float32)

    def _window(self, start: int, stop: int) -> NDArray[np.generic]:
        """Rows of a file, mapped until nothing holds them any more."""
        assert isinstance(self.tensor, ir.ExternalTensor)
        kind = np.dtype(self.tensor.dtype.numpy()).newbyteorder("<")
        first = (self.tensor.offset or 0) + start * self.dim * kind.itemsize
        return np.memmap(self.tensor.path, kind, mode="r", offset=first, shape=(stop - start, self.dim))


class StreamedTensor(ir.LazyTensor):  # type: ignore[misc]
    """A tensor of `shape` whose content `parts` gives from the first byte to the last, each time it is asked."""

    def __init__(
        self, name: str, dtype: ir.DataType, shape: tuple[int, ...], parts: Callable[[], Iterator[NDArray[np.generic]]]
    ):
        def whole() -> ir.TensorProtocol:
            return ir.tensor(np.concatenate(list(parts())).reshape(shape), name=name)

        super().__init__(whole, dtype, ir.Shape(shape), name=name)
        self.parts = parts

    def tofile(self, file: Any) -> None:
        """Write it part by part."""
        for part in self.parts():
            file.write(np.ascontiguousarray(part).data)


def initializer(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """`tensor` as a new constant of `graph`, under its own name or, where that is taken, one with a number."""
    stem, count = str(tensor.name), 1
    while tensor.name in graph.initializers:
        count += 1
        tensor.name = f"{stem}_{count}"
    value = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
