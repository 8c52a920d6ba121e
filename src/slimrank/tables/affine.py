"""Affine quantisation, the one place where its arithmetic stands.

    code  = clip(round(value / scale) + zero_point, low, high)
    value = (code - zero_point) * scale

Rounding is to the nearest, halves to even, as in ONNX QuantizeLinear. Training uses the straight-through
estimator for rounding and, for a learned scale, the gradient of LSQ (Esser et al. 2020, arXiv 1902.08153). A learned
scale is kept as its logarithm: it stays positive, and a step of Adam changes it by a share of itself, whatever its
size, which makes LSQ's own balancing of gradients needless. Jacob et al. 2018, arXiv 1712.05877, for the scheme.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Codes(NamedTuple):
    """The integers that a quantiser may use: `low` to `high`, both included, and the code of the value zero."""

    low: int
    high: int
    zero_point: int

    @classmethod
    def unsigned(cls, bits: int) -> Codes:
        """0 to 2**bits - 1 with zero in the middle: what tables store.

        >>> Codes.unsigned(4)
        Codes(low=0, high=15, zero_point=8)
        """
        return cls(0, 2**bits - 1, 2 ** (bits - 1))

    @property
    def negative(self) -> int:
        """How many steps lie below zero."""
        return self.zero_point - self.low

    @property
    def positive(self) -> int:
        """How many steps lie above zero."""
        return self.high - self.zero_point


WEIGHT_CODES = Codes(-127, 127, 0)


def quantize(values: Tensor, scale: Tensor | float, codes: Codes) -> Tensor:
    """Codes of `values` as float32 integers, same shape; `scale` broadcasts."""
    return torch.round(values / scale).add_(codes.zero_point).clamp_(codes.low, codes.high)


def dequantize(codes: Tensor, scale: Tensor | float, zero_point: Tensor | int) -> Tensor:
    """Values of `codes`, float32, same shape; `scale` and `zero_point` broadcast."""
    return (codes.to(torch.float32) - zero_point) * scale


def affine_from_range(minimum: float, maximum: float, bits: int = 8) -> tuple[float, int]:
    """Scale and zero point of an unsigned affine quantiser whose range holds [minimum, maximum] and zero.

    Zero has a code of its own, so that padding and ReLU are exact. A range of no width gives scale 1.

    >>> affine_from_range(0.0, 255.0)
    (1.0, 0)
    >>> affine_from_range(-1.0, 1.0, bits=2)
    (0.6666666666666666, 2)
    """
    low, high = min(minimum, 0.0), max(maximum, 0.0)
    levels = 2**bits - 1
    scale = (high - low) / levels or 1.0
    return scale, min(max(round(-low / scale), 0), levels)


def range_scale(values: Tensor, codes: Codes) -> Tensor:
    """The smallest scale at which no value is clipped, a scalar; 1 where all values are 0.

    Where there are no codes on one side of zero, values on that side are clipped and do not count.
    """
    above = values.amax().clamp(min=0) / (codes.positive or torch.inf)
    below = -values.amin().clamp(max=0) / (codes.negative or torch.inf)
    scale = torch.maximum(above, below)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def squared_error_scale(values: Tensor, codes: Codes, candidates: int = 48) -> Tensor:
    """The scale, among fractions of `range_scale`, with the least squared error (Guan et al. 2019, arXiv 1911.02079).

    At few bits clipping the rare large values costs less than coarse steps for all others.
    """
    widest = range_scale(values, codes)
    scales = widest * torch.linspace(1.0, 0.1, candidates, device=values.device)
    errors = [(dequantize(quantize(values, s, codes), s, codes.zero_point) - values).square().sum() for s in scales]
    return scales[int(torch.stack(errors).argmin())]


def round_through(values: Tensor) -> Tensor:
    """Round to the nearest integer, halves to even; its gradient is that of the identity."""
    return values + (values.round() - values).detach()


def fake_quantize(values: Tensor, scale: Tensor, codes: Codes) -> Tensor:
    """`dequantize(quantize(values))` with gradients for `values` (straight through, 0 where clipped) and `scale` (LSQ).

    d/dscale of an unclipped value is round(v/s) - v/s; of a clipped one, its bound.
    """
    steps = (values / scale).clamp(-codes.negative, codes.positive)
    return round_through(steps) * scale
