"""The sum of ids and offsets, in the form in which ONNX Runtime adds fast."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import array_of, node_before


def expand_offsets(graph: ir.Graph) -> int:
    """ids + offsets becomes ids + Expand(offsets, Shape(ids)), for ids [N, K] and offsets [K], both int32.

    ONNX Runtime adds a short vector to a long matrix row by row, at a fixed cost a row; it copies and adds whole
    matrices far faster. Two nodes more cost 0.3 us at one row, and save 1.2 us at 256 rows.
    """
    sums = [(node, place) for node in graph for place in (0, 1) if _is_offset(node, place)]
    for add, place in sums:
        ids, offsets = add.inputs[1 - place], add.inputs[place]
        assert ids is not None
        assert offsets is not None
        shape = node_before(add, "Shape", [ids])
        add.replace_input_with(place, node_before(add, "Expand", [offsets, *shape])[0])
    return len(sums)


def _is_offset(node: ir.Node, place: int) -> bool:
    """Whether that input of `node` is a constant vector that is added to the rows of a matrix of int32."""
    if node.domain or node.op_type != "Add":
        return False
    array, other = array_of(node.inputs[place]), node.inputs[1 - place]
    of_matrix = other is not None and other.shape is not None and len(other.shape) == 2
    return of_matrix and array is not None and array.ndim == 1 and array.dtype == np.int32
