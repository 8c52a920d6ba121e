"""FinalMLP (Mao et al. 2023, arXiv 2304.00902): two MLP streams fused by a multi-head bilinear form."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from slimrank.config import InputError, register
from slimrank.models.architecture import Deep
from slimrank.models.layers import Ranker, row_mlp, row_width, tensor_mlp
from slimrank.tables.embedding import Layout, Row


class FinalMLP(Deep):
    """Two MLPs, each over its own gated view of the row where `gates`, fused by a bilinear form with heads."""

    name: Literal["finalmlp"] = "finalmlp"
    second_hidden: tuple[PositiveInt, ...] = Field(default=(400, 400), min_length=1)
    heads: int = Field(default=1, ge=1)
    gates: bool = False

    @model_validator(mode="after")
    def _heads_divide(self) -> FinalMLP:
        for width in (self.hidden[-1], self.second_hidden[-1]):
            if width % self.heads:
                raise InputError(f"heads must divide the last widths of both streams, got {self.heads} and {width}")
        return self


class Stream(nn.Module):
    """An MLP over the row, or, where it is gated, over row.flat * 2 sigmoid(gate), the gate learned per number."""

    def __init__(self, config: FinalMLP, layout: Layout, hidden: tuple[int, ...]):
        super().__init__()
        width = row_width(layout, config.embedding_dim)
        options = {"dropout": config.dropout, "batch_norm": config.batch_norm}
        self.gate = nn.Parameter(torch.zeros(width)) if config.gates else None
        self.mlp = (
            tensor_mlp(width, hidden, **options)  # type: ignore[arg-type]
            if config.gates
            else row_mlp(layout, config.embedding_dim, hidden, **options)  # type: ignore[arg-type]
        )

    def forward(self, row: Row) -> Tensor:
        inputs = row if self.gate is None else row.flat * (2.0 * torch.sigmoid(self.gate))
        hidden: Tensor = self.mlp(inputs)
        return hidden


class BilinearFusion(nn.Module):
    """b + u . x + v . y + sum over heads of x_h^T W_h y_h: [N]."""

    def __init__(self, left: int, right: int, heads: int):
        super().__init__()
        self.heads = heads
        self.left = nn.Linear(left, 1)
        self.right = nn.Linear(right, 1, bias=False)
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(heads, left // heads, right // heads)))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        left_heads = left.view(left.shape[0], self.heads, -1).transpose(0, 1)
        right_heads = right.view(right.shape[0], self.heads, -1).transpose(0, 1)
        bilinear: Tensor = (torch.bmm(left_heads, self.weight) * right_heads).sum(dim=(0, 2))
        linear: Tensor = self.left(left) + self.right(right)
        return linear.squeeze(1) + bilinear


class FinalMLPModel(Ranker):
    """logit = bilinear fusion of two streams over the row."""

    def __init__(self, config: FinalMLP, layout: Layout):
        super().__init__(config.embed(layout))
        self.first = Stream(config, layout, config.hidden)
        self.second = Stream(config, layout, config.second_hidden)
        self.fusion = BilinearFusion(config.hidden[-1], config.second_hidden[-1], config.heads)

    def score(self, ids: Tensor, row: Row) -> Tensor:
        logit: Tensor = self.fusion(self.first(row), self.second(row))
        return logit


register("model", FinalMLP)(FinalMLPModel)
