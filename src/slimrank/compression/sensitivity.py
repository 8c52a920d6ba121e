"""How much the loss minds an error in a looked-up vector, row by row of a table.

For a logit z with p = sigmoid(z), the cross-entropy rises by about p (1 - p) (dz)**2 / 2 when z is off by dz, whatever
the label. An error e of a looked-up vector moves z by <dz/dv, e>; for errors without a direction the square of that is
|dz/dv|**2 / dim * |e|**2. This is the diagonal of the Fisher information, in expectation over the label: the weight of
quantisation errors in HAWQ-V2 (Dong et al. 2020, arXiv 1911.03852) and, with frequencies, in SHARK (Zhang et al. 2023,
arXiv 2308.09395). Left out: how errors in several vectors of one row add up.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from slimrank.compression.steps import Context
from slimrank.tables.table import Table

CALIBRATION = 1 << 16  # train rows that are looked at
PRIOR = 32.0  # lookups that a pool counts for beside a band's own: a band that is seldom met is like the rest


class Sensitivity(NamedTuple):
    """For every row of a table, over a sample of train rows: sum of p (1 - p) |dz/dv|**2 / dim, and lookups."""

    total: Tensor
    lookups: Tensor

    def of(self, first: int, last: int, pool: float) -> float:
        """The mean over the lookups of rows `first` to `last` - 1, drawn to `pool` where they are few."""
        total, lookups = float(self.total[first:last].sum()), float(self.lookups[first:last].sum())
        return (total + PRIOR * pool) / (lookups + PRIOR)


def sensitivity(model: nn.Module, owner: str, context: Context, rows: int = CALIBRATION) -> Sensitivity:
    """The sensitivity of the table `owner` (dotted) of `model`, on `rows` train rows drawn at random."""
    table = model.get_submodule(owner)
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...], vectors: Tensor) -> Tensor:
        leaf = vectors.detach().requires_grad_()
        seen.append((given[0], leaf))
        return leaf

    assert isinstance(table, Table)
    total, lookups = (torch.zeros(table.num_rows, device=table.starts.device) for _ in range(2))
    training, hook = model.training, table.register_forward_hook(keep)
    try:
        model.eval()
        for answer, weight in context.answers(model, rows):
            if not seen:
                continue  # no vector was asked for
            gradients = torch.autograd.grad(answer, [leaf for _, leaf in seen], weight, allow_unused=True)
            for (ids, _), gradient in zip(seen, gradients, strict=True):
                lookups.index_add_(0, ids.flatten(), torch.ones_like(ids.flatten(), dtype=torch.float32))
                if gradient is not None:
                    known = gradient.nan_to_num(0.0, 0.0, 0.0)  # a score that is not finite tells nothing
                    total.index_add_(0, ids.flatten(), known.square().mean(dim=-1).flatten())
            seen.clear()
    finally:
        hook.remove()
        model.train(training)
    return Sensitivity(total, lookups)
