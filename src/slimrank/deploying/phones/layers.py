"""Layers: rounding, and products, of integers where an artifact's are. See `values.Scaled`, which goes between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.deploying.phones.values import INTEGERS, MissingError, Node, Scaled, Value, operand, tensor


def _along(values: NDArray[Any], axis: int, ndim: int) -> NDArray[Any]:
    """Numbers of an axis, so that they are broadcast along it."""
    return values if values.size == 1 else values.reshape([-1 if each == axis % ndim else 1 for each in range(ndim)])


def dequantizelinear(node: Node, given: list[Value]) -> Scaled:
    """Integers and their scale, which is put off until something asks for numbers."""
    import torch

    if node.attributes.get("block_size"):
        raise MissingError("operator DequantizeLinear by blocks")
    x, scale = tensor(given[0]).to(torch.float32), given[1]
    axis = node.attributes.get("axis", 1)
    if len(given) > 2 and given[2] is not None and (given[2] != 0).any():
        x = x - operand(_along(given[2].astype(np.float32), axis, x.ndim))
    return Scaled(x, _along(scale, axis, x.ndim))


def quantizelinear(node: Node, given: list[Value]) -> Any:
    """Numbers rounded to their grid; of a product the two scales are divided first, as ONNX Runtime does."""
    import torch

    x, scale = given[0], given[1]
    if not node.integers:
        raise MissingError("operator QuantizeLinear to something else than 8 or 16 bits")
    ndim = (x.integers if isinstance(x, Scaled) else x).ndim
    axis = node.attributes.get("axis", 1)
    if isinstance(x, Scaled):
        x = x.integers * operand((x.scale / _along(scale, axis, ndim)).astype(np.float32))
    elif not (scale == 1).all():
        x = tensor(x) / operand(_along(scale, axis, ndim))
    x = torch.round(tensor(x))
    if len(given) > 2 and given[2] is not None and (given[2] != 0).any():
        x = x + operand(_along(given[2].astype(np.float32), axis, ndim))
    return torch.clamp(x, *map(float, INTEGERS[node.integers]))


def _product(a: Value, b: Value, run: Callable[[Any, Any], Any]) -> Value:
    """What `run` makes of two factors: of their integers where the first has one scale and both are scaled."""
    if isinstance(a, Scaled) and isinstance(b, Scaled) and a.is_even:
        scale = np.float32(a.scale.reshape(())) * b.scale
        return Scaled(run(a.integers, b.integers), scale)
    return run(tensor(a), tensor(b))


def _added(product: Value, bias: Value) -> Value:
    """A bias to a product: to its integers where it has their scale."""
    if bias is None:
        return product
    scaled = isinstance(product, Scaled) and isinstance(bias, Scaled)
    if scaled and np.allclose(product.scale, bias.scale, rtol=1e-6, atol=0):
        return Scaled(product.integers + bias.integers, product.scale)
    return tensor(product) + tensor(bias)


def _turned(value: Value, turned: int) -> Value:
    if not turned:
        return value
    if isinstance(value, Scaled):
        return Scaled(value.integers.T, value.scale.T if value.scale.ndim == 2 else value.scale)
    return tensor(value).T


def matmul(node: Node, given: list[Value]) -> Value:
    """A product, of integers where both factors are and the second has a scale by column."""
    a, b = given
    if isinstance(b, Scaled) and not b.is_even and (b.scale.ndim < 2 or b.scale.shape[-2] != 1):
        b = b.whole()
    return _product(a, b, lambda x, y: x @ y)


def gemm(node: Node, given: list[Value]) -> Value:
    """A dense layer with its bias."""
    attributes = node.attributes
    if attributes.get("alpha", 1.0) != 1 or attributes.get("beta", 1.0) != 1:
        raise MissingError("operator Gemm with alpha or beta")
    a, b = _turned(given[0], attributes.get("transA", 0)), _turned(given[1], attributes.get("transB", 0))
    return _added(matmul(node, [a, b]), given[2] if len(given) > 2 else None)


def conv(node: Node, given: list[Value]) -> Value:
    """A convolution of one place, which is a product, as int8 layers are written; no other is in a ranking model."""
    x, weight = given[0], given[1] if isinstance(given[1], Scaled) else tensor(given[1])
    kernel = (weight.integers if isinstance(weight, Scaled) else weight).shape
    plain = set(node.attributes.get("strides", [1])) == {1} and not any(node.attributes.get("pads", [0]))
    if node.attributes.get("group", 1) != 1 or any(size != 1 for size in kernel[2:]) or not plain:
        raise MissingError("operator Conv with a kernel of more than one place")
    if (x.integers if isinstance(x, Scaled) else x).shape[0] != 1:
        raise MissingError("operator Conv of more than one image")

    def run(image: Any, kernels: Any) -> Any:
        flat = kernels.reshape(kernel[:2]) @ image.reshape(kernel[1], -1)  # litert's products of four axes are refused
        return flat.reshape(1, kernel[0], *image.shape[2:])

    spread = [1, -1, *(1 for _ in kernel[2:])]
    if isinstance(weight, Scaled) and not weight.is_even:
        weight = Scaled(weight.integers, weight.scale.reshape(spread))
    found, bias = _product(x, weight, run), given[2] if len(given) > 2 else None
    if isinstance(bias, Scaled):
        bias = Scaled(bias.integers.reshape(spread), bias.scale if bias.is_even else bias.scale.reshape(spread))
    elif bias is not None:
        bias = tensor(bias).reshape(spread)
    return _added(found, bias)
