"""Step: the vectors that a text encoder gives become shorter, by their principal components on train rows.

The components of largest second moment keep dot products best, and come first: a prefix of the vector is the shorter
one (Kusupati et al. 2022, arXiv 2205.13147, train for that order; here it is fitted).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from slimrank.compression.steps import Context
from slimrank.config import Config, InputError, register
from slimrank.models.layers import Network
from slimrank.models.text_encoder import TextEncoderModel, outputs_of


class ShortenVectors(Config):
    """Project a text encoder's vectors to `outputs` numbers, fitted on `rows` train rows."""

    name: Literal["shorten-vectors"] = "shorten-vectors"
    outputs: PositiveInt = 128
    rows: PositiveInt = 4096


@register("step", ShortenVectors)
def shorten_vectors(model: Network, config: ShortenVectors, context: Context) -> Network:
    """The model with a projection behind its pooling."""
    if not isinstance(model, TextEncoderModel):
        context.skip("vectors", "the model gives no vectors of texts")
        return model
    if model.shorten is not None and not isinstance(model.shorten, nn.Linear):
        context.skip("shorten", "is quantised already: shorten vectors before quantising")
        return model
    vectors = outputs_of(model, context.train.ids[: config.rows])
    width = vectors.shape[1]
    if config.outputs > width:
        raise InputError(f"shorten-vectors: outputs is {config.outputs}. Allowed: 1..{width}, what a vector has.")
    basis, kept = components(vectors, config.outputs)
    weight = basis if model.shorten is None else basis @ model.shorten.weight.detach()
    model.shorten = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    model.shorten.weight = nn.Parameter(weight.clone())
    context.touch(f"vectors: {width} numbers to {config.outputs}")
    context.note(energy=kept)
    return model


def components(vectors: Tensor, count: int) -> tuple[Tensor, float]:
    """The `count` eigenvectors [count, width] of largest second moment of `vectors` [N, width], and their share of it.

    Each points where its largest number is positive, so that the same rows give the same basis.
    """
    values, basis = torch.linalg.eigh(vectors.T.double() @ vectors.double() / len(vectors))
    chosen = basis.flip(1)[:, :count].T
    signs = chosen.gather(1, chosen.abs().argmax(dim=1, keepdim=True)).sign()
    return (chosen * signs).float(), float(values.flip(0)[:count].sum() / values.sum())
