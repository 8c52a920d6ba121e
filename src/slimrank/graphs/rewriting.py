"""Changes of a graph that every step makes: a node for another, a constant that many share."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from slimrank.exporting.constants import Array, constant


def replace(node: ir.Node, made: ir.Value) -> None:
    """What read the only output of `node` reads `made`, under the same name; `node` goes."""
    take_over(node, [made])


def take_over(node: ir.Node, made: Sequence[ir.Value]) -> None:
    """What read the outputs of `node` reads `made`, under the same names; `node` goes."""
    names = [old.name for old in node.outputs]
    for old, new in zip(node.outputs, made, strict=True):
        new.shape, new.type = old.shape, old.type
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    for name, new in zip(names, made, strict=True):
        new.name = name or None  # an output that nobody asks for has none


def shared(graph: ir.Graph, what: str, array: Array) -> ir.Value:
    """A small constant that all lookups share."""
    name = f"slimrank.{what}"
    return graph.initializers[name] if name in graph.initializers else constant(graph, array, name)
