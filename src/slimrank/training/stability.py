"""Retraining from the model of before, with most of its codes kept: what is shipped next differs in few bytes.

The grids of the model of before stay: scales are frozen, and the largest weight of every output of an integer layer,
from which its scale comes, is pinned. While weights are trained each is pulled back by a share of the learning rate, so
that one moves only where the rows agree on where to. Where a margin is asked for, after an epoch a code is changed only
where its weight is clearly out of it (`tables/hysteresis.py`). A row whose id is not met has no gradient, and stays
what it was. Left out: floats, which are free, and kinds of tables other than integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from slimrank.config import Config
from slimrank.models.quantized import QuantizedLinear, output_scales
from slimrank.tables.affine import quantize
from slimrank.tables.codes import Codes
from slimrank.tables.hysteresis import pulled, settled
from slimrank.tables.scaled import ScaledTable
from slimrank.training.loop import Hook, State

BELOW_LARGEST = 1.0 - 2.0**-20  # a weight that may not pass the largest one of its output, in float32


class Stability(Config):
    """Keep the codes of an earlier run where nothing speaks against them, so that the delta to it stays small.

    The slim model starts from that run's and is retrained; ids keep their numbers, and new ones come behind.

    Attributes:
        base: the directory of the run before, of the same models and steps.
        hysteresis: a code changes only where its weight is further from it than half a step and this many steps.
        pull: how far every step of training pulls a weight back to where it started, in learning rates.
    """

    base: Path
    hysteresis: float = Field(default=0.0, ge=0)
    pull: float = Field(default=0.4, ge=0)


class Anchor:
    """A matrix of weights that are stored as codes, and what it was before training.

    `start` [n, d] is that; `old` [n] says which rows there were then. Rows that are new are free.
    """

    def __init__(self, name: str, weight: nn.Parameter, old: Tensor | None = None):
        self.name = name
        self.weight = weight
        self.start = weight.detach().clone()
        self.old = (torch.ones(len(weight), dtype=torch.bool) if old is None else old).to(weight.device)

    def grid(self, rows: Tensor) -> tuple[Tensor, Codes]:
        """The scale of the weights of `rows`, as it broadcasts over them, and their codes."""
        raise NotImplementedError

    def hold(self) -> None:
        """Keep what the grid comes from."""

    @torch.no_grad()
    def pull(self, by: float) -> None:
        """Move the weights of the rows that the batch met by `by` towards where they started."""
        rows = self._met()
        found = self.weight.detach()[rows]
        self.weight.data[rows] = torch.where(self._was(rows), pulled(found, self.start[rows], by), found)

    @torch.no_grad()
    def settle(self, margin: float) -> None:
        """Put the weights that keep their codes back where they started."""
        weight = self.weight.detach()
        found = settled(weight, self.start, *self.grid(self._all()), margin)
        self.weight.data.copy_(torch.where(self._was(self._all()), found, weight))
        self.hold()

    @torch.no_grad()
    def count(self) -> dict[str, int]:
        """How many codes there were, how many of them the weights still have, and how many are new."""
        grid = self.grid(self._all())
        same = (quantize(self.weight.detach(), *grid) == quantize(self.start, *grid))[self.old]
        new = int((~self.old).sum()) * self.start.shape[1]
        return {"codes": same.numel(), "kept": int(same.sum()), "new": new}

    def _met(self) -> Tensor:
        """The rows with a gradient: a row that is rarely met would be pulled all the time, and never get away."""
        gradient = self.weight.grad
        if gradient is None:  # no loss reaches it
            return self._all()[:0]
        if gradient.is_sparse:
            return gradient.coalesce().indices()[0]
        return gradient.any(dim=1).nonzero().squeeze(1)

    def _all(self) -> Tensor:
        return torch.arange(len(self.weight), device=self.weight.device)

    def _was(self, rows: Tensor) -> Tensor:
        return self.old[rows].unsqueeze(1)


class TableAnchor(Anchor):
    """Rows of integers, whose scales are frozen."""

    def __init__(self, name: str, table: ScaledTable, old: Tensor | None):
        super().__init__(name, table.weight, old)
        self.table = table
        table.log_scale.requires_grad_(False)

    def grid(self, rows: Tensor) -> tuple[Tensor, Codes]:
        return self.table.grid_at(rows)


class LayerAnchor(Anchor):
    """The weights of an integer layer. Its scales come from the largest weight of each output: that one is pinned."""

    @torch.no_grad()
    def __init__(self, name: str, layer: QuantizedLinear):
        super().__init__(name, layer.weight)
        layer.inputs.requires_grad_(False)
        steps = layer.inputs.steps()
        folded = (self.start * steps).abs()
        scale = output_scales(folded, layer.bias, layer.codes).unsqueeze(1)
        self.scale, self.codes = (scale / steps).expand_as(folded), layer.codes
        self.largest = folded.argmax(dim=1, keepdim=True)
        self.most = (folded.amax(dim=1, keepdim=True) / steps) * BELOW_LARGEST

    def grid(self, rows: Tensor) -> tuple[Tensor, Codes]:
        return self.scale[rows], self.codes

    def hold(self) -> None:
        held = self.weight.detach().clamp(-self.most, self.most)
        self.weight.data.copy_(held.scatter_(1, self.largest, self.start.gather(1, self.largest)))


def anchors_of(model: nn.Module, old: Mapping[str, Tensor]) -> list[Anchor]:
    """The matrices of `model` that are stored as codes, with their grids frozen.

    `old` says, by name of a table, which of its rows [rows] there were before; all of them where it is missing.
    """
    found: list[Anchor] = []
    for name, module in model.named_modules():
        if isinstance(module, ScaledTable):
            found.append(TableAnchor(name, module, old.get(name)))
        elif isinstance(module, QuantizedLinear):
            found.append(LayerAnchor(name, module))
    return found


class KeepCodes(Hook):
    """After every step pulls weights back to where they started, and holds the grids of integer layers.

    At the end of an epoch codes whose weights have hardly left them are changed back: so an epoch is validated as it
    would be shipped, and the next one learns to do with what was changed back.
    """

    def __init__(self, anchors: Sequence[Anchor], settings: Stability):
        self.anchors = anchors
        self.settings = settings

    def on_step(self, state: State) -> None:
        rate = {id(p): g["lr"] for each in state.optimizers for g in each.param_groups for p in g["params"]}
        for anchor in self.anchors:
            if self.settings.pull:
                anchor.pull(self.settings.pull * rate[id(anchor.weight)])
            anchor.hold()

    def on_trained(self, state: State) -> None:
        for anchor in self.anchors:
            anchor.settle(self.settings.hysteresis)
