"""Optimisers: Adam for what is dense; for large tables, updates that cost the batch and not the table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from slimrank.tables.table import Table


class RowAdagrad(Optimizer):
    """Row-wise Adagrad on sparse gradients: one sum of squares a row (as in FBGEMM's EXACT_ROWWISE_ADAGRAD).

        s_r += mean_d g_rd^2        w_r -= lr * g_r / (sqrt(s_r) + eps)

    State is 4 bytes a row; rows that the batch does not hold are not touched.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, eps: float = 1e-8):
        super().__init__(params, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if not self.state[weight]:
                    self.state[weight]["sum"] = torch.zeros(len(weight), device=weight.device)
                self._update(weight, self.state[weight]["sum"], group["lr"], group["eps"])

    @staticmethod
    def _update(weight: Tensor, total: Tensor, lr: float, eps: float) -> None:
        gradient = weight.grad.coalesce()  # type: ignore[union-attr]
        rows, values = gradient.indices()[0], gradient.values()
        sums = total.index_select(0, rows) + values.square().mean(dim=1)
        total.index_copy_(0, rows, sums)
        weight.index_add_(0, rows, values / (sums.sqrt() + eps).unsqueeze(1), alpha=-lr)


def optimizers(
    model: nn.Module,
    *,
    learning_rate: float,
    sparse_learning_rate: float,
    sparse: Literal["adagrad", "adam"],
    weight_decay: float,
) -> list[Optimizer]:
    """One optimiser for the dense parameters and, where there are tables with sparse gradients, one for those.

    Weights of dense layers and tables decay; biases, scales and gates do not, nor do tables with sparse gradients,
    whose decay would cost the table.

    Each group of parameters keeps its learning rate as `peak`, of which a schedule takes fractions.
    """
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Table)
        for parameter in module.sparse_parameters()
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    dense = [p for p in trained if id(p) not in tables]
    large = [p for p in trained if id(p) in tables]
    chosen: list[Optimizer] = []
    if dense:
        matrices, vectors = ([p for p in dense if (p.dim() >= 2) == wanted] for wanted in (True, False))
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        filled = [group for group in groups if group["params"]]
        chosen.append(torch.optim.AdamW(filled, lr=learning_rate, fused=True))
    if large:
        kind = RowAdagrad if sparse == "adagrad" else torch.optim.SparseAdam
        chosen.append(kind(large, lr=sparse_learning_rate))
    for group in (group for optimizer in chosen for group in optimizer.param_groups):
        group["peak"] = group["lr"]
    return chosen


def one_cycle(progress: float, warm_up: float, start: float = 0.04, end: float = 4e-6) -> float:
    """The factor on the peak learning rate after a fraction `progress` of the steps (Smith 2018, arXiv 1803.09820).

    Half a cosine from `start` up to 1 at `warm_up`, half a cosine down to `end`; both defaults are PyTorch's.

    >>> [round(one_cycle(x, warm_up=0.3), 2) for x in (0.0, 0.3, 1.0)]
    [0.04, 1.0, 0.0]
    """
    rising = progress < warm_up
    first, last = (start, 1.0) if rising else (1.0, end)
    part = progress / warm_up if rising else (progress - warm_up) / (1.0 - warm_up)
    return last + (first - last) * (1.0 + math.cos(math.pi * part)) / 2.0
