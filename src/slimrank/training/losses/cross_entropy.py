"""Losses of clicks: cross-entropy with hard and soft labels, as pure functions of logits [N]; penalties of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from slimrank.config import Config, register
from slimrank.training.losses.loss import teacher_of

if TYPE_CHECKING:
    from slimrank.training.examples import Examples


class CrossEntropy(Config):
    """Binary cross-entropy of clicks."""

    name: Literal["cross-entropy"] = "cross-entropy"


@register("loss", CrossEntropy)
def click_loss(config: CrossEntropy, logit: Tensor, batch: Examples) -> Tensor:
    """The mean cross-entropy of the batch's labels."""
    return cross_entropy(logit, batch.label)


def cross_entropy(logit: Tensor, label: Tensor) -> Tensor:
    """Mean binary cross-entropy of labels in [0, 1] under sigmoid(logit), a scalar.

    mean(softplus(z) - y z), which is -mean(y log p + (1 - y) log(1 - p)).
    """
    return binary_cross_entropy_with_logits(logit, label)


class SoftLabels(Config):
    """Binary cross-entropy with the teachers' softened probabilities (Hinton et al. 2015)."""

    name: Literal["soft-labels"] = "soft-labels"
    temperature: float = Field(default=1.0, gt=0)


@register("loss", SoftLabels)
def soft_loss(config: SoftLabels, logit: Tensor, batch: Examples) -> Tensor:
    """The cross-entropy with the teachers of the batch, each row by its confidence."""
    return soft_cross_entropy(logit, teacher_of(batch, config), config.temperature, batch.confidence)


def soft_cross_entropy(
    logit: Tensor, teacher_logit: Tensor, temperature: float, weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy between softened teacher and softened student, a scalar (Hinton et al. 2015, arXiv 1503.02531).

    T^2 * mean(softplus(z/T) - sigmoid(t/T) z/T). The factor T^2 keeps the size of the gradient, which falls with 1/T^2.
    With `weight` [N] the mean is weighted, and 0 where all weights are.
    """
    student = logit / temperature
    target = (teacher_logit / temperature).sigmoid()
    each = softplus(student) - target * student
    if weight is None:
        return temperature**2 * each.mean()
    total = weight.sum()
    return temperature**2 * (weight * each).sum() / torch.where(total == 0, 1, total)


def lookup_penalty(vectors: Tensor) -> Tensor:
    """Half the mean over rows of the sum of squares of the row's vectors [N, fields, dim], a scalar.

    An id is pulled to 0 as often as it is met, and an id that the batch does not hold costs nothing.
    """
    return 0.5 * vectors.square().sum() / vectors.shape[0]


def row_penalty(rows: Tensor) -> Tensor:
    """Half the sum of squares of table rows [R, dim], a scalar: each row that the batch uses is pulled to 0 alike."""
    return 0.5 * rows.square().sum()
