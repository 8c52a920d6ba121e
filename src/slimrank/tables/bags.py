"""Bags of vectors, pooled: rows of equal length, or one list that offsets cut into bags of any length.

Both are made of operators that export to standard ONNX: a reduction, or a scatter into one slot a bag. No loop goes
over the bags, and none is padded to the length of the longest. Left out: what is looked up, and what is padding.
"""

from __future__ import annotations

import torch
from torch import Tensor


class EvenBags:
    """Bags as rows: values [B, N, D], N in each bag."""

    def __init__(self, ids: Tensor):
        self.length = ids.shape[1]
        self.device = ids.device

    def total(self, values: Tensor) -> Tensor:
        """The sum of every bag, [B, D]; 0 for an empty one."""
        return values.sum(dim=1)

    def counts(self, kept: Tensor | None) -> Tensor:
        """How many of each bag's values are `kept` [B, N], float32 [B, 1]; without it how many there are, []."""
        if kept is None:
            return torch.tensor(float(self.length), device=self.device)
        return kept.to(torch.float32).sum(dim=1, keepdim=True)

    def most(self, values: Tensor) -> Tensor:
        """The largest value of every bag and dimension, [B, D], with the gradient to the first one; 0 where N = 0."""
        if self.length == 0:
            return values.sum(dim=1)
        return values.max(dim=1).values if values.requires_grad else values.amax(dim=1)


class RaggedBags:
    """Bags as ranges of one list: values [n, D], bag b from offsets[b] until the next bag, the last one to the end.

    With `last` the last offset begins no bag and ends the one before. Slot 0 takes what is before the first offset.
    """

    def __init__(self, ids: Tensor, offsets: Tensor, *, last: bool):
        count, offsets = ids.shape[0], offsets.to(torch.int64)
        begins = torch.zeros(count + 1, dtype=torch.int64, device=ids.device)
        self.slot = begins.index_add(0, offsets, torch.ones_like(offsets)).cumsum(dim=0)[:count]
        self.slots = offsets.shape[0] + 1
        self.stop = self.slots - last

    def total(self, values: Tensor) -> Tensor:
        """The sum of every bag, [B, D]; 0 for an empty one."""
        return values.new_zeros(self.slots, values.shape[1]).index_add(0, self.slot, values)[1 : self.stop]

    def counts(self, kept: Tensor | None) -> Tensor:
        """How many of each bag's values are `kept` [n], or how many there are: float32 [B, 1]."""
        ones = torch.ones_like(self.slot) if kept is None else kept
        return self.total(ones.to(torch.float32).unsqueeze(1))

    def most(self, values: Tensor) -> Tensor:
        """The largest value of every bag and dimension, [B, D], with the gradient to the first one; empty ones: any."""
        slot = self.slot.unsqueeze(1).expand(-1, values.shape[1])
        lowest = values.new_full((self.slots, values.shape[1]), -torch.inf)
        largest = lowest.scatter_reduce(0, slot, values.detach(), "amax")
        if values.requires_grad:
            largest = _at_first(values, largest, slot)
        return largest[1 : self.stop]


def _at_first(values: Tensor, largest: Tensor, slot: Tensor) -> Tensor:
    """`largest` [slots, D], read from the first of `values` [n, D] that has it; 0 for a slot without values.

    The gradient of `scatter_reduce` would be shared by ties; torch's bags give it to the first.
    """
    count = len(values)
    order = torch.arange(count, device=values.device).unsqueeze(1).expand_as(values)
    found = (values.detach() == largest.gather(0, slot)) | values.detach().isnan()
    place = torch.where(found, order, count)
    first = torch.full_like(largest, count, dtype=torch.int64).scatter_reduce(0, slot, place, "amin")
    return torch.cat([values, torch.zeros_like(largest[:1])]).gather(0, first)
