"""Integer operations that must become one exact ONNX node each.

In eager mode each is plain arithmetic. While a graph is exported it is a symbolic ONNX operator, since torch's own
translation either changes the operation (a shift of uint8 becomes int8 and does not load) or adds nodes (a clip after
every quantiser), and ONNX Runtime only fuses the exact pattern. Left out: gradients; trainable forms quantise with
`slimrank.tables.affine`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.onnx import is_in_onnx_export

OPSET = 21
Attributes = dict[str, Any]
BYTE_ZERO = 128  # the code of the value zero in a row's unpacked bytes, at every bit width


def quantize_linear(values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """clip(round(values / scale) + zero_point, 0, 255) as uint8, halves to even (ONNX QuantizeLinear).

    `scale` float32 and `zero_point` uint8 are scalars, or vectors along the last dimension of `values` [..., C].
    """
    if is_in_onnx_export():
        inputs = (values, scale, zero_point)
        return _node("QuantizeLinear", inputs, torch.uint8, values, {"axis": values.ndim - 1} if scale.ndim else {})
    codes = torch.round(values / scale) + zero_point
    return codes.clamp(0, 255).to(torch.uint8)


def dequantize_linear(codes: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int = 0) -> Tensor:
    """(codes - zero_point) * scale as float32 (ONNX DequantizeLinear), no zero point being 0.

    `scale` is a scalar, or a vector along `axis`; `zero_point` has its shape and the type of `codes`. Give the zero
    point of activations and weights even where it is 0: ONNX Runtime does not fuse a layer without it.
    """
    if is_in_onnx_export():
        inputs = (codes, scale) if zero_point is None else (codes, scale, zero_point)
        return _node("DequantizeLinear", inputs, torch.float32, codes, {"axis": axis} if scale.ndim else {})
    shape = [1] * codes.ndim
    if scale.ndim:
        shape[axis] = -1
    values = codes.to(torch.float32)
    if zero_point is not None:
        values = values - zero_point.to(torch.float32).reshape(shape)
    return values * scale.reshape(shape)


def unpack_bytes(packed: Tensor, bits: int, dim: int | None = None, *, midrise: bool = False) -> Tensor:
    """Packed rows [..., width] to one byte a dimension [..., dim], each code in the byte's high bits.

    Without `dim` there are as many dimensions as the bytes have room for, width * 8 / bits.

    Byte j of a packed row holds, from its low bits up, dimensions j, j + width, j + 2 width, ... A code c becomes
    c * 2**(8 - bits), so that zero is `BYTE_ZERO` and codes of all widths have one range: under one weight scale,
    narrow codes left in the low bits would need weights far larger than those of 8-bit codes beside them. `midrise`
    codes, whose zero lies between two codes, get the byte in the middle of theirs: c * 2**(8 - bits) + 2**(7 - bits).

    >>> unpack_bytes(torch.tensor([[0x2F]], dtype=torch.uint8), bits=4)
    tensor([[240,  32]], dtype=torch.uint8)
    >>> unpack_bytes(torch.tensor([[0b10]], dtype=torch.uint8), bits=1, midrise=True)
    tensor([[ 64, 192,  64,  64,  64,  64,  64,  64]], dtype=torch.uint8)
    """
    if bits == 8:
        return packed
    high = torch.tensor((2**bits - 1) << (8 - bits), dtype=torch.uint8)
    parts = []
    for left in range(8 - bits, -1, -bits):
        part = shift_left(packed, left) if left else packed
        parts.append(part if left == 8 - bits else torch.bitwise_and(part, high))
    codes = torch.cat(parts, dim=-1)
    if dim is not None and dim < codes.shape[-1]:
        codes = codes[..., :dim]
    return torch.bitwise_or(codes, torch.tensor(1 << (7 - bits), dtype=torch.uint8)) if midrise else codes


def pack_bytes(codes: Tensor, bits: int) -> Tensor:
    """Codes [rows, dim] uint8 side by side in bytes [rows, ceil(dim * bits / 8)], as `unpack_bytes` reads them."""
    each = 8 // bits
    parts = functional.pad(codes, (0, -codes.shape[1] % each)).chunk(each, dim=1)
    packed = parts[0].clone()
    for place, part in enumerate(parts[1:], 1):
        packed |= part << (place * bits)
    return packed


def shift_left(codes: Tensor, by: int) -> Tensor:
    """uint8 shifted towards the high bits, what leaves the byte being dropped (ONNX BitShift)."""
    if is_in_onnx_export():
        amount = torch.tensor(by, dtype=torch.uint8)
        return _node("BitShift", (codes, amount), torch.uint8, codes, {"direction": "LEFT"})
    return torch.bitwise_left_shift(codes, by)


def divide(ids: Tensor, by: Tensor | int) -> Tensor:
    """The whole part of ids / by for ids >= 0 and by > 0, of the type of `ids` (ONNX Div); `by` broadcasts."""
    if is_in_onnx_export():
        return _node("Div", (ids, _like(by, ids)), ids.dtype, ids, {})
    return torch.div(ids, by, rounding_mode="floor")


def modulo(ids: Tensor, by: Tensor | int) -> Tensor:
    """The rest of ids / by for by > 0, never negative, of the type of `ids` (ONNX Mod); `by` broadcasts."""
    if is_in_onnx_export():
        return _node("Mod", (ids, _like(by, ids)), ids.dtype, ids, {})
    return torch.remainder(ids, by)


def _like(value: Tensor | int, ids: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=ids.dtype)


def _node(
    operator: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, like: Tensor, attributes: Attributes
) -> Tensor:
    return torch.onnx.ops.symbolic(operator, inputs, attributes, dtype=dtype, shape=like.shape, version=OPSET)
