"""Where a graph rounds, compares or chooses behind a value.

A sum of floats that is split is added in another order, and its last bit may differ. An operator that only bends its
input keeps that difference small; one that rounds turns it, now and then, into a whole step.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir

from slimrank.graphs.shared_rows import CHECKS

SUDDEN = frozenset({
    *("Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    *("Mod", "QuantizeLinear", "Round", "Sign"),
})  # fmt: skip
WIDE = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


def before_rounding(nodes: Sequence[ir.Node]) -> frozenset[ir.Value]:
    """The values that something behind them rounds, among `nodes` in their order.

    An operator that the split does not know counts as one that rounds.
    """
    found: set[ir.Value] = set()
    for node in reversed(nodes):
        if node.op_type in ("Shape", "Size") and not node.domain:
            continue
        if _rounds(node) or found.intersection(node.outputs):
            found.update(value for value in node.inputs if value is not None)
    return frozenset(found)


def _rounds(node: ir.Node) -> bool:
    if node.domain or node.op_type not in CHECKS or node.op_type in SUDDEN:
        return True
    return node.op_type == "Cast" and node.attributes.get_int("to") not in WIDE
