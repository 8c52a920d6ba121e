"""What a step is given and what it must tell, and the verb that applies a list of them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from slimrank.compression.record import Told
from slimrank.config import Config, as_config, runner
from slimrank.data.encoding import Encoding
from slimrank.models.layers import Network
from slimrank.models.size import packed_bytes
from slimrank.tables.table import Table
from slimrank.training.examples import Examples, training_device

if TYPE_CHECKING:  # models are compressed where rows are read by other means, without polars
    from slimrank.data.rows import EncodedDataset


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
    model: Network,
    steps: Sequence[Config | Mapping[str, Any] | str],
    context: Context,
    *,
    in_place: bool = False,
) -> tuple[Network, list[dict[str, Any]]]:
    """Apply `steps` in order to a copy of `model` (to the model itself with `in_place`, which spares the copy).

    Steps work on the CPU, where clustering and counting are done; the result is on the device of the context's rows.

    Returns:
        The smaller model, and for every step a record: its `name` and `settings`, what it `touched`, what it `skipped`
        and why, `bytes_before` and `bytes_after` (packed, all of the model), and `facts` that it chose or found.
    """
    chosen = [as_config("step", step) for step in steps]
    model = (model if in_place else copy.deepcopy(model)).to("cpu")
    device = context.train.label.device
    context = replace(context, train=context.train.to("cpu"), valid=context.valid.to("cpu"))
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


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where `name` (dotted) stands in `model`."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
