"""Dense layers in 8-bit integers: a trainable form with quantisers in the loop, and a packed form that is exported.

With input codes k = clip(round(x / s) + z, 0, 255), s and z scalars or one per input column, a layer y = W x + b is

    y = t * (Q (k - z) + b / t) = t * (Q k + c),    Q = clip(round(W diag(s) / t), -64, 64),    c = round(b / t) - Q z

with t, one per output, the largest |W diag(s)| over 64. So the scales of the inputs are folded into the weights and
their zero points into the bias, both without error, and a runtime multiplies unsigned bytes by signed bytes, whatever
table or activation they come from. Unsigned times signed because only that pair is fast on x86-64 (S8S8 and U8
weights are not); 64 because up to there no processor overflows (`WEIGHT_CODES`). Jacob et al. 2018, arXiv 1712.05877.
Left out: choosing which layers; that is a step's work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from slimrank.config import InputError
from slimrank.models.size import sparse_bytes
from slimrank.tables.affine import (
    fake_quantize,
    quantize,
    round_through,
)
from slimrank.tables.codes import WEIGHT_CODES, Codes, affine_from_range
from slimrank.tables.integer import BYTE_ZERO, dequantize_linear, quantize_linear
from slimrank.tables.ranges import squared_error_scale
from slimrank.tables.table import Table

NIBBLE = 8  # weights below it are stored two a byte
BIAS_STEPS = 2.0**24  # a bias is at most this many steps: exact in float32, far from the end of int32


class InputQuantizer(nn.Module, ABC):
    """What turns a layer's inputs [N, columns] into unsigned bytes."""

    zero_point: int

    @abstractmethod
    def steps(self) -> Tensor:
        """The value of one code: float32, a scalar, or [columns]."""

    @abstractmethod
    def forward(self, values: Tensor) -> Tensor:
        """`values` as they are after quantisation, with gradients."""


class ActivationQuantizer(InputQuantizer):
    """Quantiser with a learned scale [1], or [columns] where the columns have sizes of their own (numbers do)."""

    def __init__(self, scale: Tensor, zero_point: int):
        super().__init__()
        self.log_scale = nn.Parameter(scale.detach().reshape(-1).log())
        self.zero_point = zero_point
        self.codes = Codes(0, 255, zero_point)

    @classmethod
    def calibrated(cls, values: Tensor, *, per_column: bool = False) -> ActivationQuantizer:
        """The quantiser with the least squared error on `values` [N, columns], a sample of the layer's inputs.

        Values that are never negative get the whole byte (zero point 0).

        Raises:
            InputError: `values` is empty, or holds NaN or infinity.
        """
        if not values.numel() or not bool(torch.isfinite(values).all()):
            raise InputError("calibration needs at least one row of inputs, without NaN or infinity")
        values = values.detach().to(torch.float32)
        zero_point = affine_from_range(float(values.min()), float(values.max()))[1]
        if per_column and zero_point:
            zero_point = BYTE_ZERO
        codes = Codes(0, 255, zero_point)
        groups = values.T if per_column else values.reshape(1, -1)
        return cls(squared_error_scale(groups, codes), zero_point)

    def get_extra_state(self) -> Tensor:
        """The zero point: it is no parameter, and yet a part of what is saved."""
        return torch.tensor(self.zero_point)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over a saved zero point."""
        self.zero_point = int(state)
        self.codes = Codes(0, 255, self.zero_point)

    def steps(self) -> Tensor:
        return self.log_scale.exp().squeeze()

    def forward(self, values: Tensor) -> Tensor:
        return fake_quantize(values, self.log_scale.exp(), self.codes)


class TableQuantizer(InputQuantizer):
    """No quantiser at all: the inputs are rows of a quantised table, and already lie on its grid.

    `fields` holds the field of each looked-up column. In the exported graph the bytes feed the product as they are.
    The table is not a submodule (it belongs to the embedding), yet a deep copy of the model keeps the tie.
    """

    zero_point = BYTE_ZERO

    def __init__(self, table: Table, fields: Sequence[int]):
        super().__init__()
        self.source = (table,)
        self.fields = tuple(fields)

    def steps(self) -> Tensor:
        table = self.source[0]
        steps = table.steps(self.fields)
        assert steps is not None
        return steps.repeat_interleave(table.dim)

    def forward(self, values: Tensor) -> Tensor:
        return values


class QuantizedLinear(nn.Module):
    """Trainable form: float weights, rounded as they are used; straight-through gradients. [N, in] to [N, out]."""

    def __init__(self, weight: Tensor, bias: Tensor | None, inputs: InputQuantizer, codes: Codes = WEIGHT_CODES):
        super().__init__()
        self.codes = codes
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.inputs = inputs

    def forward(self, values: Tensor) -> Tensor:
        steps = self.inputs.steps().detach()
        folded = self.weight * steps
        scale = output_scales(folded.detach(), self.bias, self.codes)
        # Nothing is clipped, since the scale comes from the largest weight: rounding is all that is left to do.
        weight = round_through(folded / scale.unsqueeze(1)) * scale.unsqueeze(1) / steps
        bias = None if self.bias is None else round_through(self.bias / scale) * scale
        return functional.linear(self.inputs(values), weight, bias)

    def pack(self) -> PackedLinear:
        """The packed form of the layer as it is now."""
        return PackedLinear(self)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed form, zeros of the weight stored sparse where that is less, and 4 bits two a byte."""
        packed = self.pack()
        whole = packed.weight.numel() if self.codes.high >= NIBBLE else (packed.weight.numel() + 1) // 2
        return packed.nbytes - packed.weight.numel() + min(whole, sparse_bytes(packed.weight))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, int8"


