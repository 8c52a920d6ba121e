"""A text encoder learns to give its teacher's vectors, on texts alone: no labels, and no catalogue either.

The loss is the mean squared distance of unit vectors, 2 (1 - cos) (embedding alignment; Reimers and Gurevych 2020,
arXiv 2004.09813). Batches hold texts of like length, as many as come to a number of tokens. A CPU and a GPU do
the same. Left out: choosing among epochs, since the loss goes on falling.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from slimrank.config import Config, InputError
from slimrank.models.text_encoder import TextModel

CHUNK = 64  # batches that are sorted by length together


class Alignment(Config):
    """How an encoder is aligned with a teacher.

    Attributes:
        epochs: passes over all texts.
        tokens: of a batch, padding among them.
        learning_rate: the peak, of AdamW; it rises for `warmup` of the steps, then falls in a line to 0.
        minutes: a bound: the learning rate falls as if the training were to end then.
    """

    epochs: PositiveInt = 8
    tokens: PositiveInt = 16_384
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    minutes: float | None = Field(default=None, gt=0)


def align(
    model: TextModel,
    ids: NDArray[np.int32],
    vectors: Tensor,
    settings: Alignment,
    *,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Fit `model`, in place and where it is, to give the unit `vectors` [N, D] for the texts `ids` [N, L].

    Returns:
        For every epoch its number, mean loss and the seconds since the start.

    Raises:
        InputError: rows and vectors are not as many, or the loss is not finite.
    """
    if len(ids) != len(vectors):
        raise InputError(f"{len(ids):,} texts have {len(vectors):,} vectors")
    device = next(model.parameters()).device
    lengths, rows = (ids != 0).sum(axis=1), torch.from_numpy(ids).to(device)
    draw = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps, start = settings.epochs * len(batches(lengths, settings.tokens, draw)), time.monotonic()
    limit = np.inf if settings.minutes is None else 60 * settings.minutes
    history: list[dict[str, Any]] = []
    model.train()
    step, gone = 0, 0.0
    while gone < 1 and len(history) < settings.epochs:
        losses = []
        for batch in batches(lengths, settings.tokens, draw):
            gone = max(step / steps, (time.monotonic() - start) / limit)
            if gone >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * min(gone / max(settings.warmup, 1e-9), 1.0, 1.001 - gone)
            index = torch.from_numpy(batch).to(device)
            given = model(rows.index_select(0, index)[:, : int(lengths[batch].max())])
            loss = (given - vectors.index_select(0, index).to(given.dtype)).square().sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.detach())
            step += 1
        mean = float(torch.stack(losses).mean()) if losses else float("nan")
        if losses and not np.isfinite(mean):
            raise InputError(f"alignment diverged in epoch {len(history) + 1}: use a lower learning_rate")
        history.append({"epoch": len(history) + 1, "loss": mean, "seconds": time.monotonic() - start})
        say(f"epoch {len(history)}: loss {mean:.5f}, {history[-1]['seconds']:.1f} s")
    model.eval()
    return history


def batches(lengths: NDArray[np.int64], tokens: int, draw: np.random.Generator) -> list[NDArray[np.int64]]:
    """All rows once: batches of rows of like length [B], each of at most `tokens` after padding (or one row)."""
    order = draw.permutation(len(lengths))
    mean = max(1, round(tokens / max(float(lengths.mean()), 1.0)))
    made = []
    for start in range(0, len(order), CHUNK * mean):
        chunk = order[start : start + CHUNK * mean]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        first = 0
        for last in range(1, len(chunk) + 1):
            if last == len(chunk) or (last + 1 - first) * lengths[chunk[last]] > tokens:
                made.append(chunk[first:last])
                first = last
    return [made[place] for place in draw.permutation(len(made))]
