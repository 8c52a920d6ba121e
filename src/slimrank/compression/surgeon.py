"""Neurons that are missed least: one goes after the other, and those that stay say what it said as well as they can.

A layer that reads neurons is a linear function of them. Of all that could go next the one goes whose loss changes the
layer's outputs least once the other weights have made up for it, in least squares over the rows that were seen: Optimal
Brain Surgeon (Hassibi and Stork 1993), layer by layer (Dong et al. 2017, arXiv 1705.07565), by whole columns. What a
neuron says on average goes into the bias. Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

DAMPING = 0.01  # of the mean variance, added to each: neurons that always say the same have no inverse


class Reader:
    """A linear layer that reads neurons, and what it is to become.

    Args:
        layer: the layer.
        inputs: what it is given [n, in].
        own: those of its inputs that are neurons [m].
        roots: which neuron each of them is [m].
    """

    def __init__(self, layer: nn.Linear, inputs: Tensor, own: Tensor, roots: Tensor):
        self.layer, self.own, self.roots = layer, own, roots
        self.before = layer.weight.detach().double()
        self.weight = self.before.clone()
        wide = inputs.double()
        # Without a bias there is nothing that an average could go into.
        self.mean = wide.mean(dim=0) if layer.bias is not None else torch.zeros_like(wide[0])
        products = (wide - self.mean).T @ (wide - self.mean) / len(wide)
        self.spread = float(((self.before @ products) * self.before).sum().clamp(min=torch.finfo(torch.float32).tiny))
        damping = DAMPING * float(products.diagonal().mean()) or 1.0
        self.inverse = torch.linalg.inv(products + damping * torch.eye(len(products), dtype=products.dtype))
        self.gone = torch.zeros(len(products), dtype=torch.bool)

    def missed(self, width: int) -> Tensor:
        """How much each of `width` neurons would be missed [width]: a share of what its outputs vary by."""
        columns = self.weight[:, self.own].square().sum(dim=0) / self.inverse.diagonal()[self.own]
        return torch.zeros(width, dtype=columns.dtype).index_add_(0, self.roots, columns) / self.spread

    def drop(self, neuron: int) -> None:
        """Let the other inputs stand for a neuron."""
        for column in self.own[self.roots == neuron].tolist():
            row = self.inverse[column] / self.inverse[column, column]
            self.weight -= torch.outer(self.weight[:, column], row)
            self.inverse -= torch.outer(self.inverse[:, column], row)
            self.weight[:, column] = 0.0
            self.inverse[column] = self.inverse[:, column] = 0.0
            self.inverse[column, column] = 1.0
            self.gone[column] = True

    def write(self) -> None:
        """Give the layer, from which the columns are gone, its weights and its bias."""
        self.layer.weight.data = self.weight[:, ~self.gone].to(self.layer.weight)
        if self.layer.bias is not None:
            shift = (self.before - self.weight) @ self.mean
            self.layer.bias.data = (self.layer.bias.detach().double() + shift).to(self.layer.bias)


def least_missed(readers: Sequence[Reader], width: int, count: int) -> Tensor:
    """Which `count` of `width` neurons stay, in order; the readers have made up for the others, and are not written."""
    staying = torch.ones(width, dtype=torch.bool)
    for _ in range(width - count):
        missed = torch.stack([reader.missed(width) for reader in readers]).sum(dim=0)
        neuron = int(torch.where(staying, missed, torch.inf).argmin())
        staying[neuron] = False
        for reader in readers:
            reader.drop(neuron)
    return staying.nonzero().flatten()
