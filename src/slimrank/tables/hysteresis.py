"""Codes with a memory: a weight keeps its code of before until it has moved clearly away from it.

Rounding to the nearest flips the code of a weight that lies half way between two by the smallest change. With a margin
of m steps, and codes as in `affine.py`,

    keep the code c of before  <=>  |clip(value / scale + zero_point, low, high) - c| <= 1/2 + m

A margin of 0 is rounding to the nearest. Left out: where the codes of before come from (`training/stability.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from slimrank.tables.affine import quantize
from slimrank.tables.codes import Codes

HALF = 0.5 + 1e-4  # of a step: a value that lies on an edge but for its rounding in float32 has not moved


def kept(values: Tensor, start: Tensor, scale: Tensor, codes: Codes, margin: float) -> Tensor:
    """Where `values` keep the code of `start`, of the same shape: a mask. `scale` broadcasts."""
    found = (values / scale + codes.zero_point).clamp(codes.low, codes.high)  # beyond the last code there is no other
    return (found - quantize(start, scale, codes)).abs() <= HALF + margin


def settled(values: Tensor, start: Tensor, scale: Tensor, codes: Codes, margin: float) -> Tensor:
    """`values`, but `start` where its code is kept: so plain rounding of the result gives that code."""
    return torch.where(kept(values, start, scale, codes, margin), start, values)


def pulled(values: Tensor, towards: Tensor, by: float) -> Tensor:
    """`values` moved by `by` towards `towards`, at most until they are there (the proximal step of an L1 distance)."""
    away = values - towards
    return towards + away.sign() * (away.abs() - by).clamp(min=0.0)
