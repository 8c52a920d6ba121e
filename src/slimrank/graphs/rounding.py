"""Weights of few bits, rounded so that their errors cancel in what a layer answers.

Rounded each to its nearest, 15 values leave a layer 20 decibels or so. Input by input, the error of what was rounded is
taken up by the weights of the inputs still to come, as far as these go together (GPTQ, Frantar et al. 2022, arXiv
2210.17323). Weights that are 0 stay 0. Needs the products of the inputs, [in, in]: nothing of the size of the rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimrank.graphs.chunks import Floats
from slimrank.tables.codes import Codes

DAMPING = 0.01  # of the mean square of the inputs, added to each: inputs that say nothing have no inverse
FRACTIONS = np.linspace(0.5, 1.0, 21)  # of the largest weight, as the end of the range


def range_scales(weight: Floats, codes: Codes, products: NDArray[np.float64]) -> Floats:
    """The scale [out] of each output with the least squared error, each input counting as its mean square.

    Args:
        weight: [in, out].
        codes: the integers there are, as many below 0 as above.
        products: means of products of inputs [in, in].
    """
    counts = np.diagonal(products)[:, None]
    best = np.full(weight.shape[1], np.inf)
    found = np.ones(weight.shape[1])
    for fraction in FRACTIONS:
        scale = fraction * np.abs(weight).max(axis=0) / codes.high
        scale = np.where(scale > 0, scale, 1.0)
        rounded = np.clip(np.round(weight / scale), codes.low, codes.high) * scale
        error = (counts * (weight - rounded) ** 2).sum(axis=0)
        found, best = np.where(error < best, scale, found), np.minimum(error, best)
    return found.astype(np.float32)


def rounded_together(weight: Floats, scale: Floats, codes: Codes, products: NDArray[np.float64]) -> NDArray[np.int8]:
    """The integers [in, out] of `weight`, with `scale` [out], inputs of large mean squares first."""
    order = np.argsort(-np.diagonal(products), kind="stable")
    damping = DAMPING * float(np.diagonal(products).mean()) or 1.0
    inverse = np.linalg.inv(products[np.ix_(order, order)] + damping * np.eye(len(products)))
    upper = np.linalg.cholesky(inverse).T
    left = weight[order].astype(np.float64)
    zeros = left == 0
    found = np.zeros(weight.shape, np.int8)
    for place, row in enumerate(order):
        integers = np.clip(np.round(left[place] / scale), codes.low, codes.high)
        integers[zeros[place]] = 0
        found[row] = integers
        error = (left[place] - integers * scale) / upper[place, place]
        left[place + 1 :] -= np.outer(upper[place, place + 1 :], error)
    return found
