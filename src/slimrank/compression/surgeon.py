"""Neurons that are missed least: one goes after the other, and those that stay say what it said as well as they can.

A layer that reads neurons is a linear function of them. Of all that could go next the one goes whose loss changes the
layer's outputs least once the other weights have made up for it, in least squares over the rows that were seen: Optimal
Brain Surgeon (Hassibi and Stork 1993), layer by layer (Dong et al. 2017, arXiv 1705.07565), by whole columns. What a
neuron says on average goes into the bias. Nothing is trained.

A neuron costs time that grows with the square of the layer's inputs; of more than `ONE_BY_ONE` several go at once, so
that a layer takes about as long as its inverse, and not hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimrank.config import InputError

DAMPING = 0.01  # of variance, added to each input's: neurons that say the same have no inverse
LEAST = 1e-9  # of the mean square, below which an input, or all that a layer says, does not vary
ONE_BY_ONE = 256


@dataclass
class Moments:
    """What a layer is given, as it comes: how often, the sums [in] and the sums of products [in, in], float64."""

    count: int
    sums: Tensor
    products: Tensor

    @classmethod
    def none(cls, width: int) -> Moments:
        """Before the first row."""
        return cls(0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64))

    def add(self, inputs: Tensor) -> None:
        """Count some rows [n, in] in."""
        wide = inputs.double()
        self.count += len(wide)
        self.sums += wide.sum(dim=0)
        self.products.addmm_(wide.T, wide)


class Reader:
    """A linear layer that reads neurons, and what it is to become.

    Args:
        layer: the layer.
        moments: of what it is given.
        own: those of its inputs that are neurons [m].
        roots: which neuron each of them is [m].

    Raises:
        InputError: it was given NaN or infinity.
    """

    def __init__(self, layer: nn.Linear, moments: Moments, own: Tensor, roots: Tensor):
        self.layer, self.own, self.roots = layer, own, roots
        self.before = layer.weight.detach().double()
        self.weight = self.before.clone()
        squares = moments.products / moments.count
        if not bool(torch.isfinite(squares).all()):
            raise InputError("what reads its neurons is given NaN or infinity on the calibration rows")
        # Without a bias there is nothing that an average could go into.
        self.mean = moments.sums / moments.count if layer.bias is not None else torch.zeros_like(moments.sums)
        varying = squares - torch.outer(self.mean, self.mean)
        self.inverse = _inverse(varying, squares.diagonal(), own)
        spread, loud = (
            float(((self.before @ each) * self.before).sum()) for each in (varying, squares.diagonal().diag())
        )
        # Of a layer that always says the same nothing counts.
        self.counts = 1 / spread if spread > LEAST * loud else 0.0
        self.gone = torch.zeros(len(squares), dtype=torch.bool)

    def missed(self, width: int) -> Tensor:
        """How much each of `width` neurons would be missed [width]: a share of what its outputs vary by."""
        found = torch.zeros(width, dtype=torch.float64)
        columns = self.weight[:, self.own].square().sum(dim=0) / self.inverse.diagonal()[self.own]
        found.index_add_(0, self.roots, columns)
        times = torch.bincount(self.roots, minlength=width)
        for neuron in (times > 1).nonzero().flatten().tolist():  # none of its columns can stand in for another
            block = self.own[self.roots == neuron]
            weight = self.weight[:, block]
            found[neuron] = (torch.linalg.solve(self.inverse[block][:, block], weight.T) * weight.T).sum()
        return found * self.counts

    def drop(self, neurons: Tensor) -> None:
        """Let the other inputs stand for some neurons."""
        block = self.own[torch.isin(self.roots, neurons)]
        if not len(block):
            return
        rows = torch.linalg.solve(self.inverse[block][:, block], self.inverse[block])
        self.weight.addmm_(self.weight[:, block], rows, alpha=-1)
        self.inverse.addmm_(self.inverse[:, block], rows, alpha=-1)
        self.weight[:, block] = 0.0
        self.inverse[block] = 0.0
        self.inverse[:, block] = 0.0
        self.inverse[block, block] = 1.0
        self.gone[block] = True

    def write(self) -> None:
        """Give the layer, from which the columns are gone, its weights and its bias."""
        self.layer.weight.data = self.weight[:, ~self.gone].to(self.layer.weight)
        if self.layer.bias is not None:
            shift = (self.before - self.weight) @ self.mean
            self.layer.bias.data = (self.layer.bias.detach().double() + shift).to(self.layer.bias)


def _inverse(varying: Tensor, squares: Tensor, neurons: Tensor) -> Tensor:
    """The inverse of the covariance of inputs, each with damping of its own, whatever its size.

    It is that of the mean of `neurons` at least: those that hardly ever speak would be given large weights to make up
    for others, which few rows show, and few bits do not hold. `squares` are mean squares: what does not vary beside
    these, or never says anything, is given a variance.
    """
    own = varying.diagonal()
    damping = torch.maximum(DAMPING * own.clamp(min=float(own[neurons].mean())), LEAST * squares)
    damping[damping <= 0] = 1.0
    size = (own + damping).clamp(min=torch.finfo(own.dtype).tiny).rsqrt()
    scale = torch.outer(size, size)
    inverse: Tensor = torch.linalg.inv(varying * scale + (damping * size.square()).diag())
    return inverse.mul_(scale)


def least_missed(readers: Sequence[Reader], width: int, count: int) -> Tensor:
    """Which `count` of `width` neurons stay, in order; the readers have made up for the others, and are not written."""
    staying = torch.ones(width, dtype=torch.bool)
    while (left := int(staying.sum()) - count) > 0:
        missed = torch.stack([reader.missed(width) for reader in readers]).sum(dim=0)
        some = min(left, max(1, width // ONE_BY_ONE))
        neurons = torch.where(staying, missed, torch.inf).topk(some, largest=False).indices
        staying[neurons] = False
        for reader in readers:
            reader.drop(neurons)
    return staying.nonzero().flatten()
