"""GRU4Rec (Hidasi et al. 2016, arXiv 1511.06939): one recurrent layer over what a user met, and the item that follows.

The item table gives the inputs and, with the last state, the scores: it is stored once. Left out: sessions side by side
in a batch, and the losses of sampled pairs; a place's loss is the softmax over the catalogue, or over drawn items.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from slimrank.config import register
from slimrank.models.architecture import Architecture
from slimrank.models.layers import ByteDropout, SequenceEncoder, by_row, trimmed
from slimrank.models.recurrent import Recurrence
from slimrank.tables.embedding import Layout


class GRU4Rec(Architecture):
    """A recurrent layer of `hidden` numbers over a sequence of items; None: as many as an item's vector has.

    Where they differ, a linear layer brings the state to the width of an item's vector.
    """

    name: Literal["gru4rec"] = "gru4rec"
    embedding_dim: int = Field(default=64, ge=1)
    embedding_std: float = Field(default=0.1, gt=0)
    hidden: PositiveInt | None = None
    dropout: float = Field(default=0.2, ge=0, lt=1)


@register("model", GRU4Rec)
class GRU4RecModel(SequenceEncoder):
    """vector = A h + b, with h the state after the last item of the history; A and b only where widths differ."""

    def __init__(self, config: GRU4Rec, layout: Layout):
        super().__init__(config.embed(layout))
        dim = config.embedding_dim
        width = config.hidden or dim
        self.dropout = ByteDropout(config.dropout)
        self.recurrence = Recurrence(dim, width)
        self.project = None if width == dim else nn.Linear(width, dim)

    def states(self, met: Tensor) -> Tensor:
        """[N, L', D]: the state after each place of `met` [N, L], up to the longest history."""
        return self._projected(self.recurrence(self._vectors(trimmed(met))))

    def encode(self, met: Tensor) -> Tensor:
        """[N, D]: the state after the last item; that of no item where there is none."""
        last = self.recurrence.last(self._vectors(met), (met != 0).sum(dim=1))
        return self._projected(last.unsqueeze(1)).squeeze(1)

    def _vectors(self, met: Tensor) -> Tensor:
        """Vectors [N, L, D] of items, 0 at padding."""
        dropped: Tensor = self.dropout(self.item_vectors(met)) * (met != 0).unsqueeze(2).to(torch.float32)
        return dropped

    def _projected(self, states: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(states)
        return dropped if self.project is None else by_row(self.project, dropped)
