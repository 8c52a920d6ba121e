"""Affine quantisation, the one place where its arithmetic stands.

    code  = clip(round(value / scale + fraction) + whole, low, high)
    value = (code - zero_point) * scale,    zero_point = whole + fraction

Rounding is to the nearest, halves to even, as in ONNX QuantizeLinear. A zero point of n + 1/2 puts zero between two
codes (a midrise quantiser): then no code is spent on zero, and with one bit there are two values of opposite sign.
Training uses the straight-through estimator for rounding and, for a learned scale, the gradient of LSQ (Esser et al.
2020, arXiv 1902.08153). A learned scale is kept as its logarithm: it stays positive, and a step of Adam changes it by
a share of itself, whatever its size, which makes LSQ's own balancing of gradients needless. Jacob et al. 2018, arXiv
1712.05877, for the scheme. How scales are chosen stands in `ranges.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from slimrank.tables.codes import Codes


def quantize(values: Tensor, scale: Tensor | float, codes: Codes) -> Tensor:
    """Codes of `values` as float32 integers, same shape; `scale` broadcasts."""
    steps = values / scale
    if isinstance(codes.zero_point, Tensor) or codes.fraction:
        steps += codes.fraction
    return steps.round_().add_(codes.zero_point - codes.fraction).clamp_(codes.low, codes.high)


def dequantize(codes: Tensor, scale: Tensor | float, zero_point: Tensor | float) -> Tensor:
    """Values of `codes`, float32, same shape; `scale` and `zero_point` broadcast."""
    return (codes.to(torch.float32) - zero_point) * scale


def round_through(values: Tensor) -> Tensor:
    """Round to the nearest integer, halves to even; its gradient is that of the identity."""
    return values + values.round().sub_(values).detach()


@torch.no_grad()
def round_stochastic(values: Tensor) -> Tensor:
    """One of the two integers around each value, the upper one with probability value - lower: unbiased."""
    lower = values.floor()
    return lower.add_(torch.rand_like(values) < values - lower)


def fake_quantize(values: Tensor, scale: Tensor, codes: Codes, *, stochastic: bool = False) -> Tensor:
    """`dequantize(quantize(values))` with gradients for `values` (straight through, 0 where clipped) and `scale` (LSQ).

    d/dscale of an unclipped value is round(v/s) - v/s; of a clipped one, its bound. With `stochastic` rounding is at
    random and unbiased.
    """
    return on_grid(values, scale, codes.negative, codes.positive, codes.fraction, stochastic=stochastic)


def on_grid(
    values: Tensor,
    scale: Tensor,
    negative: float | Tensor,
    positive: float | Tensor,
    fraction: float | Tensor,
    *,
    stochastic: bool = False,
) -> Tensor:
    """`fake_quantize` with so many steps below and above zero, which may be tensors that broadcast like `scale`."""
    found: Tensor = _OnGrid.apply(values, scale, negative, positive, fraction, stochastic)  # type: ignore[no-untyped-call]
    return found


class _OnGrid(torch.autograd.Function):
    """What it computes stands in `fake_quantize`; done at once, it takes half the passes over memory.

    With r the rounded steps and m whether a value is within the bounds: d/dvalue = m, d/dscale = r - m * value / scale.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, scale: Tensor, negative: Any, positive: Any, fraction: Any, stochastic: bool
    ) -> Tensor:
        steps = values / scale
        within = steps.clamp(-negative, positive)
        inside = within == steps
        if isinstance(fraction, Tensor) or fraction:
            within += fraction
        rounded = round_stochastic(within) if stochastic else within.round_()
        if isinstance(fraction, Tensor) or fraction:
            rounded -= fraction
        if ctx.needs_input_grad[1]:
            # Filled and not multiplied: outside the bounds steps may be infinite, and infinity times 0 is NaN.
            ctx.save_for_backward(inside, rounded - steps.masked_fill_(~inside, 0.0))
            ctx.shape = scale.shape
        else:
            ctx.save_for_backward(inside)
        return rounded.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inside, *errors = ctx.saved_tensors
        of_scale = (gradients[0] * errors[0]).sum_to_size(ctx.shape) if errors else None
        return gradients[0] * inside, of_scale, None, None, None, None
