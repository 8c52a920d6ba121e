"""Weights that hold nothing but values of bfloat16 are stored as such, in half the bytes.

A Cast on a constant brings them back, which ONNX Runtime runs once, at load. Left out: rounding; a step does it.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import array_of, constant, node_before

LEAST = 1024  # numbers of a matrix from which on a Cast takes fewer bytes than it saves


def store_halves(graph: ir.Graph) -> int:
    """Rewrites such matrices of float32, in place; how many there were."""
    chosen = {}
    for name, value in graph.initializers.items():
        array = array_of(value)
        if value.dtype != ir.DataType.FLOAT or array is None or array.ndim < 2 or array.size < LEAST:
            continue
        half = array.astype(ml_dtypes.bfloat16)
        if np.array_equal(half.astype(np.float32), array):
            chosen[name] = half
    anchor = graph[0] if chosen else None
    for name, half in chosen.items():
        assert anchor is not None
        old = graph.initializers.pop(name)
        values = node_before(anchor, "Cast", [constant(graph, half, name)], to=int(ir.DataType.FLOAT))[0]
        values.shape, values.type = old.shape, old.type
        old.replace_all_uses_with(values)
    return len(chosen)
