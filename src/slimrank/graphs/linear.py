"""Linear models of ai.onnx.ml as products with constants, which steps know: the same answers.

A classifier of two classes is written with the coefficients of both, which are those of one and their negatives: one
column is kept.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import constant, node_before
from slimrank.graphs.attributes import ML, array, text
from slimrank.graphs.chunks import Floats, initializer
from slimrank.graphs.rewriting import take_over

LEAST = 1024  # coefficients from which a product is fewer bytes by more than its nodes take
AFTER = {"NONE": "", "LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax"}


def products_of_linear(graph: ir.Graph) -> list[str]:
    """Exchange the linear models of `graph` that get smaller so; what became of each."""
    found = []
    for node in [node for node in graph if node.domain == ML]:
        made = None
        if array(node, "coefficients", np.float32).size >= LEAST and node.inputs[0] is not None:
            if node.op_type == "LinearClassifier":
                made = _classifier(graph, node)
            elif node.op_type == "LinearRegressor":
                made = _regressor(graph, node)
        if made is not None:
            found.append(f"{node.op_type} {node.name or node.outputs[0].name}: {made}")
    return found


def _regressor(graph: ir.Graph, node: ir.Node) -> str | None:
    targets = node.attributes.get_int("targets", 1)
    weight, bias = _weights(node, targets)
    if weight is None or text(node, "post_transform", "NONE") != "NONE":
        return None
    take_over(node, [_product(graph, node, weight, bias)])
    return _told(weight)


def _classifier(graph: ir.Graph, node: ir.Node) -> str | None:
    labels = labels_of(node)
    after = AFTER.get(text(node, "post_transform", "NONE"))
    if labels is None or after is None or labels.size < 2:
        return None
    weight, bias = _weights(node, labels.size)
    if weight is None or "intercepts" not in node.attributes:  # the runtime counts scores by their intercepts
        return None
    mirrored = labels.size == 2 and bool((weight[:, 0] == -weight[:, 1]).all() and bias[0] == -bias[1])
    if mirrored:
        weight = np.ascontiguousarray(weight[:, 1:])
        score = _product(graph, node, weight, bias[1:])
        both = [node_before(node, "Neg", [score])[0], score]
        score = node_before(node, "Concat", both, axis=1)[0]
    else:
        score = _product(graph, node, weight, bias)
    best = node_before(node, "ArgMax", [score], axis=1, keepdims=0)[0]
    take_over(node, [chosen(node, labels, best), node_before(node, after, [score])[0] if after else score])
    return _told(weight)


def chosen(node: ir.Node, labels: ir.TensorProtocol, places: ir.Value) -> ir.Value:
    """The labels at `places` [N], before the classifier `node`."""
    labels.name = f"{node.outputs[0].name or node.name}.classes"
    assert node.graph is not None
    return node_before(node, "Gather", [initializer(node.graph, labels), places], axis=0)[0]


def labels_of(node: ir.Node) -> ir.TensorProtocol | None:
    """The classes of a classifier, None where it names none."""
    for name in ("classlabels_ints", "classlabels_int64s"):
        if name in node.attributes:
            return ir.tensor(array(node, name, np.int64))
    if "classlabels_strings" in node.attributes:
        return ir.tensor(list(node.attributes["classlabels_strings"].value))
    return None


def _weights(node: ir.Node, outputs: int) -> tuple[Floats | None, Floats]:
    """Coefficients [in, out], None where they are no matrix, and intercepts [out]."""
    flat, bias = array(node, "coefficients", np.float32), array(node, "intercepts", np.float32)
    if flat.size % outputs or bias.size not in (0, outputs):
        return None, bias
    return np.ascontiguousarray(flat.reshape(outputs, -1).T), bias if bias.size else np.zeros(outputs, np.float32)


def _product(graph: ir.Graph, node: ir.Node, weight: Floats, bias: Floats) -> ir.Value:
    x, stem = node.inputs[0], node.name or str(node.outputs[-1].name)
    assert x is not None
    given = node_before(node, "Cast", [x], to=int(ir.DataType.FLOAT))[0]
    found = node_before(node, "MatMul", [given, constant(graph, weight, f"{stem}.coefficients")])[0]
    return node_before(node, "Add", [found, constant(graph, bias, f"{stem}.intercepts")])[0]


def _told(weight: Floats) -> str:
    return f"a product with {weight.shape[0]:,} x {weight.shape[1]:,} coefficients"
