"""Losses of finding an item among a whole catalogue, or among many negatives that are drawn for the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from slimrank.config import Config, register
from slimrank.models.layers import Encoder, SequenceEncoder, trimmed
from slimrank.training.losses.loss import Distillation
from slimrank.training.losses.wide_softmax import SoftLabels, wide_cross_entropy

if TYPE_CHECKING:
    from slimrank.training.examples import Examples

NEVER = -1e4  # the logarithm of no chance: 0 times it is 0


class CatalogueSoftmax(Config):
    """Cross-entropy of the next item over the whole catalogue, or over `negatives` items drawn for each batch.

    A sequence model learns from every place of a history, others from the row's label alone.
    """

    name: Literal["catalogue-softmax"] = "catalogue-softmax"
    negatives: int | None = Field(default=None, ge=1)


@register("loss", CatalogueSoftmax)
def catalogue_softmax(config: CatalogueSoftmax, model: Encoder, batch: Examples) -> Tensor:
    """The mean over all places that have a next item that is known; 0 where none has."""
    target, known = targets(model, batch)
    drawn = drawn_items(config, model, target)
    if drawn is None:
        return wide_cross_entropy(*sides(model, batch, known), target - model.first_item)
    return _missed(drawn_logits(model, batch, target, known, drawn))


def distilled_catalogue(
    model: Encoder, batch: Examples, *, loss: CatalogueSoftmax, mix: Distillation, teachers: Sequence[Encoder]
) -> Tensor:
    """soft_weight * T^2 * cross-entropy with the teachers' softmax at temperature T + the rest with the next item.

    The list-wise soft labels of a query are the mean of the teachers' probabilities over the same items, all of them or
    those that were drawn. Teachers are asked for every batch: their scores of all places and items fit no disk.
    """
    target, known = targets(model, batch)
    drawn = drawn_items(loss, model, target)
    if drawn is None:
        with torch.no_grad():
            soft = SoftLabels(mix.soft_weight, mix.temperature, [sides(each, batch, known) for each in teachers])
        return wide_cross_entropy(*sides(model, batch, known), target - model.first_item, soft)
    logits = drawn_logits(model, batch, target, known, drawn)
    with torch.no_grad():
        asked = [drawn_logits(each, batch, target, known, drawn) for each in teachers]
        labels = torch.stack([(each / mix.temperature).softmax(dim=1) for each in asked]).mean(dim=0)
    likely = functional.log_softmax(logits / mix.temperature, dim=1)
    distance = -(labels * likely.clamp(min=NEVER)).sum() / max(len(target), 1)
    return mix.soft_weight * mix.temperature**2 * distance + (1 - mix.soft_weight) * _missed(logits)


def _missed(logits: Tensor) -> Tensor:
    """Cross-entropy of `logits` [T, S] with the first item; 0, with a gradient of 0, where there is none."""
    first = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return functional.cross_entropy(logits, first, reduction="sum") / max(len(logits), 1)


def targets(model: Encoder, batch: Examples) -> tuple[Tensor, Tensor]:
    """The items [T] that are to be found, and where: [N, L] of the places of histories, or [N] of the rows.

    A sequence model learns from every place; items that are unknown are left out.
    """
    target = batch.label
    if isinstance(model, SequenceEncoder):
        met = model.met(batch.ids)
        assert met is not None
        target = next_items(trimmed(met), batch.label)
    known = target >= model.first_item
    return target[known], known


def sides(model: Encoder, batch: Examples, known: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors [T, D] of all `known` places, and those [C, D] of all items."""
    return _vectors(model, batch, known), model.all_items()[model.first_item :]


def drawn_logits(model: Encoder, batch: Examples, target: Tensor, known: Tensor, drawn: Tensor) -> Tensor:
    """Scores [T, 1 + S] of the `target` [T] and of the `drawn` items [S] at all `known` places.

    Where a drawn one is the target itself it does not count. Even draws need no correction: it is the same for all.
    """
    vectors = _vectors(model, batch, known)
    own = (vectors * model.items(target)).sum(dim=1, keepdim=True)
    others = (vectors @ model.items(drawn).T).masked_fill(target.unsqueeze(1) == drawn, -torch.inf)
    return torch.cat([own, others], dim=1)


def _vectors(model: Encoder, batch: Examples, known: Tensor) -> Tensor:
    if isinstance(model, SequenceEncoder):
        met = model.met(batch.ids)
        assert met is not None
        return model.states(met)[known]
    vectors: Tensor = model(batch.ids, batch.numbers)
    return vectors[known]


def drawn_items(config: CatalogueSoftmax, model: Encoder, target: Tensor) -> Tensor | None:
    """The negatives [S] of a batch, drawn evenly, or None where the whole catalogue is scored."""
    if config.negatives is None or config.negatives >= model.num_items - model.first_item:
        return None
    return torch.randint(model.first_item, model.num_items, (config.negatives,), device=target.device)


def next_items(met: Tensor, label: Tensor) -> Tensor:
    """The item after each place of `met` [N, L], padded behind: the one that follows, and last the `label` [N]; else 0.

    >>> next_items(torch.tensor([[5, 6, 0], [7, 8, 9]]), torch.tensor([2, 3]))
    tensor([[6, 2, 0],
            [8, 9, 3]])
    """
    following = functional.pad(met[:, 1:], (0, 1))
    last = (met != 0).sum(dim=1, keepdim=True) - 1
    place = torch.arange(met.shape[1], device=met.device)
    return torch.where(place == last, label.unsqueeze(1), following)
