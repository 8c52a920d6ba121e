"""What a step is given and what it must tell, and the verb that applies a list of them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, TypeGuard, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from slimrank.compression.record import Told
from slimrank.config import Config, as_config, runner
from slimrank.data.encoding import Encoding
from slimrank.models.layers import Network
from slimrank.models.size import packed_bytes
from slimrank.models.text_encoder import TextModel, outputs_of
from slimrank.tables.table import Table
from slimrank.training.examples import Examples, score, training_device
from slimrank.training.quality import quality

if TYPE_CHECKING:  # models are compressed where rows are read by other means, without polars
    from slimrank.data.rows import EncodedDataset


Model = TypeVar("Model", bound=nn.Module)
ANSWERED_AT_ONCE = 1 << 12
MOST_HELD = 10_000  # no list of layers is longer: a vocabulary may be
HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks"),
)


@dataclass
class Context(Told):
    """What steps may look at, and the record of what they did.

    `train` serves calibration, `valid` the choices that a step makes by itself (never test rows). `counts` holds, for
    each field, how often training met each id; ids are sorted by falling frequency, but for the fields in `unsorted`.
    `later` are the steps that come after the one that is applied.
    """

    train: Examples
    valid: Examples
    counts: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: int = 0
    unsorted: frozenset[str] = frozenset()
    later: tuple[Config, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.train.label.device

    def to(self, device: torch.device | str) -> Self:
        """The same with its rows on `device`."""
        return replace(self, train=self.train.to(device), valid=self.valid.to(device))

    def quality(self, model: nn.Module) -> float:
        """How good `model` is on validation rows, higher is better."""
        return quality(model, self.valid)  # type: ignore[arg-type]  # whoever has rows has a network of ours

    def sample(self, rows: int) -> Examples:
        """`rows` train rows, or all where there are fewer, drawn at random: the same ones each time."""
        generator = torch.Generator().manual_seed(self.seed)
        return self.train.take(torch.randperm(len(self.train), generator=generator)[:rows].to(self.device))

    def ask(self, model: nn.Module, rows: int) -> None:
        """Ask `model` in evaluation mode about a sample of train rows, for what its layers see.

        Of texts every token is a row: as many texts are read as give about `rows` tokens.
        """
        sample = self.sample(rows)
        if isinstance(model, TextModel):
            tokens = (sample.ids != 0).sum(dim=1).cumsum(0)
            outputs_of(model, sample.ids[: int((tokens < rows).sum()) + 1], at_once=1)
        else:
            score(model, sample)

    def answers(self, model: nn.Module, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Answers of `model`, with gradients, for a sample of train rows, and how much an error in each counts.

        An error dz of a logit z raises the cross-entropy by about p (1 - p) dz**2 / 2: it counts sqrt(p (1 - p)).
        """
        sample = self.sample(rows)
        for part in torch.split(torch.arange(len(sample), device=self.device), ANSWERED_AT_ONCE):
            batch = sample.take(part)
            logit = model(batch.ids, batch.numbers)
            p = logit.detach().sigmoid()
            yield logit, (p * (1 - p)).sqrt()

    @classmethod
    def of(cls, data: EncodedDataset, seed: int = 0) -> Context:
        """The context that an encoded dataset gives, on the device that models are trained on."""
        device = training_device()
        answer = data.encoding.schema.answer
        train, valid = (Examples.of(rows, device, answer) for rows in (data.train, data.valid))
        return cls(train, valid, data.encoding.counts, seed, unsorted_fields(data.encoding))


def unsorted_fields(encoding: Encoding) -> frozenset[str]:
    """The fields without a vocabulary: their ids are not sorted by frequency."""
    fields = encoding.schema.looked_up
    return frozenset(each.name for each in fields if each.encoding != "vocabulary" or each.kind == "text")


def compress(
    model: Model,
    steps: Sequence[Config | Mapping[str, Any] | str],
    context: Context,
    *,
    in_place: bool = False,
) -> tuple[Model, list[dict[str, Any]]]:
    """Apply `steps` in order to a copy of `model` (to the model itself with `in_place`, which spares the copy).

    Steps work on the CPU, where clustering and counting are done; the result is on the device of the context's rows.

    Returns:
        The smaller model, and for every step a record: its `name` and `settings`, what it `touched`, what it `skipped`
        and why, `touched_bytes` of tables and layers as they were, `bytes_before` and `bytes_after` (packed, all of the
        model), and `facts` that it chose or found.
    """
    chosen = [as_config("step", step) for step in steps]
    model = (model if in_place else copy.deepcopy(model)).to("cpu")
    device = context.device
    context = context.to("cpu")
    records = []
    for place, step in enumerate(chosen):
        context.forget()
        context.later = tuple(chosen[place + 1 :])
        before = packed_bytes(model)
        model = runner("step", step)(model, step, context)
        records.append(context.record(step, before, packed_bytes(model)))
    return model.to(device), records


def skip_others(model: nn.Module, handled: Collection[str], context: Context) -> None:
    """Note every matrix that is in none of the `handled` layers and is no table's, so that none is passed over."""
    tables = [name for name, module in model.named_modules() if isinstance(module, Table)]
    known = tuple(f"{name}." for name in (*handled, *tables))
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2 and not name.startswith(known):
            context.skip(name, "is the weight of no linear layer")


def is_network(model: nn.Module, what: str, context: Context) -> TypeGuard[Network]:
    """Whether slimrank built `model`, with one fused table for all its fields; else it is noted that `what` stays."""
    if not isinstance(model, Network):
        context.skip(what, "the step knows the models of slimrank, whose fields share one table")
    return isinstance(model, Network)


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` everywhere in `model` where the module `name` (dotted) stands."""
    swap(model, model.get_submodule(name), new)


def swap(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` everywhere in `model` where `old` is: it may be shared, or held by lists and tuples beside.

    It is in the old one's mode, and frozen where that is; hooks that the user put on the old one are on it.
    """
    new.train(old.training)
    held = list(old.parameters())
    if held and not any(parameter.requires_grad for parameter in held):
        new.requires_grad_(False)
    for kind in HOOKS:
        getattr(new, kind).update(getattr(old, kind))
    for owner in list(model.modules()):
        for name, value in list(vars(owner).items()):
            changed = _exchanged(value, old, new)
            if changed is not value:
                vars(owner)[name] = changed


def _exchanged(value: Any, old: nn.Module, new: nn.Module) -> Any:
    """`value` with `new` in the place of `old`: lists and mappings are changed, a tuple that holds it is made again."""
    if value is old:
        return new
    if type(value) is tuple:
        parts = tuple(_exchanged(each, old, new) for each in value)
        return parts if any(one is not other for one, other in zip(parts, value, strict=True)) else value
    if not isinstance(value, dict | list) or len(value) > MOST_HELD:
        return value
    for place, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
        changed = _exchanged(each, old, new)
        if changed is not each:
            value[place] = changed
    return value
