"""How a loss is chosen: a registered kind, one for every answer that a model gives where nothing else is said.

A registered loss is a function `(config, output, batch) -> scalar`. `output` is the logits [N] of a `Ranker`, or the
`Encoder` itself, whose loss decides which vectors it needs. A loss of soft labels reads `batch.teacher`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, SerializeAsAny
from torch import Tensor

from slimrank.config import Config, InputError, as_config, name_of, resolver, runner
from slimrank.data.schema import Answer

if TYPE_CHECKING:
    from slimrank.training.examples import Examples

Objective = Callable[[Any, "Examples"], Tensor]
Loss = Annotated[SerializeAsAny[Config], resolver("loss")]
DEFAULT: dict[Answer, str] = {"click": "cross-entropy", "relevance": "softmax-list", "item": "catalogue-softmax"}
SOFT: dict[Answer, str] = {"click": "soft-labels", "relevance": "soft-list"}


class Distillation(Config):
    """How the teachers' soft labels are mixed with the hard ones.

    `loss` is a registered loss of soft labels; None: that of what the rows' label is, with `temperature`.
    """

    soft_weight: float = Field(default=0.9, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0)
    loss: Loss | None = None
    LATER: ClassVar = frozenset({"loss"})


def objective_of(loss: Config | None, answer: Answer) -> Objective:
    """What the loop makes small: the loss that `loss` describes, or that of the answer."""
    config = as_config("loss", DEFAULT[answer]) if loss is None else loss
    return partial(runner("loss", config), config)


def distilled(mix: Distillation, loss: Config | None, answer: Answer) -> Objective:
    """What the loop makes small with teachers: soft_weight * soft loss + (1 - soft_weight) * `objective_of`.

    Raises:
        InputError: no loss of soft labels is named, and there is none for this answer.
    """
    if mix.loss is None and answer not in SOFT:
        raise InputError(f"distillation of answer {answer!r} needs a loss of soft labels to be named")
    chosen = mix.loss or as_config("loss", {"name": SOFT[answer], "temperature": mix.temperature})
    hard, soft = objective_of(loss, answer), objective_of(chosen, answer)
    if mix.soft_weight == 1.0:
        return soft

    def mixed(output: Any, batch: Examples) -> Tensor:
        return mix.soft_weight * soft(output, batch) + (1.0 - mix.soft_weight) * hard(output, batch)

    return mixed


def teacher_of(batch: Examples, loss: Config) -> Tensor:
    """The teachers' scores of a batch.

    Raises:
        InputError: there is no teacher.
    """
    if batch.teacher is None:
        raise InputError(f"loss {name_of(loss)!r} learns from teachers, and there are none")
    return batch.teacher
