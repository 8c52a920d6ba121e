"""How often a batch holds each item, estimated while batches go by (Yi et al. 2019, "Sampling-bias-corrected neural
modeling for large corpus item recommendations", algorithm 2).

Items of a batch are its negatives, and popular ones far more often: a loss that does not know that learns to push them
down. The gap between the batches that hold an item, as a moving mean, needs no pass over the data and follows it where
it changes. Left out: the hashes of the paper, since ids are numbers from 0 here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Popularity(nn.Module):
    """`gap` [items]: the moving mean of batches from one that holds an item to the next; `last`: the last that did.

    Every item starts with a gap of `items` batches, which is that of an item that is as rare as items are many.
    """

    gap: Tensor
    last: Tensor
    batch: Tensor

    def __init__(self, items: int, rate: float):
        super().__init__()
        self.rate = rate
        self.register_buffer("gap", torch.full((items,), float(max(items, 1))))
        self.register_buffer("last", torch.zeros(items, dtype=torch.int64))
        self.register_buffer("batch", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def see(self, items: Tensor) -> None:
        """Take note of the items [B] of one batch. A gap moves by `rate` towards the newest; the first is taken whole.

        Of an item met for the first time in batch t the newest gap is t, as it would be had it been met in batch 0.
        """
        self.batch += 1
        own = torch.unique(items)
        newest = (self.batch - self.last[own]).to(torch.float32)
        rate = torch.where(self.last[own] == 0, 1.0, self.rate)
        self.gap[own] += rate * (newest - self.gap[own])
        self.last[own] = self.batch

    def log_share(self, items: Tensor) -> Tensor:
        """The logarithm of the share of batches that hold each of `items` [...]: -log(gap)."""
        return -self.gap[items].log()
