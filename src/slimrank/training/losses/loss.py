"""How a loss is chosen: a registered kind, one for every answer that a model gives where nothing else is said.

A registered loss is a function `(config, output, batch) -> scalar`. `output` is the logits [N] of a `Ranker`, or the
`Encoder` itself, whose loss decides which vectors it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from slimrank.config import Config, as_config, runner
from slimrank.data.schema import Answer

if TYPE_CHECKING:
    from slimrank.training.examples import Examples

Objective = Callable[[Any, "Examples"], Tensor]
DEFAULT: dict[Answer, str] = {"click": "cross-entropy", "relevance": "softmax-list", "item": "catalogue-softmax"}


def objective_of(loss: Config | None, answer: Answer) -> Objective:
    """What the loop makes small: the loss that `loss` describes, or that of the answer."""
    config = as_config("loss", DEFAULT[answer]) if loss is None else loss
    return partial(runner("loss", config), config)
