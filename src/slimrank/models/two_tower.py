"""Two towers (Yi et al. 2019; Covington et al. 2016, "Deep neural networks for YouTube recommendations").

The query tower reads all fields, the mean of the history's vectors among them, and numbers; the item tower reads the
item's own vector, which it shares with the history. Each ends in a vector; their product is the score. Left out: the
order of the history (see the sequence models).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from slimrank.config import register
from slimrank.models.architecture import Architecture
from slimrank.models.layers import row_mlp, tensor_mlp
from slimrank.models.towers import Towers, TowersEncoder
from slimrank.tables.embedding import Layout

SMALL = 1e-12  # keeps a vector of zeros one; as a least value, since the exporter drops what adds less than 1e-8


class TwoTower(Towers, Architecture):
    """A tower of dense layers over the query's fields and history, and one over the item.

    `hidden` and `item_hidden` are the widths of their layers before the vector of `vector_dim` numbers. `normalised`
    makes every vector one of length 1, so that scores are cosines; a loss then needs a temperature well below 1.
    """

    name: Literal["two-tower"] = "two-tower"
    embedding_dim: int = Field(default=64, ge=1)
    embedding_std: float = Field(default=0.1, gt=0)
    hidden: tuple[PositiveInt, ...] = Field(default=(128,), min_length=1)
    item_hidden: tuple[PositiveInt, ...] = Field(default=(128,), min_length=1)
    vector_dim: PositiveInt = 64
    dropout: float = Field(default=0.0, ge=0, lt=1)
    normalised: bool = True


class TwoTowerEncoder(TowersEncoder):
    """vector = W MLP(row) + b on both sides, of length 1 where `normalised`."""

    def __init__(self, config: TwoTower, layout: Layout):
        catalogue = config.field_of(layout, "two-tower")
        super().__init__(config.embed(layout), catalogue, config.popularity_rate)
        dim = config.embedding_dim
        self.normalised = config.normalised
        self.query_mlp = row_mlp(layout, dim, config.hidden, dropout=config.dropout, batch_norm=False)
        self.query_out = nn.Linear(config.hidden[-1], config.vector_dim)
        self.item_mlp = tensor_mlp(dim, config.item_hidden, dropout=config.dropout)
        self.item_out = nn.Linear(config.item_hidden[-1], config.vector_dim)

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        if numbers is None:
            numbers = ids.new_zeros((ids.shape[0], 0)).float()
        return self._finished(self.query_out(self.query_mlp(self.embedding(ids, numbers))))

    def items(self, ids: Tensor) -> Tensor:
        return self._finished(self.item_out(self.item_mlp(self.item_rows(ids))))

    def _finished(self, vectors: Tensor) -> Tensor:
        if not self.normalised:
            return vectors
        squares: Tensor = vectors.square().sum(dim=1, keepdim=True)
        return vectors * torch.rsqrt(squares.clamp(min=SMALL))


register("model", TwoTower)(TwoTowerEncoder)
