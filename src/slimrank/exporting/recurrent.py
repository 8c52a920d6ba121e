"""Weights of recurrent layers that are stored as bytes, in a form that ONNX Runtime turns to floats once, at load.

ONNX Runtime keeps every DequantizeLinear for products of integers, which the operator GRU has not: it would work on all
weights in each run. A cast and a product are folded. Left out: the folding, which ONNX Runtime does.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import array_of, constant, node_before, producer

WEIGHTS = (1, 2)  # inputs of the operator: W and R


def dequantize_at_load(graph: ir.Graph) -> int:
    """Rewrites what dequantises the weights of every GRU, in place; how many there were."""
    count = 0
    for node in [node for node in graph if node.domain == "" and node.op_type == "GRU"]:
        for place in WEIGHTS:
            shaped = producer(node.inputs[place], "Unsqueeze", "Reshape")
            source = producer(shaped.inputs[0] if shaped is not None else None, "DequantizeLinear")
            if source is not None:
                count += _rewritten(graph, source)
    return count


def _rewritten(graph: ir.Graph, source: ir.Node) -> bool:
    codes, scale = source.inputs[0], array_of(source.inputs[1])
    assert codes is not None
    assert scale is not None
    column = constant(graph, np.asarray(scale).reshape(-1, 1), "scale")
    values = node_before(source, "Cast", [codes], to=int(ir.DataType.FLOAT))
    product = node_before(source, "Mul", [*values, column])[0]
    product.shape, product.type = source.outputs[0].shape, source.outputs[0].type
    source.outputs[0].replace_all_uses_with(product)
    graph.remove(source, safe=True)
    return True
