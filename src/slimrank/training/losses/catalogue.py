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
    logits, place = catalogue_logits(model, batch, target, known, drawn_items(config, model, target))
    return _missed(logits, place)


def distilled_catalogue(
    model: Encoder, batch: Examples, *, loss: CatalogueSoftmax, mix: Distillation, teachers: Sequence[Encoder]
) -> Tensor:
    """soft_weight * T^2 * cross-entropy with the teachers' softmax at temperature T + the rest with the next item.

    The list-wise soft labels of a query are the mean of the teachers' probabilities over the same items, all of them or
    those that were drawn. Teachers are asked for every batch: their scores of all places and items fit no disk.
    """
    target, known = targets(model, batch)
    drawn = drawn_items(loss, model, target)
    logits, place = catalogue_logits(model, batch, target, known, drawn)
    with torch.no_grad():
        asked = [catalogue_logits(each, batch, target, known, drawn)[0] for each in teachers]
        soft = torch.stack([(each / mix.temperature).softmax(dim=1) for each in asked]).mean(dim=0)
    likely = functional.log_softmax(logits / mix.temperature, dim=1)
    distance = -(soft * likely.clamp(min=NEVER)).sum() / max(place.shape[0], 1)
    return mix.soft_weight * mix.temperature**2 * distance + (1 - mix.soft_weight) * _missed(logits, place)


def _missed(logits: Tensor, place: Tensor) -> Tensor:
    """Cross-entropy of `logits` [T, S] with the item at `place` [T]; 0, with a gradient of 0, where there is none."""
    return functional.cross_entropy(logits, place, reduction="sum") / max(place.shape[0], 1)


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


def catalogue_logits(
    model: Encoder, batch: Examples, target: Tensor, known: Tensor, drawn: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scores [T, S] of items at all `known` places, and where among them the `target` [T] stands.

    The items are the whole catalogue, or first the target and then the `drawn` ones, of which the target itself does
    not count. Even draws need no correction: it is the same for all.
    """
    if isinstance(model, SequenceEncoder):
        met = model.met(batch.ids)
        assert met is not None
        vectors = model.states(met)[known]
    else:
        vectors = model(batch.ids, batch.numbers)[known]
    if drawn is None:
        return vectors @ model.all_items()[model.first_item :].T, target - model.first_item
    own = (vectors * model.items(target)).sum(dim=1, keepdim=True)
    others = (vectors @ model.items(drawn).T).masked_fill(target.unsqueeze(1) == drawn, -torch.inf)
    return torch.cat([own, others], dim=1), torch.zeros_like(target)


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
