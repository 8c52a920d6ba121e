"""Any module of torch: the same steps as for the models of slimrank, its rows coming in batches of any form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from slimrank.compression.adopting import KINDS, adopt, check_module, give_back
from slimrank.compression.selection import Selection
from slimrank.compression.steps import Context, compress
from slimrank.compression.tables import lookups
from slimrank.config import Config, InputError, as_config
from slimrank.training.examples import Examples

Forward = Callable[[nn.Module, Any], Any]
Metric = Callable[[nn.Module], float]
CPU = torch.device("cpu")
NO_ROWS = Examples(torch.zeros(0, 0, dtype=torch.int32), torch.zeros(0, 0), torch.zeros(0))


def call(module: nn.Module, batch: Any) -> Any:
    """The module called with a batch: a mapping is its keywords, a tuple or list its arguments, all else the one."""
    if isinstance(batch, Mapping):
        return module(**batch)
    return module(*batch) if isinstance(batch, tuple | list) else module(batch)


@dataclass
class ModuleContext(Context):
    """What steps may look at where the model is the user's: `batches`, and how it is called with one.

    `metric` tells how good a module is, higher is better, on rows for choices; None where no step chooses.
    """

    batches: Iterable[Any] = ()
    forward: Forward = call
    metric: Metric | None = None
    place: torch.device = CPU

    @property
    def device(self) -> torch.device:
        return self.place

    def to(self, device: torch.device | str) -> Self:
        return replace(self, place=torch.device(device))

    def quality(self, model: nn.Module) -> float:
        if self.metric is None:
            raise InputError("the step chooses by quality: give `metric`, a function of the module, higher is better")
        with evaluating(model), torch.no_grad():
            return float(self.metric(model))

    def sample(self, rows: int) -> Examples:
        raise InputError("the step looks at rows of slimrank's own models, and this module has batches of its own")

    def ask(self, model: nn.Module, rows: int) -> None:
        with evaluating(model), torch.no_grad():
            for _ in self._outputs(model, rows):
                pass

    def answers(self, model: nn.Module, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What comes out is of unknown meaning: an error in any number of it counts the same, whatever its sign."""
        generator = torch.Generator().manual_seed(self.seed)
        with evaluating(model):
            for output in self._outputs(model, rows):
                parts = [each for each in tree_leaves(output) if isinstance(each, Tensor) and each.requires_grad]
                if parts:
                    answer = torch.cat([each.flatten() for each in parts])
                    yield answer, torch.randint(0, 2, answer.shape, generator=generator).to(answer) * 2 - 1

    def answer(self, model: nn.Module) -> list[Tensor]:
        """The tensors of what the module answers to the first batch, in evaluation mode."""
        with evaluating(model):
            return [each for each in tree_leaves(next(self._outputs(model, 1))) if isinstance(each, Tensor)]

    def look(self, model: nn.Module, *, counting: bool) -> None:
        """Run the module on a batch, and for `counting` on all: how often each id of every embedding is asked for.

        `counts` have it by where an embedding sits. In what order ids are is the user's affair: none are taken to be
        sorted by frequency.
        """
        counts = {name: np.zeros(layout.num_rows) for name, _, layout in lookups(model)}
        hooks = [each.table.register_forward_pre_hook(_counter(counts[name])) for name, each, _ in lookups(model)]
        try:
            with evaluating(model), torch.no_grad():
                for _ in self._outputs(model, None if counting else 1):
                    pass
        finally:
            for hook in hooks:
                hook.remove()
        self.counts = {name: count for name, count in counts.items() if counting and count.any()}
        self.unsorted = frozenset(counts)

    def _outputs(self, model: nn.Module, rows: int | None) -> Iterator[Any]:
        """What the module answers to the first batches that hold at least so many rows, or to all.

        Raises:
            InputError: there are no batches, or the forward fails, with its own error and where.
        """
        seen, number = 0, -1
        for number, batch in enumerate(self.batches):
            there = tree_map(self._moved, batch)
            try:
                output = self.forward(model, there)
            except Exception as error:
                raise InputError(f"the forward of the module failed on batch {number}: {told(error)}") from error
            yield output
            seen += rows_of(there)
            if rows is not None and seen >= rows:
                return
        if number < 0:
            raise InputError("data has no batch: give a list of batches, or what can be read more than once")

    def _moved(self, value: Any) -> Any:
        return value.to(self.place) if isinstance(value, Tensor) else value


def rows_of(batch: Any) -> int:
    """Rows of a batch: the first size of its first tensor that has one."""
    return next((len(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.dim()), 1)


def told(error: Exception) -> str:
    """An error's own words, and the line where it was raised."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" ({place.tb_frame.f_code.co_filename}:{place.tb_lineno})"
    return f"{type(error).__name__}: {error}{where}"


def _counter(count: np.ndarray) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def counter(module: nn.Module, given: tuple[Any, ...]) -> None:
        if given:
            ids = given[0].detach().flatten().cpu().numpy()
            count[:] += np.bincount(ids, minlength=len(count))

    return counter


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """`model` in evaluation mode, and every part of it back in its own afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def compress_module(
    module: nn.Module,
    steps: Sequence[Config | Mapping[str, Any] | str],
    batches: Iterable[Any],
    forward: Forward = call,
    metric: Metric | None = None,
    seed: int = 0,
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Apply `steps` in order to any module, which is changed; its records as those of `compress`.

    The result is called as the module was. It is on the module's device; for the steps it and the batches are on the
    CPU.

    Raises:
        InputError: a step or a setting is not allowed, the forward fails, or no step could change such a module.
    """
    if isinstance(batches, Iterator):
        raise InputError("data can be read only once: give a list of batches, or a DataLoader")
    check_module(module)
    if isinstance(module, KINDS):  # alone: there is nothing to hold what takes its place
        return _compress_alone(module, steps, batches, forward, metric, seed)
    device = next((each.device for each in module.parameters()), CPU)
    module.to(CPU)
    adopted = adopt(module)
    context = ModuleContext(NO_ROWS, NO_ROWS, seed=seed, batches=batches, forward=forward, metric=metric)
    context.look(module, counting=any(isinstance(as_config("step", step), Selection) for step in steps))
    small, records = compress(module, steps, context, in_place=True)
    give_back(small, adopted)
    return small.to(device), records


def _compress_alone(
    module: nn.Module,
    steps: Sequence[Config | Mapping[str, Any] | str],
    batches: Iterable[Any],
    forward: Forward,
    metric: Metric | None,
    seed: int,
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """The same for a layer that is no part of anything, inside a module that is not there afterwards."""

    def inside(whole: nn.Module) -> nn.Module:
        return whole.get_submodule("0")

    asked = None if metric is None else lambda whole: metric(inside(whole))
    whole = nn.Sequential(module)
    small, records = compress_module(
        whole, steps, batches, lambda whole, batch: forward(inside(whole), batch), asked, seed
    )
    return inside(small), records
