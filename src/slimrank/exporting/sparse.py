"""Pruned weights stored sparse: one bit a weight for where, and the values that are not zero.

Standard operators rebuild the dense tensors from both. They work on constants, so ONNX Runtime runs them once, at
load, before it makes layers integer: the file is smaller and the speed is that of dense weights. All tensors of one
type share one mask, one list of values and one set of nodes. Left out: speed from zeros; there is none to be had
(see structured pruning).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import Array, array_of, constant, node_before

SHARED_BYTES = 520  # nodes and small constants that the tensors of one type share
TENSOR_BYTES = 100  # nodes and constants that each tensor adds
TYPES = (ir.DataType.INT8, ir.DataType.FLOAT)


def sparse_bytes(array: Array) -> int:
    """Bytes of a tensor stored sparse, without what is shared.

    >>> sparse_bytes(np.zeros(800, np.int8)) - TENSOR_BYTES
    100
    """
    return (array.size + 7) // 8 + int(np.count_nonzero(array)) * array.itemsize + TENSOR_BYTES


def store_sparse(graph: ir.Graph, names: Collection[str] | None = None) -> dict[str, tuple[int, int]]:
    """Rewrites the initialisers that get smaller, in place: name to bytes before and after, shared bytes left out.

    Only those of `names`, where given, are looked at.
    """
    done: dict[str, tuple[int, int]] = {}
    for dtype in TYPES:
        chosen = {}
        for name, value in graph.initializers.items():
            if names is not None and name not in names:
                continue
            array = array_of(value)
            if value.dtype == dtype and array is not None and sparse_bytes(array) < array.nbytes:
                chosen[name] = array
        saved = sum(array.nbytes - sparse_bytes(array) for array in chosen.values())
        if saved > SHARED_BYTES:
            _rewrite(graph, chosen)
            done |= {name: (array.nbytes, sparse_bytes(array)) for name, array in chosen.items()}
    return done


def _rewrite(graph: ir.Graph, arrays: dict[str, Array]) -> None:
    """The initialisers of that name become outputs of nodes; all are of one type."""
    flat = np.concatenate([array.reshape(-1) for array in arrays.values()])
    values = constant(graph, np.concatenate([np.zeros(1, flat.dtype), flat[flat != 0]]), "sparse.values")
    mask = constant(graph, np.packbits(flat != 0, bitorder="little").reshape(-1, 1), "sparse.mask")
    anchor = graph[0]
    sizes = [array.size for array in arrays.values()]
    dense = split(graph, anchor, _scatter(graph, anchor, mask, values), sizes, padding=-len(flat) % 8)
    for (name, array), part in zip(arrays.items(), dense, strict=True):
        shape = constant(graph, np.array(array.shape, np.int64), "sparse_shape")
        shaped = node_before(anchor, "Reshape", [part, shape])[0]
        old = graph.initializers.pop(name)
        shaped.shape, shaped.type = old.shape, old.type
        old.replace_all_uses_with(shaped)


def _scatter(graph: ir.Graph, anchor: ir.Node, mask: ir.Value, values: ir.Value) -> ir.Value:
    """values[kept * cumsum(kept)] with kept the bits of the mask; values[0] is 0.

    A bit is moved to the top of its byte and from there to the bottom: shifts are in every opset from 11 on.
    """
    above = constant(graph, np.arange(7, -1, -1, dtype=np.uint8), "sparse_bits")
    top = constant(graph, np.full((), 7, np.uint8), "sparse_top")
    flat_shape = constant(graph, np.array([-1], np.int64), "sparse_flat")
    axis = constant(graph, np.zeros((), np.int32), "sparse_axis")
    shifted = node_before(anchor, "BitShift", [mask, above], direction="LEFT")[0]
    kept = node_before(anchor, "BitShift", [shifted, top], direction="RIGHT")[0]
    kept = node_before(anchor, "Reshape", [kept, flat_shape])[0]
    kept = node_before(anchor, "Cast", [kept], to=int(ir.DataType.INT32))[0]
    rank = node_before(anchor, "CumSum", [kept, axis])[0]
    index = node_before(anchor, "Mul", [rank, kept])[0]
    return node_before(anchor, "Gather", [values, index], axis=0)[0]


def split(graph: ir.Graph, anchor: ir.Node, flat: ir.Value, sizes: list[int], padding: int) -> list[ir.Value]:
    """`flat` cut into parts of the given sizes; the padding of the last byte is dropped."""
    cuts = [*sizes, padding] if padding else sizes
    if len(cuts) == 1:
        return [flat]
    lengths = constant(graph, np.array(cuts, np.int64), "sparse_sizes")
    return node_before(anchor, "Split", [flat, lengths], outputs=len(cuts), axis=0)[: len(sizes)]
