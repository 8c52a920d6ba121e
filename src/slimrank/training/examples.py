"""Rows as tensors on the training device, batches by index: no worker processes, no copy of what stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from slimrank.data.rows import Rows

SCORED_AT_ONCE = 1 << 15  # rows scored at a time outside training


@dataclass(frozen=True)
class Examples:
    """N rows: `ids` [N, K] int32, `numbers` [N, M] and `label` [N] float32, and, to distil, `teacher` [N] logits."""

    ids: Tensor
    numbers: Tensor
    label: Tensor
    teacher: Tensor | None = None

    @classmethod
    def of(cls, rows: Rows, device: torch.device | str = "cpu") -> Examples:
        """The rows' arrays as tensors; on the CPU they share memory with the arrays."""
        arrays = (rows.inputs.ids, rows.inputs.numbers, rows.label)
        writable = (np.require(array, requirements=["C", "W"]) for array in arrays)
        ids, numbers, label = (torch.from_numpy(array).to(device) for array in writable)
        return cls(ids, numbers, label)

    def __len__(self) -> int:
        return len(self.label)

    def with_teacher(self, logit: Tensor | None) -> Examples:
        """The same rows with the teacher's logits [N], or without."""
        return replace(self, teacher=None if logit is None else logit.to(self.label.device))

    def to(self, device: torch.device | str) -> Examples:
        """The same rows on `device`."""
        teacher = None if self.teacher is None else self.teacher.to(device)
        ids, numbers, label = (column.to(device) for column in (self.ids, self.numbers, self.label))
        return Examples(ids, numbers, label, teacher)

    def take(self, index: Tensor) -> Examples:
        """The rows of `index`, in its order."""
        teacher = None if self.teacher is None else self.teacher.index_select(0, index)
        ids, numbers, label = (column.index_select(0, index) for column in (self.ids, self.numbers, self.label))
        return Examples(ids, numbers, label, teacher)

    def batches(self, size: int, seed: int, epoch: int) -> Iterator[Examples]:
        """All rows once, `size` at a time, in an order that `seed` and `epoch` alone decide.

        The last batch may be smaller, or larger by one row.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self), generator=generator).to(self.label.device)
        starts = list(range(0, len(self), size))
        if len(starts) > 1 and len(self) - starts[-1] == 1:
            starts.pop()  # one row alone has no variance for batch normalisation: it joins the batch before
        for start, stop in pairwise([*starts, len(self)]):
            yield self.take(order[start:stop])


def training_device() -> torch.device:
    """Where models are trained: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def score(model: nn.Module, examples: Examples) -> np.ndarray:
    """Logits [N] float32 of all rows, in evaluation mode; the model's mode is put back."""
    training = model.training
    model.eval()
    starts = range(0, len(examples), SCORED_AT_ONCE)
    parts = [model(examples.ids[s : s + SCORED_AT_ONCE], examples.numbers[s : s + SCORED_AT_ONCE]) for s in starts]
    model.train(training)
    logits = torch.cat(parts).to("cpu", torch.float32) if parts else torch.zeros(0)
    return logits.numpy()
