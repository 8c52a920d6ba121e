"""SASRec (Kang and McAuley 2018, arXiv 1808.09781): self-attention over what a user met, and the item that comes next.

The item table gives the inputs and, with the state of the last place, the scores: it is stored once. Positions count
back from the end, so that the most recent item has the same one whatever the length. The order of a block is that of
pmixer/SASRec.pytorch: x = LN(x) + attention(LN(x), x, x); x = LN(x); x = x + FFN(x); and a last LN.
"""

from __future__ import annotations

from math import sqrt
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from slimrank.config import InputError, register
from slimrank.models.architecture import Architecture
from slimrank.models.layers import ByteDropout, SequenceEncoder, by_row, of_like_length, trimmed
from slimrank.tables.embedding import FusedEmbedding, Layout

EPS = 1e-8
LENGTHS = 8  # groups of like length that a batch of histories is run in


class SASRec(Architecture):
    """Self-attention over a sequence of items, `blocks` times, with `heads` heads.

    `padding_keys`: the places before a short history are attended to as empty ones, as checkpoints that were trained
    on sequences filled up with zeros expect.
    """

    name: Literal["sasrec"] = "sasrec"
    embedding_dim: int = Field(default=64, ge=1)
    embedding_std: float = Field(default=0.02, gt=0)
    blocks: PositiveInt = 2
    heads: PositiveInt = 1
    dropout: float = Field(default=0.2, ge=0, lt=1)
    padding_keys: bool = False


class Attention(nn.Module):
    """Causal attention: each place looks at itself and at what came before."""

    def __init__(self, config: SASRec):
        super().__init__()
        dim = config.embedding_dim
        self.heads = config.heads
        self.padding_keys = config.padding_keys
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.dropout = ByteDropout(config.dropout)

    def forward(self, queries: Tensor, inputs: Tensor, allowed: Tensor, empty: Tensor) -> Tensor:
        """[N, Q, D] of `queries` [N, Q, D] that look at `inputs` [N, L, D].

        `allowed` [N or 1, Q, L] says at which, `empty` [N] how many empty places come before them.
        """
        query, key, value = (
            self._split(by_row(layer, each))
            for layer, each in ((self.query, queries), (self.key, inputs), (self.value, inputs))
        )
        weight = query @ key.transpose(2, 3) / sqrt(query.shape[3])
        weight = weight.masked_fill(~allowed.unsqueeze(1), -1e9)
        if self.padding_keys:  # an empty place is a vector of zeros: its key and value are the layers' biases
            zeros = inputs[:1, :1] * 0.0  # no constant: layers of integers on constants are not folded at load
            none, nothing = (self._split(by_row(layer, zeros)) for layer in (self.key, self.value))
            extra = query @ none.transpose(2, 3) / sqrt(query.shape[3]) + empty.clamp(min=1e-9).log().view(-1, 1, 1, 1)
            weight = torch.cat([weight, extra], dim=3)
            value = torch.cat([value, nothing.expand(value.shape[0], -1, -1, -1)], dim=2)
        mixed = self.dropout(weight.softmax(dim=3)) @ value
        return by_row(self.out, mixed.transpose(1, 2).flatten(2))

    def _split(self, values: Tensor) -> Tensor:
        """[N, L, D] to [N, heads, L, D / heads]."""
        rows, places, width = values.shape
        return values.view(rows, places, self.heads, width // self.heads).transpose(1, 2)


class Block(nn.Module):
    """Attention, then two layers for each place."""

    def __init__(self, config: SASRec):
        super().__init__()
        dim = config.embedding_dim
        self.before, self.between = nn.LayerNorm(dim, EPS), nn.LayerNorm(dim, EPS)
        self.attention = Attention(config)
        self.inner, self.outer = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = ByteDropout(config.dropout)

    def forward(self, inputs: Tensor, places: Tensor, allowed: Tensor, empty: Tensor) -> Tensor:
        """[N, Q, D] for the `places` [N, Q] of `inputs` [N, L, D] (all of them where it is empty)."""
        asked = inputs if places.shape[1] == 0 else take_places(inputs, places)
        queries = self.before(asked)
        hidden = self.between(queries + self.attention(queries, inputs, allowed, empty))
        inner = self.dropout(torch.relu(by_row(self.inner, hidden)))
        out: Tensor = hidden + self.dropout(by_row(self.outer, inner))
        return out


def take_places(values: Tensor, places: Tensor) -> Tensor:
    """`values` [N, L, D] at `places` [N, Q]: [N, Q, D]."""
    return values.gather(1, places.unsqueeze(2).expand(-1, -1, values.shape[2]))


@register("model", SASRec)
class SASRecModel(SequenceEncoder):
    """The model."""

    def __init__(self, config: SASRec, layout: Layout):
        if config.embedding_dim % config.heads:
            raise InputError(f"embedding_dim {config.embedding_dim} does not divide into {config.heads} heads")
        super().__init__(config.embed(layout))
        positions = Layout(("position",), (self.length,), (1,))
        self.positions = FusedEmbedding.create(positions, config.embedding_dim, std=config.embedding_std)
        self.dropout = ByteDropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.embedding_dim, EPS)

    def states(self, met: Tensor) -> Tensor:
        """[N, L', D]: the state after each place of `met` [N, L], up to the longest history.

        Histories of like length are run together.
        """
        met = trimmed(met)
        places, back = of_like_length(met, LENGTHS)
        parts = [self._run(trimmed(met[some]), last=False) for some in places]
        wide = torch.cat([functional.pad(part, (0, 0, 0, met.shape[1] - part.shape[1])) for part in parts])
        return wide[back]

    def encode(self, met: Tensor) -> Tensor:
        """[N, D]: the state after the last item; the last block asks for nothing else."""
        return self._run(met, last=True).squeeze(1)

    def _run(self, met: Tensor, *, last: bool) -> Tensor:
        count = (met != 0).sum(dim=1)
        empty = (self.length - count).clamp(min=0).to(torch.float32)
        place = torch.arange(met.shape[1], device=met.device)
        position = (place + (self.length - count).unsqueeze(1)).clamp(0, self.length - 1)
        kept = (met != 0).unsqueeze(2)
        hidden = self.item_vectors(met) * sqrt(self.embedding.dim) + self.positions.table(position)
        hidden = self.dropout(hidden) * kept
        every = place.unsqueeze(1) >= place
        nowhere = met[:, :0]
        for number, block in enumerate(self.blocks):
            if last and number == len(self.blocks) - 1:
                final = (count - 1).clamp(min=0).unsqueeze(1)
                hidden = block(hidden, final, (place <= final).unsqueeze(1), empty)
            else:
                hidden = block(hidden, nowhere, every.unsqueeze(0), empty) * kept
        out: Tensor = self.norm(hidden)
        return out
