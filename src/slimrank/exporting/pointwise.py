"""Small integer layers as 1 x 1 convolutions over a batch, which ONNX Runtime rounds to bytes as it multiplies.

A layer y = relu(W x + b) on bytes, its output rounded to bytes again, is a convolution over an image of N pixels with a
channel for each input. The numbers are the same to the bit, and the scores with them. ONNX Runtime's Gemm writes 32-bit
sums and rounds them in a second pass, which takes longer than the products where layers are narrow; its convolution
over channels-last bytes rounds them in registers. Measured at 256 rows: 64 x 64 1.4 times as fast, 400 x 400 1.25
times, at one row the same. A batch of no rows is no image: `runtime` answers it without a session. Left out: layers
that give floats, and large ones, whose products outweigh the rounding and for which Gemm uses matrix units where a
processor has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from slimrank.exporting.constants import Array, array_of, constant, node_before, producer

LARGEST = 1 << 15  # weights of a layer
CHANNELS_IN, CHANNELS_OUT = 4, 8  # what the widths must divide by: other ones take the runtime's slow convolution
TO_CHANNELS, FROM_CHANNELS = (0, 3, 1, 2), (0, 2, 3, 1)


@dataclass(frozen=True)
class _Layer:
    """QuantizeLinear(Relu(Gemm(DequantizeLinear(bytes), DequantizeLinear(weight), bias))): its nodes, first to last."""

    inputs: ir.Node
    weight: ir.Node
    gemm: ir.Node
    relu: ir.Node
    quantize: ir.Node
    array: Array


def convolve(graph: ir.Graph) -> int:
    """Rewrites every layer of that form whose widths fit, in place; how many there were."""
    layers = [layer for node in graph if (layer := _layer(node)) is not None]
    for layer in layers:
        _rewrite(graph, layer)
    return len(layers)


def _layer(gemm: ir.Node) -> _Layer | None:
    """The layer around a Gemm, where it is one and its widths fit."""
    if gemm.op_type != "Gemm" or gemm.attributes.get_int("transB", 0) != 1 or len(gemm.inputs) != 3:
        return None
    inputs, weight = (producer(value, "DequantizeLinear") for value in gemm.inputs[:2])
    relu = _only_user(gemm, "Relu")
    quantize = None if relu is None else _only_user(relu, "QuantizeLinear")
    if inputs is None or weight is None or relu is None or quantize is None:
        return None
    stored = weight.inputs[0]
    alone = _only_user(inputs, "Gemm") is not None and _only_user(weight, "Gemm") is not None
    if not alone or stored is None or len(stored.uses()) > 1:
        return None
    array = array_of(stored)
    if array is None or array.size > LARGEST or array.shape[0] % CHANNELS_OUT or array.shape[1] % CHANNELS_IN:
        return None
    scalars = [array_of(value) for node in (inputs, quantize) for value in node.inputs[1:]]
    if any(scalar is None or scalar.size != 1 for scalar in scalars):
        return None
    return _Layer(inputs, weight, gemm, relu, quantize, array)


def _rewrite(graph: ir.Graph, layer: _Layer) -> None:
    """The nodes of `layer`, between bytes as an image and bytes as rows."""
    out, width = layer.array.shape
    image = _as_image(graph, layer.inputs, width)
    kernel, weight, bias = layer.weight.inputs[0], *_rest(layer.gemm)
    assert kernel is not None
    kernel.const_value = ir.tensor(layer.array.reshape(out, width, 1, 1), name=kernel.name)
    kernel.shape = kernel.const_value.shape
    values = node_before(layer.gemm, "DequantizeLinear", [image, *_rest(layer.inputs)])[0]
    product = node_before(layer.gemm, "Conv", [values, weight, bias])[0]
    rectified = node_before(layer.quantize, "Relu", [product])[0]
    codes = node_before(layer.quantize, "QuantizeLinear", [rectified, *_rest(layer.quantize)])[0]
    pixels = node_before(layer.quantize, "Transpose", [codes], perm=FROM_CHANNELS)[0]
    shape = constant(graph, np.array([-1, out], np.int64), "rows_shape")
    rows = node_before(layer.quantize, "Reshape", [pixels, shape])[0]
    old = layer.quantize.outputs[0]
    rows.shape, rows.type = old.shape, old.type
    old.replace_all_uses_with(rows, replace_graph_outputs=True)
    for node in (layer.quantize, layer.relu, layer.gemm, layer.inputs):
        graph.remove(node, safe=True)


def _as_image(graph: ir.Graph, inputs: ir.Node, width: int) -> ir.Value:
    """The bytes that a layer reads as an image [1, width, N, 1], straight from what a Reshape made into rows."""
    rows = inputs.inputs[0]
    reshape = producer(rows, "Reshape")
    source = rows if reshape is None else reshape.inputs[0]
    back = producer(source, "Transpose")
    if back is not None and tuple(back.attributes.get_ints("perm", ())) == FROM_CHANNELS and back.inputs[0] is not None:
        return back.inputs[0]
    assert source is not None
    shape = constant(graph, np.array([1, -1, 1, width], np.int64), "image_shape")
    pixels = node_before(inputs, "Reshape", [source, shape])[0]
    return node_before(inputs, "Transpose", [pixels], perm=TO_CHANNELS)[0]


def _rest(node: ir.Node) -> list[ir.Value]:
    """All inputs but the first."""
    return [value for value in node.inputs[1:] if value is not None]


def _only_user(node: ir.Node, operator: str) -> ir.Node | None:
    """The node that reads the output of `node`, where it is the only one and of that kind."""
    users = [user for user, _ in node.outputs[0].uses()]
    return users[0] if len(users) == 1 and users[0].domain == "" and users[0].op_type == operator else None
