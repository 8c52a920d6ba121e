"""Batch normalisations behind integer layers, folded into the scales and biases of these.

A layer y = t (Q k + c) and a normalisation a y + d are the layer a t (Q k + c + d / (a t)): the codes stay, but for the
sign of a. So ONNX Runtime joins the activation with the layer, and four vectors of floats less are stored. Where the
layer is of floats the exporter has folded it. Left out: an answer of the layer that something else reads too.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import Array, array_of, constant, node_before, producer

MOST = 2.0**30  # steps of a bias: the sum with its products has to fit an int32


def fold_norms(graph: ir.Graph) -> int:
    """Rewrites every BatchNormalization behind the product of an integer layer, in place; how many there were."""
    found = [node for node in graph if node.domain == "" and node.op_type == "BatchNormalization"]
    return sum(_folded(graph, norm) for norm in found)


def _folded(graph: ir.Graph, norm: ir.Node) -> bool:
    gemm = producer(norm.inputs[0], "Gemm")
    if gemm is None or len(gemm.inputs) != 3 or _used(gemm.outputs[0]) != 1:
        return False
    if gemm.attributes.get_int("transB", 0) != 1 or any(_factor(gemm, name) != 1 for name in ("alpha", "beta")):
        return False
    weight, bias = (producer(value, "DequantizeLinear") for value in gemm.inputs[1:])
    change = _affine(norm)
    if weight is None or bias is None or change is None or any(_used(each.outputs[0]) != 1 for each in (weight, bias)):
        return False
    codes, scale = (array_of(value) for value in weight.inputs[:2])
    steps, same = (array_of(value) for value in bias.inputs[:2])
    if codes is None or scale is None or steps is None or same is None or not np.array_equal(scale, same):
        return False
    layer = _layer(codes, scale, steps, *change)
    if layer is None:
        return False
    stored = [constant(graph, each, "normed") for each in layer]
    new_weight = node_before(gemm, "DequantizeLinear", [stored[0], stored[1], *_zero(weight)], axis=0)
    new_bias = node_before(gemm, "DequantizeLinear", [stored[2], stored[1]], axis=0)
    for place, (new, old) in enumerate(((new_weight[0], weight), (new_bias[0], bias)), start=1):
        new.shape, new.type = old.outputs[0].shape, old.outputs[0].type
        gemm.replace_input_with(place, new)
    answer, name = gemm.outputs[0], norm.outputs[0].name  # what a graph gives out keeps its name
    norm.outputs[0].replace_all_uses_with(answer, replace_graph_outputs=True)
    norm.outputs[0].name, answer.name = answer.name, name
    for node in (norm, weight, bias):
        graph.remove(node, safe=True)
    return True


def _affine(norm: ir.Node) -> tuple[Array, Array] | None:
    """a and d of what the normalisation computes, a y + d, in double precision."""
    arrays = [array_of(value) for value in norm.inputs[1:]]
    if any(array is None for array in arrays) or len(norm.outputs) != 1:
        return None
    gain, shift, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    factor = gain / np.sqrt(variance + epsilon)
    return factor, shift - factor * mean


def _layer(codes: Array, scale: Array, steps: Array, factor: Array, shift: Array) -> tuple[Array, Array, Array] | None:
    """Codes [out, in], scales [out] and steps of the bias [out] of both together; None where a bias does not fit."""
    flipped = np.sign(factor)
    size = np.where(flipped == 0, np.maximum(np.abs(shift), 1.0) / MOST, np.abs(factor) * scale)
    bias = flipped * steps + np.round(shift / size)
    if np.abs(bias).max(initial=0) > MOST:
        return None
    return (codes * flipped[:, None]).astype(codes.dtype), size.astype(np.float32), bias.astype(np.int32)


def _zero(weight: ir.Node) -> list[ir.Value]:
    return [value for value in weight.inputs[2:] if value is not None]


def _used(value: ir.Value) -> int:
    return len(value.uses()) + int(value.is_graph_output())


def _factor(node: ir.Node, name: str) -> float:
    return float(node.attributes[name].as_float()) if name in node.attributes else 1.0