def output_scales(folded: Tensor, bias: Tensor | None, codes: Codes = WEIGHT_CODES) -> Tensor:
    """t [out], the value of one product of codes: from W diag(s) [out, in] and the bias that has to fit as well.

    >>> output_scales(torch.tensor([[64.0, -128.0], [0.0, 0.0]]), None)
    tensor([2., 1.])
    """
    scale = folded.abs().amax(dim=1) / codes.high
    if bias is not None:
        scale = torch.maximum(scale, bias.detach().abs() / BIAS_STEPS)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


class PackedLinear(nn.Module):
    """Packed form: `weight` [out, in] int8, `bias` [out] int32, `scale` [out] float32, the inputs' step and zero."""

    weight: Tensor
    weight_zero: Tensor
    bias: Tensor
    scale: Tensor
    step: Tensor
    step_zero: Tensor
    one: Tensor
    zero: Tensor

    def __init__(self, source: QuantizedLinear):
        super().__init__()
        self.out_features, self.in_features = source.out_features, source.in_features
        steps = source.inputs.steps().detach()
        scale = output_scales(source.weight.detach() * steps, source.bias, source.codes)
        weight = quantize(source.weight.detach() * steps, scale.unsqueeze(1), source.codes)
        bias = torch.zeros_like(scale) if source.bias is None else torch.round(source.bias.detach() / scale)
        bias = bias.to(torch.int64) - source.inputs.zero_point * weight.to(torch.int64).sum(dim=1)
        self.register_buffer("weight", weight.to(torch.int8))
        self.register_buffer("weight_zero", torch.zeros_like(scale, dtype=torch.int8), persistent=False)
        self.register_buffer("bias", bias.to(torch.int32))
        self.register_buffer("scale", scale)
        self.register_buffer("step", steps.clone())
        self.register_buffer("step_zero", torch.full_like(steps, source.inputs.zero_point, dtype=torch.uint8))
        self.register_buffer("one", torch.ones((), device=scale.device), persistent=False)
        self.register_buffer("zero", torch.zeros((), dtype=torch.uint8, device=scale.device), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """[..., in] float32 to [..., out] float32; in a graph always rows of one matrix, which integers multiply."""
        codes = quantize_linear(values.flatten(0, -2) if values.dim() > 2 else values, self.step, self.step_zero)
        weight = dequantize_linear(self.weight, self.scale, self.weight_zero)
        out = functional.linear(
            dequantize_linear(codes, self.one, self.zero), weight, dequantize_linear(self.bias, self.scale)
        )
        return out.view(*values.shape[:-1], self.out_features) if values.dim() > 2 else out

    def pack(self) -> PackedLinear:
        """Itself."""
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of weights, bias, scales and zero points."""
        stored = (self.weight, self.weight_zero, self.bias, self.scale, self.step, self.step_zero)
        return sum(tensor.numel() * tensor.element_size() for tensor in stored)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.nbytes} bytes"
