"""What an adaptor is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from slimrank.compression.modules import Forward, call, told
from slimrank.config import InputError


def copied(module: nn.Module) -> nn.Module:
    """A copy of a module.

    Raises:
        InputError: it cannot be copied; with its own error.
    """
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise InputError(f"the module cannot be copied: {told(error)}") from error


def same(module: nn.Module) -> nn.Module:
    """The module itself."""
    return module


def whole(module: nn.Module, batch: Any) -> Any:
    """The module called with a batch as its one argument."""
    return module(batch)


@dataclass(frozen=True)
class Adaptor:
    """How models of a library are compressed.

    Attributes:
        prepare: a model to a module that shares nothing with it, which steps and exports change.
        forward: how that is called with a batch.
        finish: the module that steps have changed to a model of the library.
    """

    prepare: Callable[[Any], nn.Module] = copied
    forward: Forward = call
    finish: Callable[[nn.Module], Any] = same
