"""Which scale values are quantised with, in numpy: the arithmetic of `tables/affine.py` and `tables/ranges.py`.

Graphs are compressed where torch is not installed. A test holds both to the same scales and codes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimrank.graphs.chunks import Floats
from slimrank.tables.codes import Codes

NARROWEST, CANDIDATES = 0.1, 48


def quantize(values: Floats, scale: Floats | float, codes: Codes) -> Floats:
    """Codes of `values` as float32 integers, halves to even: clip(round(v / s + fraction) + whole, low, high)."""
    zero, fraction = float(codes.zero_point), float(codes.fraction)
    steps = np.divide(values, scale, dtype=np.float32)
    if fraction:
        steps += np.float32(fraction)
    np.round(steps, out=steps)
    steps += np.float32(zero - fraction)
    return np.clip(steps, codes.low, codes.high, out=steps)


def dequantized(values: Floats, scale: Floats | float, codes: Codes) -> Floats:
    """`values` after they were quantised."""
    found: Floats = (quantize(values, scale, codes) - np.float32(float(codes.zero_point))) * scale
    return found


def range_scale(values: Floats, codes: Codes) -> Floats:
    """The smallest scale at which no value of `values` [groups, n] is clipped: [groups], 1 where all are 0."""
    above = np.maximum(values.max(axis=1, initial=0), 0) / np.float32(float(codes.positive) or np.inf)
    below = np.maximum(-values.min(axis=1, initial=0), 0) / np.float32(float(codes.negative) or np.inf)
    scale = np.maximum(above, below)
    return np.where(scale > 0, scale, np.float32(1)).astype(np.float32)


def squared_error_scale(values: Floats, codes: Codes, weights: Floats | None = None) -> Floats:
    """The scale [groups], among fractions of `range_scale`, with the least squared error on `values` [groups, n].

    `weights` [groups, n] say how much the squared error of a value counts. The best fraction is then moved to the best
    scale for the codes that it gives.
    """
    widest = range_scale(values, codes)
    best, least = widest.copy(), np.full(len(widest), np.inf, np.float32)
    for fraction in np.linspace(1.0, NARROWEST, CANDIDATES, dtype=np.float32):
        scale = widest * fraction
        errors = np.square(dequantized(values, scale[:, None], codes) - values)
        error = (errors if weights is None else errors * weights).sum(axis=1)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    steps = quantize(values, best[:, None], codes) - np.float32(float(codes.zero_point))
    weighted = steps if weights is None else steps * weights
    with np.errstate(divide="ignore", invalid="ignore"):
        fitted = (weighted * values).sum(axis=1) / (weighted * steps).sum(axis=1)
    return np.where(np.isfinite(fitted) & (fitted > 0), fitted, best).astype(np.float32)


def found_scale(values: Floats, codes: Codes, how: str, weights: Floats | None = None) -> Floats:
    """The scale [groups] of `values` [groups, n] that `range` "max" or "squared-error" asks for."""
    return range_scale(values, codes) if how == "max" else squared_error_scale(values, codes, weights)


def pack_bytes(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Codes [rows, dim] side by side in bytes [rows, ceil(dim * bits / 8)].

    Byte j of a row holds, from its low bits up, dimensions j, j + width, j + 2 width, ... as in `tables/integer.py`.

    >>> pack_bytes(np.array([[1, 2, 3]], np.uint8), 4)
    array([[49,  2]], dtype=uint8)
    """
    each = 8 // bits
    parts = np.split(np.pad(codes, ((0, 0), (0, -codes.shape[1] % each))), each, axis=1)
    packed: NDArray[np.uint8] = parts[0].copy()
    for place, part in enumerate(parts[1:], 1):
        packed |= part << np.uint8(place * bits)
    return packed
