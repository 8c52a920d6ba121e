"""transformers: its models are called with keywords, and answer with tensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from slimrank.adaptors.adaptor import Adaptor
from slimrank.compression.modules import call


def asked(module: nn.Module, batch: Any) -> Any:
    """The tensors of the answer by name, such as `last_hidden_state`; without the caches that some models add."""
    answer = call(module, batch)
    if not isinstance(answer, Mapping):
        return answer
    return {name: value for name, value in answer.items() if isinstance(value, Tensor)}


ADAPTOR = Adaptor(forward=asked)
