"""Changes of a graph that every step makes: a node for another, a constant that many share."""

from __future__ import annotations

import onnx_ir as ir

from slimrank.exporting.constants import Array, constant


def replace(node: ir.Node, made: ir.Value) -> None:
    """What read the only output of `node` reads `made`, under the same name; `node` goes."""
    old = node.outputs[0]
    name, made.shape, made.type = old.name, old.shape, old.type
    old.replace_all_uses_with(made, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    made.name = name


def shared(graph: ir.Graph, what: str, array: Array) -> ir.Value:
    """A small constant that all lookups share."""
    name = f"slimrank.{what}"
    return graph.initializers[name] if name in graph.initializers else constant(graph, array, name)
