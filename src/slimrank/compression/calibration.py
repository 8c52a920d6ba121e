"""What layers are given for a sample of train rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from slimrank.compression.steps import Context
from slimrank.compression.surgeon import Moments

MOST = 1 << 15  # vectors that are kept of a layer's inputs: a text or a history has one at each place


class Sample:
    """An even sample of at most `MOST` of the vectors that come, call by call: every `stride`-th of all so far."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []
        self.seen, self.stride = 0, 1

    def add(self, vectors: Tensor) -> None:
        """Take some of these vectors [n, in]; where there are too many, every second of all goes."""
        if not self.seen:
            self.stride = max(1, -(-len(vectors) // MOST))
        self.parts.append(vectors[-self.seen % self.stride :: self.stride].clone())
        self.seen += len(vectors)
        while sum(map(len, self.parts)) > MOST:
            self.parts = [torch.cat(self.parts)[::2].clone()]
            self.stride *= 2


def calibration_inputs(model: nn.Module, rows: int, context: Context) -> dict[str, Tensor]:
    """What every linear layer is given for a sample of train rows: by name, as [n, in_features]."""
    seen: dict[str, Sample] = {}

    def keep(name: str, vectors: Tensor) -> None:
        seen.setdefault(name, Sample()).add(vectors)

    with listening({name: each for name, each in model.named_modules() if isinstance(each, nn.Linear)}, keep):
        context.ask(model, rows)
    return {name: torch.cat(sample.parts) for name, sample in seen.items()}


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
