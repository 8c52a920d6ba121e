"""Text encoder: a BERT-shaped body over token ids, pooled to one vector a text (Devlin et al. 2019, arXiv 1810.04805;
Reimers and Gurevych 2019, arXiv 1908.10084).

Tokens are one field of the model's embedding, and positions are a table of their own, so that every step on tables
works on both. All linear layers see tokens as rows [N * L, width]: then they export as plain matrix products, and the
steps on dense layers know them. Left out: dropout, which the small data of distillation has no need for, and what
turns text into ids (`data/text.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from slimrank.config import InputError, register
from slimrank.data.text import TextCodec
from slimrank.models.architecture import Architecture
from slimrank.models.layers import Encoder, Network
from slimrank.tables.embedding import FusedEmbedding, Layout

MASKED = -1e9  # added to the score of padding: its weight after the softmax is 0 in float32
LEAST_NORM = 1e-12  # keeps the vector of a text whose pooled states are all 0 finite


class TextBody(Architecture):
    """The part of a config that concerns the body of a text model.

    Attributes:
        embedding_dim: width of the token states.
        layers: transformer layers.
        heads: attention heads of a layer.
        hidden: inner width of a layer's feed-forward part.
        positions: the longest text in tokens; None for the length of the rows.
        segments: kinds of text that a row may join, told apart by `separator`: 2 for pairs.
        separator: the id of the token that ends a text.
        epsilon: of layer normalisation.
    """

    embedding_dim: int = Field(default=384, ge=1)
    embedding_std: float = Field(default=0.02, gt=0)
    layers: PositiveInt = 6
    heads: PositiveInt = 12
    hidden: PositiveInt = 1536
    positions: PositiveInt | None = None
    segments: Literal[1, 2] = 1
    separator: int = Field(default=102, ge=0)
    epsilon: float = Field(default=1e-12, gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> TextBody:
        if self.embedding_dim % self.heads:
            raise ValueError(f"embedding_dim {self.embedding_dim} is no multiple of {self.heads} heads")
        return self


class TextEncoder(TextBody):
    """A BERT-shaped encoder of texts: the mean of a text's token states, or its first one, as a vector of length 1.

    `outputs`: numbers in a vector; None for as many as a token state has.
    """

    name: Literal["text-encoder"] = "text-encoder"
    pooling: Literal["mean", "first"] = "mean"
    outputs: PositiveInt | None = None


class Block(nn.Module):
    """One transformer layer, normalised after each part, on token states as rows [N * L, width].

    Heads are rows of `mix` (queries, keys and values, one after the other) and columns of `output`, so that there may
    be fewer than the width has room for.
    """

    def __init__(self, width: int, heads: int, hidden: int, epsilon: float):
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.mix = nn.Linear(width, 3 * heads * self.head_width)
        self.output = nn.Linear(heads * self.head_width, width)
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """`states` [N * L, width] and `mask` [N, 1, 1, L], added to attention scores, to states of the same shape."""
        states = self.attention_norm(states + self.output(self.attend(states, mask)))
        normed: Tensor = self.norm(states + self.down(functional.gelu(self.up(states))))
        return normed

    def attend(self, states: Tensor, mask: Tensor) -> Tensor:
        """What every token takes from all tokens of its text, head by head: [N * L, heads * head_width]."""
        count, length = mask.shape[0], mask.shape[3]
        parts = self.mix(states).view(count, length, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        scores = query @ key.transpose(2, 3) * self.head_width**-0.5 + mask
        taken: Tensor = torch.softmax(scores, dim=-1) @ value
        return taken.transpose(1, 2).reshape(count * length, self.heads * self.head_width)


class TextModel(Network):
    """The body that bi-encoder and cross-encoder share: ids [N, L] to token states [N, L, width], for any L."""

    codec: TextCodec | None = None  # the tokenizer that the ids come from, where it is known

    def __init__(self, config: TextBody, layout: Layout):
        fault = None if len(layout.names) == 1 and layout.sequences and not layout.numbers else "one text field"
        if fault:
            raise InputError(f"model {config.name} reads {fault}, got {', '.join(layout.names) or 'none'}")  # type: ignore[attr-defined]
        super().__init__(config.embed(layout))
        places = Layout(("position",), (config.positions or layout.widths[0],), (1,))
        self.positions = FusedEmbedding.create(places, config.embedding_dim, std=config.embedding_std)
        width = config.embedding_dim
        self.segments = nn.Parameter(torch.zeros(2, width)) if config.segments == 2 else None
        self.separator = config.separator
        self.norm = nn.LayerNorm(width, eps=config.epsilon)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.hidden, config.epsilon) for _ in range(config.layers)
        )

    def states(self, ids: Tensor) -> Tensor:
        """`ids` [N, L], 0 being padding, to token states [N, L, width]."""
        kept = ids != 0
        mask = torch.where(kept, 0.0, MASKED).unsqueeze(1).unsqueeze(1)
        states = self.norm(self.tokens(ids)).flatten(0, 1)
        for block in self.blocks:
            states = block(states, mask)
        found: Tensor = states.view(ids.shape[0], ids.shape[1], states.shape[1])
        return found

    def tokens(self, ids: Tensor) -> Tensor:
        """Vectors of tokens, their positions and, in pairs, their segments, added: [N, L, width]."""
        words = look_up(self.embedding, ids)
        places = look_up(self.positions, torch.arange(ids.shape[1], dtype=ids.dtype, device=ids.device).unsqueeze(0))
        if self.segments is None:
            return words + places
        ends = (ids == self.separator).to(torch.int32)
        second = (ends.cumsum(1) - ends > 0).to(words.dtype).unsqueeze(2)
        return words + places + self.segments[0] + second * (self.segments[1] - self.segments[0])


class TextEncoderModel(TextModel, Encoder):
    """vector = p / |p|, with p the mean of the token states that are not padding, or the first, times `shorten`."""

    def __init__(self, config: TextEncoder, layout: Layout):
        super().__init__(config, layout)
        self.pooling = config.pooling
        self.shorten = nn.Linear(config.embedding_dim, config.outputs, bias=False) if config.outputs else None

    def forward(self, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """`ids` [N, L] int32 to vectors [N, outputs] float32 of length 1."""
        states = self.states(ids)
        if self.pooling == "first":
            pooled = states[:, 0]
        else:
            kept = (ids != 0).to(states.dtype).unsqueeze(2)
            pooled = (states * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1.0)
        if self.shorten is not None:
            pooled = self.shorten(pooled)
        length: Tensor = pooled.square().sum(dim=1, keepdim=True).sqrt()
        return pooled / length.clamp(min=LEAST_NORM)


register("model", TextEncoder)(TextEncoderModel)


def look_up(embedding: FusedEmbedding, ids: Tensor) -> Tensor:
    """Vectors [N, L, width] of `ids` [N, L] in an embedding of one field, for any L.

    Looked up as a column, since a table asks for the field of each column, and here all are of one.
    """
    vectors: Tensor = embedding.look_up(ids.reshape(-1, 1), embedding.offsets[:1])
    return vectors.view(ids.shape[0], ids.shape[1], vectors.shape[2])


def trimmed(ids: Tensor, at_once: int = 64) -> Iterator[Tensor]:
    """`ids` [N, L] in pieces of that many rows, each without the columns that are padding in all of its rows."""
    for start in range(0, len(ids), at_once):
        piece = ids[start : start + at_once]
        used = int((piece != 0).any(dim=0).sum())
        yield piece[:, : max(used, 1)]


@torch.inference_mode()
def outputs_of(model: TextModel, ids: Tensor, at_once: int = 64) -> Tensor:
    """What the model, in evaluation mode, gives for `ids` [N, L]: [N, D] or [N]; the model's mode is put back."""
    training = model.training
    model.eval()
    found = torch.cat([model(piece) for piece in trimmed(ids, at_once)])
    model.train(training)
    return found
