"""Dense layers whose weights are stored in bfloat16: half the bytes, and the arithmetic stays that of float32.

bfloat16 keeps the sign, the exponent and 7 of 23 bits of the mantissa, so that a weight changes by at most 1/256 of
itself. Where integers cost too much quality, this costs next to none; nothing gets faster.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class RoundedLinear(nn.Module):
    """Trainable form: float weights, rounded as they are used; straight-through gradients. [N, in] to [N, out]."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, values: Tensor) -> Tensor:
        rounded = rounded_to_bfloat16(self.weight.detach())
        return functional.linear(values, self.weight + (rounded - self.weight).detach(), self.bias)

    def pack(self) -> PackedRoundedLinear:
        """The packed form of the layer as it is now."""
        return PackedRoundedLinear(self)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed form."""
        return self.pack().nbytes

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bfloat16"


class PackedRoundedLinear(nn.Module):
    """Packed form: `weight` [out, in] float32 with the values of bfloat16, which is what the graph stores it in."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, source: RoundedLinear):
        super().__init__()
        self.register_buffer("weight", rounded_to_bfloat16(source.weight.detach()))
        self.register_buffer("bias", None if source.bias is None else source.bias.detach().clone())

    def forward(self, values: Tensor) -> Tensor:
        """[N, in] float32 to [N, out] float32."""
        return functional.linear(values, self.weight, self.bias)

    @property
    def nbytes(self) -> int:
        """Bytes of weights and bias."""
        return 2 * self.weight.numel() + (0 if self.bias is None else 4 * self.bias.numel())


def rounded_to_bfloat16(values: Tensor) -> Tensor:
    """The nearest bfloat16 of every value, as float32.

    >>> rounded_to_bfloat16(torch.tensor([1.0, 1.0 + 2**-9, 1.0 + 2**-7])).tolist()
    [1.0, 1.0, 1.0078125]
    """
    return values.to(torch.bfloat16).to(torch.float32)
