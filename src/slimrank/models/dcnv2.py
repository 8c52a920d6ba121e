"""DCNv2 (Wang et al. 2021, arXiv 2008.13535), the parallel form: cross layers beside an MLP."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from slimrank.config import register
from slimrank.models.architecture import Deep
from slimrank.models.layers import Ranker, row_mlp, row_width
from slimrank.tables.embedding import Layout, Row


class DCNv2(Deep):
    """Cross layers with full matrices beside an MLP."""

    name: Literal["dcnv2"] = "dcnv2"
    cross_layers: int = Field(default=3, ge=1)


class CrossNetwork(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, on vectors [N, width]."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, inputs: Tensor) -> Tensor:
        crossed = inputs
        for layer in self.layers:
            crossed = inputs * layer(crossed) + crossed
        return crossed


class DCNv2Model(Ranker):
    """logit = u . cross(row) + w . MLP(row) + b."""

    def __init__(self, config: DCNv2, layout: Layout):
        super().__init__(config.embed(layout))
        width = row_width(layout, config.embedding_dim)
        self.cross = CrossNetwork(width, config.cross_layers)
        self.mlp = row_mlp(
            layout, config.embedding_dim, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm
        )
        self.out_cross = nn.Linear(width, 1)
        self.out = nn.Linear(config.hidden[-1], 1, bias=False)

    def score(self, ids: Tensor, row: Row) -> Tensor:
        logit: Tensor = self.out_cross(self.cross(row.flat)) + self.out(self.mlp(row))
        return logit.squeeze(1)


register("model", DCNv2)(DCNv2Model)
