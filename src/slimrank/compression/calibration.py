"""What layers are given for a sample of train rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slimrank.compression.steps import Context
from slimrank.compression.surgeon import Moments

MOST = 1 << 15  # vectors that are kept of a layer's inputs from one call: a text or a history has one at each place


def calibration_inputs(model: nn.Module, rows: int, context: Context) -> dict[str, Tensor]:
    """What every linear layer is given for a sample of train rows: by name, as [n, in_features]."""
    seen: dict[str, list[Tensor]] = {}

    def keep(name: str, vectors: Tensor) -> None:
        seen.setdefault(name, []).append(vectors[:: max(1, -(-len(vectors) // MOST))].clone())

    with listening({name: each for name, each in model.named_modules() if isinstance(each, nn.Linear)}, keep):
        context.ask(model, rows)
    return {name: torch.cat(parts) for name, parts in seen.items()}


def moments_of(layers: Mapping[str, nn.Linear], model: nn.Module, rows: int, context: Context) -> dict[str, Moments]:
    """The moments of what these layers of `model` are given, by their names; those that are not run have none."""
    found: dict[str, Moments] = {}

    def count(name: str, vectors: Tensor) -> None:
        found.setdefault(name, Moments.none(vectors.shape[1])).add(vectors)

    with listening(layers, count):
        context.ask(model, rows)
    return found


@contextmanager
def listening(layers: Mapping[str, nn.Linear], heard: Callable[[str, Tensor], None]) -> Iterator[None]:
    """`heard` is told a layer's name and its inputs [n, in_features] whenever it is called."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def told(layer: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            inputs = given[0] if given else named["input"]
            heard(name, inputs.detach().reshape(-1, layer.in_features))

        return told

    hooks = [layer.register_forward_pre_hook(hook(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
