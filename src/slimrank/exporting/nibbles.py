"""Weights of 4 bits stored two a byte.

A graph holds them as bytes of small integers, which is what runtimes multiply. Shifts on constants bring those back,
which ONNX Runtime runs once, at load, before it makes layers integer: the file is smaller and nothing is slower. All
matrices share one array and one set of nodes. Left out: rounding to 4 bits; a step does it.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import array_of, constant, node_before
from slimrank.exporting.sparse import sparse_bytes, split

LEAST = 1024  # weights of all matrices together from which on the nodes take fewer bytes than they save
ZERO = 8  # the nibble of 0: they are unsigned


def store_nibbles(graph: ir.Graph, names: Container[str] | None = None) -> int:
    """Rewrites matrices of int8 that hold -8 to 7 alone, or those of these names, in place; how many there were."""
    found = {name: array_of(value) for name, value in graph.initializers.items() if value.dtype == ir.DataType.INT8}
    chosen = {
        name: array
        for name, array in found.items()
        if array is not None
        and (names is None or name in names)
        and array.ndim >= 2
        and array.size
        and int(array.min()) >= -ZERO
        and int(array.max()) < ZERO
        and sparse_bytes(array) > array.size // 2
    }
    if sum(array.size for array in chosen.values()) < LEAST:
        return 0
    flat = np.concatenate([array.reshape(-1) for array in chosen.values()]).astype(np.int16) + ZERO
    codes = np.pad(flat, (0, len(flat) % 2)).astype(np.uint8)
    half = len(codes) // 2
    packed = constant(graph, codes[:half] | codes[half:] << 4, "nibbles")
    anchor = graph[0]
    sizes = [array.size for array in chosen.values()]
    parts = split(graph, anchor, _unpacked(graph, anchor, packed), sizes, padding=len(codes) - len(flat))
    for (name, array), part in zip(chosen.items(), parts, strict=True):
        shape = constant(graph, np.array(array.shape, np.int64), "nibbles_shape")
        old = graph.initializers.pop(name)
        value = node_before(anchor, "Reshape", [part, shape])[0]
        value.shape, value.type = old.shape, old.type
        old.replace_all_uses_with(value)
    return len(chosen)


def _unpacked(graph: ir.Graph, anchor: ir.Node, packed: ir.Value) -> ir.Value:
    """int8 of the low halves of all bytes, then of the high ones."""
    four = constant(graph, np.full((), 4, np.uint8), "nibbles_four")
    zero = constant(graph, np.full((), ZERO, np.int32), "nibbles_zero")
    moved = node_before(anchor, "BitShift", [packed, four], direction="LEFT")[0]
    low = node_before(anchor, "BitShift", [moved, four], direction="RIGHT")[0]
    high = node_before(anchor, "BitShift", [packed, four], direction="RIGHT")[0]
    both = node_before(anchor, "Concat", [low, high], axis=0)[0]
    wide = node_before(anchor, "Cast", [both], to=int(ir.DataType.INT32))[0]
    signed = node_before(anchor, "Sub", [wide, zero])[0]
    return node_before(anchor, "Cast", [signed], to=int(ir.DataType.INT8))[0]
