"""Codes out of the bytes of gathered rows, by shifts: they take bytes in every opset, which masks do from 18 on."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import node_before
from slimrank.graphs.rewriting import shared


def unpacked(graph: ir.Graph, anchor: ir.Node, packed: ir.Value, bits: int, dim: int, *, up: int = 0) -> ir.Value:
    """Bytes [..., width] to a code of `bits` bits in each byte [..., dim], `up` bits above the lowest one.

    Byte j of a row holds, from its low bits up, dimensions j, j + width, j + 2 width, ... A code is moved to the top of
    its byte, which drops those above it, and from there down, which drops those below.
    """
    if bits == 8:
        return packed
    parts = []
    for left in range(8 - bits, -1, -bits):
        part = _shifted(graph, anchor, packed, left, "LEFT")
        parts.append(_shifted(graph, anchor, part, 8 - bits, "RIGHT"))
    codes = node_before(anchor, "Concat", parts, axis=-1)[0]
    width = -(-dim * bits // 8)
    if width * 8 // bits > dim:
        bounds = [shared(graph, f"index_{each}", np.array([each], np.int64)) for each in (0, dim, -1)]
        codes = node_before(anchor, "Slice", [codes, *bounds])[0]
    return _shifted(graph, anchor, codes, up, "LEFT")


def _shifted(graph: ir.Graph, anchor: ir.Node, codes: ir.Value, by: int, direction: str) -> ir.Value:
    if not by:
        return codes
    amount = shared(graph, f"shift_{by}", np.array(by, np.uint8))
    return node_before(anchor, "BitShift", [codes, amount], direction=direction)[0]
