"""DLRM (Naumov et al. 2019, arXiv 1906.00091): dot products of all pairs of vectors between two MLPs."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from slimrank.config import InputError, register
from slimrank.models.architecture import Deep
from slimrank.models.layers import Ranker, tensor_mlp
from slimrank.tables.embedding import Layout, Row


class DLRM(Deep):
    """Pairwise dot products of vectors; numbers become one of the vectors through an MLP of their own."""

    name: Literal["dlrm"] = "dlrm"
    bottom: tuple[PositiveInt, ...] = (64,)


class DLRMModel(Ranker):
    """logit = w . MLP([numbers' vector, dots of all pairs]) + b; without numbers, of the dots alone."""

    def __init__(self, config: DLRM, layout: Layout):
        super().__init__(config.embed(layout))
        self.bottom = tensor_mlp(layout.numbers, (*config.bottom, config.embedding_dim)) if layout.numbers else None
        vectors = len(layout.names) + bool(layout.numbers)
        if vectors < 2:
            raise InputError("model dlrm multiplies pairs of vectors, and these rows have one: take dnn")
        pairs = vectors * (vectors - 1) // 2
        lower = torch.tril_indices(vectors, vectors, offset=-1)
        self.pairs: Tensor
        self.register_buffer("pairs", lower[0] * vectors + lower[1], persistent=False)
        width = pairs + (config.embedding_dim if layout.numbers else 0)
        self.mlp = tensor_mlp(width, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm)
        self.out = nn.Linear(config.hidden[-1], 1)

    def score(self, ids: Tensor, row: Row) -> Tensor:
        vectors, parts = row.fields, []
        if self.bottom is not None:
            bottom: Tensor = self.bottom(row.numbers)
            vectors = torch.cat([bottom.unsqueeze(1), vectors], dim=1)
            parts.append(bottom)
        dots = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
        parts.append(dots.index_select(1, self.pairs))
        logit: Tensor = self.out(self.mlp(torch.cat(parts, dim=1))).squeeze(1)
        return logit


register("model", DLRM)(DLRMModel)
