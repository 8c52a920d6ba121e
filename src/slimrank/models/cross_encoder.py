"""Cross-encoder: the body of the text encoder reads a query and a document together, and gives one logit for the pair.

Slower than comparing vectors, since nothing can be computed ahead, and better: it orders the few documents that a
faster model found, or teaches that model (Nogueira and Cho 2019, arXiv 1901.04085).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from slimrank.config import register
from slimrank.models.layers import Ranker
from slimrank.models.text_encoder import TextBody, TextModel
from slimrank.tables.embedding import Layout


class CrossEncoder(TextBody):
    """A BERT-shaped reader of pairs of texts, with one logit a pair."""

    name: Literal["cross-encoder"] = "cross-encoder"
    segments: Literal[1, 2] = 2


class CrossEncoderModel(TextModel, Ranker):
    """logit = w . tanh(P s + p) + b, with s the state of the first token."""

    def __init__(self, config: CrossEncoder, layout: Layout):
        super().__init__(config, layout)
        self.pool = nn.Linear(config.embedding_dim, config.embedding_dim)
        self.out = nn.Linear(config.embedding_dim, 1)

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """`ids` [N, L] int32, both texts with their separators, to logits [N] float32."""
        logit: Tensor = self.out(torch.tanh(self.pool(self.states(ids)[:, 0]))).squeeze(1)
        return logit


register("model", CrossEncoder)(CrossEncoderModel)
