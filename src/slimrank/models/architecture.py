"""What the configs of all architectures share, and how a config becomes a model."""

from __future__ import annotations

import torch
from pydantic import Field, PositiveInt
from torch import nn

from slimrank.config import Config, runner
from slimrank.models.layers import Network
from slimrank.tables.embedding import FusedEmbedding, Layout

SPARSE_ROWS = 500_000  # from here on a dense gradient and a dense Adam step cost more than the batch itself


class Architecture(Config):
    """The part of a model's config that concerns its tables."""

    embedding_dim: int = Field(default=16, ge=1)
    embedding_std: float = Field(default=0.01, gt=0)

    def embed(self, layout: Layout, dim: int | None = None) -> FusedEmbedding:
        """A fused embedding for `layout`; its gradients are sparse where the table is large."""
        sparse = layout.num_rows >= SPARSE_ROWS
        return FusedEmbedding.create(layout, dim or self.embedding_dim, std=self.embedding_std, sparse=sparse)


class Deep(Architecture):
    """The part of a model's config that concerns its dense layers."""

    hidden: tuple[PositiveInt, ...] = Field(default=(400, 400, 400), min_length=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    batch_norm: bool = False


def build_model(config: Config, layout: Layout, seed: int) -> Network:
    """The model that `config` describes, over the columns of `layout`, with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Network = runner("model", config)(config, layout)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return model
