"""What no step has changed among operators of other domains, and what can be done instead."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from slimrank.graphs.attributes import ML, holders
from slimrank.graphs.steps import named

TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
LINEAR = ("LinearClassifier", "LinearRegressor")
TELLING = 1024  # bytes of attributes from which an operator is named
DISTIL = "far fewer has a student of it: SlimClassifier, or a recipe whose teacher are its scores"


def left_alone(model: ir.Model) -> dict[str, str]:
    """Operators of other domains as they stand after all steps, by name, and why."""
    nodes = [node for graph in model.graphs() for node in graph if node.domain not in ("", ML)]
    counts = Counter(f"{node.domain}::{node.op_type}" for node in nodes)
    found = {
        operator: f"no step knows the operator, which stands here {count} times" for operator, count in counts.items()
    }
    for node, nbytes in holders(model):
        if node.domain == ML and (nbytes >= TELLING or node.op_type in LINEAR):
            found[named(node)] = f"{nbytes:,} bytes of attributes: {_why(node)}"
    return found


def _why(node: ir.Node) -> str:
    if node.op_type in TREES:
        return f"pack-trees says the same in fewer; {DISTIL}"
    if node.op_type == "TreeEnsemble":
        return f"is packed; {DISTIL}"
    if node.op_type in LINEAR:
        return "a product would take no fewer, or answer otherwise"
    return "no step works on them"
