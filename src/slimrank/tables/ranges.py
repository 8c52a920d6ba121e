"""Which scale, and which zero point, a group of values is quantised with.

Values come as [groups, n], a scale for each group, and the groups of a chunk are searched side by side. Weights, where
given, say how much the squared error of a value counts. Left out: scales that are learned; they start from these.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slimrank.tables.affine import dequantize, quantize
from slimrank.tables.codes import Codes

NARROWEST = 0.1  # of the whole range: how far a search goes
MOST_SHIFT = 8192.0  # steps: up to it float16 holds a zero shift to two of them


def range_scale(values: Tensor, codes: Codes) -> Tensor:
    """The smallest scale at which no value is clipped, [groups]; 1 where all values of `values` [groups, n] are 0.

    Where there are no codes on one side of zero, values on that side are clipped and do not count.
    """
    if not values.shape[1]:
        return values.new_ones(len(values))
    above = values.amax(dim=1).clamp_(min=0) / (codes.positive or torch.inf)
    below = -values.amin(dim=1).clamp_(max=0) / (codes.negative or torch.inf)
    scale = torch.maximum(above, below)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def squared_error(values: Tensor, scale: Tensor, codes: Codes, weights: Tensor | None = None) -> Tensor:
    """Sum of weight * (value after quantisation - value)**2 over each group: [groups], of `values` [groups, n]."""
    scale = scale.unsqueeze(1)
    errors = dequantize(quantize(values, scale, codes), scale, codes.zero_point).sub_(values).square_()
    return (errors if weights is None else errors * weights).sum(dim=1)


def squared_error_scale(values: Tensor, codes: Codes, weights: Tensor | None = None, *, candidates: int = 48) -> Tensor:
    """The scale [groups], among fractions of `range_scale`, with the least squared error on `values` [groups, n].

    At few bits clipping the rare large values costs less than coarse steps for all others (Guan et al. 2019, arXiv
    1911.02079). The best fraction is then moved to the best scale for the codes that it gives, which can only help;
    with one bit, where codes are signs, that is twice the mean size of a value.
    """
    widest = range_scale(values, codes)
    best, least = widest, torch.full_like(widest, torch.inf)
    for fraction in torch.linspace(1.0, NARROWEST, candidates).tolist():
        scale = widest * fraction
        error = squared_error(values, scale, codes, weights)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return _fitted_scale(values, best, codes, weights)


def _fitted_scale(values: Tensor, scale: Tensor, codes: Codes, weights: Tensor | None) -> Tensor:
    """The scale with the least squared error for the codes that `scale` gives: <codes, values> / <codes, codes>."""
    steps = quantize(values, scale.unsqueeze(1), codes).sub_(codes.zero_point)
    weighted = steps if weights is None else steps * weights
    fitted = (weighted * values).sum(dim=1) / (weighted * steps).sum(dim=1)
    return torch.where(torch.isfinite(fitted) & (fitted > 0), fitted, scale)


def affine_grid(minimum: Tensor, maximum: Tensor, bits: int, *, whole: bool) -> tuple[Tensor, Tensor]:
    """Scale and zero point, both [groups], of the ranges [minimum, maximum]; the scale is 1 where all values are 0.

    With `whole` the range holds zero and the zero point is an integer, so that zero is exact.
    """
    if whole:
        minimum, maximum = minimum.clamp(max=0.0), maximum.clamp(min=0.0)
    # Of a group of one and the same value the only code is 0, and the value minus the zero point's steps.
    width = torch.where(maximum > minimum, maximum - minimum, minimum.abs())
    scale = torch.where(width > 0, width / (2**bits - 1), torch.ones_like(width))
    zero_point = -minimum / scale
    return scale, zero_point.round() if whole else zero_point


def near_zero(scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero shift [groups], steps being wider where values lie more than `MOST_SHIFT` of them from zero.

    There float16 rounds the shift by more than the codes can make up for, and holds none above 65504.

    >>> [found.tolist() for found in near_zero(torch.tensor([0.5, 0.25]), torch.tensor([3.0, -32768.0]))]
    [[0.5, 1.0], [3.0, -8192.0]]
    """
    wider = (shift.abs() / MOST_SHIFT).clamp(min=1.0)
    return scale * wider, shift / wider


def squared_error_range(
    values: Tensor, bits: int, weights: Tensor | None = None, *, whole: bool = False, bins: int = 32
) -> tuple[Tensor, Tensor]:
    """Scale and zero point of the range, inside that of `values` [groups, n], with the least squared error.

    The greedy search of Guan et al. 2019: of a step of 1 / `bins` of the range from below and one from above, the one
    that leaves the smaller error is taken, again and again, and the best range on the way is kept. Unless zero has to
    be exact (`whole`), the scale and zero point are then the best for the codes that it gives.
    """
    low, high = values.amin(dim=1), values.amax(dim=1)
    step = (high - low) / bins

    def tried(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale, zero_point = affine_grid(low, high, bits, whole=whole)
        codes = Codes(0, 2**bits - 1, zero_point.unsqueeze(1))
        return scale, zero_point, squared_error(values, scale, codes, weights)

    scale, zero_point, least = tried(low, high)
    for _ in range(round(bins * (1 - NARROWEST))):
        raised, lowered = tried(low + step, high), tried(low, high - step)
        up = raised[2] <= lowered[2]
        low, high = torch.where(up, low + step, low), torch.where(up, high, high - step)
        error = torch.minimum(raised[2], lowered[2])
        better = error < least
        scale = torch.where(better, torch.where(up, raised[0], lowered[0]), scale)
        zero_point = torch.where(better, torch.where(up, raised[1], lowered[1]), zero_point)
        least = torch.where(better, error, least)
    return (scale, zero_point) if whole else _fitted_line(values, scale, zero_point, bits, weights)


def _fitted_line(
    values: Tensor, scale: Tensor, zero_point: Tensor, bits: int, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scale and zero point with the least squared error for the codes that the given ones give: a regression line."""
    codes = quantize(values, scale.unsqueeze(1), Codes(0, 2**bits - 1, zero_point.unsqueeze(1)))
    share = torch.ones_like(values) if weights is None else weights
    share = share / share.sum(dim=1, keepdim=True)
    mean, mean_code = (share * values).sum(dim=1), (share * codes).sum(dim=1)
    codes = codes.sub_(mean_code.unsqueeze(1))
    slope = (share * codes * values).sum(dim=1) / (share * codes).mul_(codes).sum(dim=1)
    fits = torch.isfinite(slope) & (slope > 0)
    return torch.where(fits, slope, scale), torch.where(fits, mean_code - mean / slope, zero_point)
