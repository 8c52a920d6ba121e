"""Logistic regression: one weight an id, one a number, and a bias."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from slimrank.config import register
from slimrank.models.architecture import Architecture
from slimrank.models.layers import Ranker
from slimrank.tables.embedding import Layout, Row


class LogisticRegression(Architecture):
    """One weight per id and per number."""

    name: Literal["logistic-regression"] = "logistic-regression"
    embedding_dim: Literal[1] = 1


class WeightedSum(nn.Module):
    """bias + sum of the row's weights of ids + weights . numbers: [N]. Vectors have one dimension."""

    def __init__(self, layout: Layout):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.numbers = nn.Linear(layout.numbers, 1, bias=False) if layout.numbers else None

    def forward(self, row: Row) -> Tensor:
        total = row.fields.sum(dim=(1, 2)) + self.bias
        return total if self.numbers is None else total + self.numbers(row.numbers).squeeze(1)


class LogisticRegressionModel(Ranker):
    """logit = bias + sum_f w[id_f] + v . numbers."""

    def __init__(self, config: LogisticRegression, layout: Layout):
        super().__init__(config.embed(layout))
        self.sum = WeightedSum(layout)

    def score(self, ids: Tensor, row: Row) -> Tensor:
        total: Tensor = self.sum(row)
        return total


register("model", LogisticRegression)(LogisticRegressionModel)
