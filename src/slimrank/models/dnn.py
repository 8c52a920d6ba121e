"""DNN: an MLP over the row, the shape that most students take, since everything in it can be integer."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from slimrank.config import register
from slimrank.models.architecture import Deep
from slimrank.models.layers import Ranker, row_mlp
from slimrank.tables.embedding import Layout, Row


class DNN(Deep):
    """An MLP over all vectors and numbers side by side."""

    name: Literal["dnn"] = "dnn"


class DNNModel(Ranker):
    """logit = w . MLP(row) + b."""

    reads_linearly = True

    def __init__(self, config: DNN, layout: Layout):
        super().__init__(config.embed(layout))
        self.mlp = row_mlp(
            layout, config.embedding_dim, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm
        )
        self.out = nn.Linear(config.hidden[-1], 1)

    def score(self, ids: Tensor, row: Row) -> Tensor:
        logit: Tensor = self.out(self.mlp(row)).squeeze(1)
        return logit


register("model", DNN)(DNNModel)
