"""Dense layers in the forms that ONNX Runtime multiplies in integers, and never turns back to floats.

A product of two axes is a Gemm with a bias of int32, any other a MatMul with what follows it. A Gemm with a bias of
floats is computed in floats, its weight dequantised in each run, and so is a MatMul of two axes before an addition, of
which the runtime makes such a Gemm. The same befalls a product straight before a Relu or Clip whose result is not
rounded to bytes: these become Max and Min, which are the same and are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from slimrank.exporting.constants import array_of, constant, node_before
from slimrank.graphs.chunks import Floats
from slimrank.graphs.layers import Layer
from slimrank.graphs.rewriting import replace, shared
from slimrank.graphs.rounding import range_scales, rounded_together
from slimrank.tables.codes import WEIGHT_CODES, Codes

NIBBLES = Codes(-7, 7, 0)
BIAS_STEPS = 2.0**24  # a bias is at most this many steps: exact in float32, far from the end of int32


@dataclass(frozen=True)
class Inputs:
    """k = clip(round(x / step) + zero, 0, 255); `step` is a scalar, or one a column [in]."""

    step: Floats
    zero: int


@dataclass(frozen=True)
class Packed:
    """A layer in integers: y = scale * step * (Q (k - zero) + bias); `weight` Q is [in, out], `scale` [out] float32.

    Steps of columns are in Q, and `step` is then 1.
    """

    weight: NDArray[np.int8]
    scale: Floats
    bias: NDArray[np.int32] | None
    step: Floats


def packed(weight: Floats, bias: Floats | None, inputs: Inputs, products: NDArray[np.float64] | None = None) -> Packed:
    """`weight` [in, out] and `bias` [out] in integers, for inputs that become bytes so.

    With `products` [in, in], the means of products of what the integers multiply, weights are nibbles, rounded so that
    their errors cancel.
    """
    step = np.ones((), np.float32) if inputs.step.ndim else inputs.step.astype(np.float32)
    folded = weight * inputs.step.reshape(-1, 1) if inputs.step.ndim else weight
    if products is None:
        scale = np.abs(folded).max(axis=0) / np.float32(WEIGHT_CODES.high)
    else:
        scale = range_scales(folded, NIBBLES, products)
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (np.float32(BIAS_STEPS) * step))
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    if products is None:
        codes = np.clip(np.round(folded / scale), WEIGHT_CODES.low, WEIGHT_CODES.high).astype(np.int8)
    else:
        codes = rounded_together(folded, scale, NIBBLES, products)
    return Packed(codes, scale, None if bias is None else np.round(bias / (scale * step)).astype(np.int32), step)


@dataclass
class Products:
    """What puts layers in place in `graph`. Layers that read one value share its bytes, and those of one weight its."""

    graph: ir.Graph
    rounded: dict[tuple[str, bytes, int], ir.Value] = field(default_factory=dict)

    def put_in_place(
        self, layer: Layer, weight: Floats, inputs: Inputs, rank: int, products: NDArray[np.float64] | None
    ) -> str:
        """Exchange `layer`, whose inputs have `rank` axes, for its product in integers; the name of its integers.

        `products` are those of `packed`.
        """
        joined = rank == 2
        found, anchor = packed(weight, layer.bias if joined else None, inputs, products), layer.node
        turned = layer.turned and joined
        codes = self._constant(found.weight.T if turned else found.weight, f"{layer.name}_codes")
        scales = self._constant(found.scale, f"{layer.name}_scales")
        zeros = shared(self.graph, f"zeros_{len(found.scale)}", np.zeros(len(found.scale), np.int8))
        given = [self._rounded(layer, inputs, found.step)]
        given += node_before(anchor, "DequantizeLinear", [codes, scales, zeros], axis=0 if turned else 1)
        if not joined:
            replace(layer.node, node_before(anchor, "MatMul", given)[0])
            return str(codes.name)
        if found.bias is not None:
            bias = self._constant(found.bias, f"{layer.name}_bias")
            steps = self._constant(found.scale * found.step, f"{layer.name}_bias_scales")
            given += node_before(anchor, "DequantizeLinear", [bias, steps], axis=0)
        replace(layer.last, node_before(anchor, "Gemm", given, transB=int(turned))[0])
        return str(codes.name)

    def _constant(self, array: NDArray[np.generic], name: str) -> ir.Value:
        """A constant of that content; layers of one weight have most in common."""
        known = self.graph.initializers.get(name)
        held = array_of(known)
        if known is not None and held is not None and np.array_equal(held, array):
            return known
        return constant(self.graph, array, name)

    def _rounded(self, layer: Layer, inputs: Inputs, step: Floats) -> ir.Value:
        """The inputs of a layer after they were bytes."""
        key = str(layer.inputs.name), inputs.step.tobytes(), inputs.zero
        if key not in self.rounded:
            users = {user for user, _ in layer.inputs.uses()}
            anchor = next((node for node in self.graph if node in users), layer.node)
            values = layer.inputs
            if inputs.step.ndim:
                columns = constant(self.graph, inputs.step, f"{layer.name}_columns")
                values = node_before(anchor, "Div", [values, columns])[0]
            scale = constant(self.graph, step, f"{layer.name}_step")
            zero = shared(self.graph, f"zero_{inputs.zero}", np.array(inputs.zero, np.uint8))
            codes = node_before(anchor, "QuantizeLinear", [values, scale, zero])[0]
            self.rounded[key] = node_before(anchor, "DequantizeLinear", [codes, scale, zero])[0]
        return self.rounded[key]


def keep_integer(graph: ir.Graph) -> None:
    """Relu and Clip straight after a product in integers become Max and Min where nothing rounds them."""
    for node in [node for node in graph if node.domain == "" and node.op_type in ("Relu", "Clip")]:
        product = node.inputs[0].producer() if node.inputs[0] is not None else None
        if product is None or not _is_integer(product) or _is_rounded(node):
            continue
        bounds = (
            [shared(graph, "zero", np.zeros((), np.float32)), None] if node.op_type == "Relu" else list(node.inputs[1:])
        )
        found = node.inputs[0]
        for operator, bound in zip(("Max", "Min"), bounds, strict=False):
            if bound is not None and found is not None:
                found = node_before(node, operator, [found, bound])[0]
        if found is not None and found is not node.inputs[0]:
            replace(node, found)


def _is_integer(node: ir.Node) -> bool:
    """Whether a node is a product whose weight is dequantised."""
    weight = node.inputs[1].producer() if len(node.inputs) > 1 and node.inputs[1] is not None else None
    product = node.domain == "" and node.op_type in ("MatMul", "Gemm")
    return product and weight is not None and weight.op_type == "DequantizeLinear"


def _is_rounded(node: ir.Node) -> bool:
    """Whether all that reads the output of a node is one QuantizeLinear."""
    users = [user for user, _ in node.outputs[0].uses()]
    alone = len(users) == 1 and users[0].op_type == "QuantizeLinear"
    return alone and not node.outputs[0].is_graph_output()
