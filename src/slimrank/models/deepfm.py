"""DeepFM (Guo et al. 2017, arXiv 1703.04247): logistic regression, factorisation machine and MLP, added."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from slimrank.config import register
from slimrank.models.architecture import Deep
from slimrank.models.layers import Ranker, row_mlp
from slimrank.models.logistic_regression import WeightedSum
from slimrank.tables.embedding import Layout, Row


class DeepFM(Deep):
    """First-order weights, pairwise products of vectors, and an MLP."""

    name: Literal["deepfm"] = "deepfm"


class DeepFMModel(Ranker):
    """logit = first order + 1/2 sum_d ((sum_f v_fd)^2 - sum_f v_fd^2) + w . MLP(row)."""

    def __init__(self, config: DeepFM, layout: Layout):
        super().__init__(config.embed(layout))
        self.weights = config.embed(layout, dim=1)
        self.first_order = WeightedSum(layout)
        self.mlp = row_mlp(
            layout, config.embedding_dim, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm
        )
        self.out = nn.Linear(config.hidden[-1], 1, bias=False)

    def score(self, ids: Tensor, row: Row) -> Tensor:
        first: Tensor = self.first_order(self.weights(ids, row.numbers))
        deep: Tensor = self.out(self.mlp(row)).squeeze(1)
        return first + factorization_machine(row.fields) + deep


def factorization_machine(vectors: Tensor) -> Tensor:
    """Sum of the inner products of all pairs of a row's vectors: [N, fields, dim] to [N] (Rendle 2010, eq. 5).

    >>> import torch
    >>> factorization_machine(torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]))
    tensor([67.])
    """
    return 0.5 * (vectors.sum(dim=1).square() - vectors.square().sum(dim=1)).sum(dim=1)


register("model", DeepFM)(DeepFMModel)
