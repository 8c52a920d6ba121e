"""The run that a run with `stability` starts from: what of it is read, and whether one can start from the other.

Both runs have the same models and steps, the later one with more ids. The slim model of the run before lends its
weights, the encoding of its teacher (which has all fields) the numbers of its ids. Left out: training (`models.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimrank.config import Config, InputError, name_of
from slimrank.data.encoding import Encoding
from slimrank.files import read_json
from slimrank.models.layers import Network
from slimrank.recipe import Recipe
from slimrank.tables.embedding import FusedEmbedding, Layout
from slimrank.tables.stacked import StackedTable
from slimrank.tables.table import Table
from slimrank.training.checkpoint import load_tensors

MODEL = "model.safetensors"
FIELDS = "fields.json"
DECIDING = ("budget", "max_auc_drop", "rows_per_scale")  # keys of a step by which the rows say what becomes of it
GROWING = ("quantize-tables", "quantize-dense", "round-dense", "prune-weights")


@dataclass(frozen=True)
class Base:
    """A finished run: its recipe, the seed that it shipped, and the rules that gave its ids."""

    folder: Path
    recipe: Recipe
    seed: int
    encoding: Encoding

    @classmethod
    def read(cls, folder: Path) -> Base:
        """The run in `folder`.

        Raises:
            InputError: there is no finished run.
        """
        result, recipe = folder / "result.json", folder / "recipe.json"
        if not result.is_file() or not recipe.is_file():
            raise InputError(f"stability.base: {folder} holds no finished run: there is no {result.name}")
        seed = int(read_json(result)["shipped_seed"])
        encoding = Encoding.load(folder / f"seed-{seed}" / "artifacts" / "teacher")
        found = cls(folder, Recipe.parse(read_json(recipe), str(recipe)), seed, encoding)
        if not found.slim.is_file():
            raise InputError(f"stability.base: {found.slim}: no such file")
        return found

    @property
    def slim(self) -> Path:
        """The weights of its slim model."""
        return self.folder / f"seed-{self.seed}" / "slim" / MODEL

    @property
    def fields(self) -> list[str]:
        """The fields that its slim model reads."""
        chosen = self.folder / f"seed-{self.seed}" / "student" / FIELDS
        return list(read_json(chosen)["kept"]) if chosen.exists() else list(self.encoding.sizes)

    @property
    def ids(self) -> str:
        """sha256 of the rules that gave its ids."""
        return hashlib.sha256(b"".join(self.encoding.files().values())).hexdigest()

    @property
    def weights(self) -> str:
        """sha256 of the weights of its slim model."""
        return hashlib.sha256(self.slim.read_bytes()).hexdigest()

    def check(self, recipe: Recipe, out: Path) -> None:
        """Raises `InputError` where a run of `recipe` in `out` cannot start from this one."""
        if out.resolve() == self.folder.resolve():
            raise InputError(f"stability.base: {self.folder} is where this run is to be; choose another --out")
        for what, before, now in (
            ("model", [self.recipe.architecture], [recipe.architecture]),
            ("steps", self.recipe.steps, recipe.steps),
        ):
            if list(before) != list(now):
                raise InputError(
                    f"stability.base: the {what} of {self.folder} {_words(before)}, here {_words(now)}: "
                    "codes are kept where nothing but the rows has changed"
                )
        for step in recipe.steps:
            by_rows = [key for key in DECIDING if getattr(step, key, None) not in (None, 1)]
            if name_of(step) not in GROWING or by_rows:
                raise InputError(
                    f"stability: step {name_of(step)!r} decides by the rows what a model looks like, and may decide "
                    f"otherwise today. Allowed: {', '.join(GROWING)}, without {' and '.join(DECIDING)}."
                )
        if recipe.student is not None and list(recipe.student.fields or self.fields) != self.fields:
            raise InputError(f"stability: student.fields are {list(recipe.student.fields)}, the base's {self.fields}")
        if _draws_rows(recipe.data):
            raise InputError(
                "stability: rows are split by a draw, so that today's test rows have trained the base. "
                "Split by time, or give train, valid and test."
            )
        if recipe.retraining is None:
            raise InputError("stability: without `retraining` nothing is learned from the new rows")
        if recipe.retraining.weight_decay:
            raise InputError("stability: retraining.weight_decay moves every row, met or not; use l2, or leave it out")


def _draws_rows(data: Config) -> bool:
    """Whether a dataset of this config is split at random: as it says, or since it is one table without a time."""
    split = getattr(data, "split", None)
    if split is not None or not hasattr(data, "split"):
        return split is not None and split.kind == "rows"
    path = getattr(data, "path", None)
    return getattr(data, "time", None) is None and path is not None and Path(path).is_file()


def _words(configs: Any) -> str:
    plain = [{**each.model_dump(mode="json")} for each in configs if isinstance(each, Config)]
    return f"{'is' if len(plain) == 1 else 'are'} {plain}"


@torch.no_grad()
def start_from(base: Base, model: Network) -> dict[str, Tensor]:
    """Give `model` the weights of the base's slim model; rows of new ids are 0.

    Returns:
        By name of a table that has grown, which of its rows [rows] there were before.

    Raises:
        InputError: a tensor is missing, or of another shape by more than the rows of new ids.
    """
    before, state, grown = load_tensors(base.slim)[0], model.state_dict(), {}
    if set(before) != set(state):
        odd = sorted(set(before) ^ set(state))
        raise InputError(f"stability.base: {base.folder} and this run do not have the same tensors: {', '.join(odd)}")
    places = _places(base, model)
    for name, tensor in before.items():
        if tensor.shape == state[name].shape:
            state[name] = tensor
            continue
        table = name.rpartition(".")[0]
        if table not in places or len(tensor) != len(places[table]) or tensor.shape[1:] != state[name].shape[1:]:
            raise InputError(
                f"stability.base: {name} is {list(tensor.shape)} in {base.folder}, here {list(state[name].shape)}"
            )
        state[name] = torch.zeros_like(state[name]).index_copy_(0, places[table], tensor.to(state[name].device))
        grown[table] = torch.zeros(len(state[name]), dtype=torch.bool).index_fill_(0, places[table].cpu(), True)
    model.load_state_dict(state)
    return grown


def _places(base: Base, model: Network) -> dict[str, Tensor]:
    """By name of every table over the fields, the rows [rows of before] at which those of before are now."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, FusedEmbedding):
            sizes = Layout.of(base.encoding).only(module.layout.names).sizes
            found.update(_places_of(f"{name}.table", module.table, sizes))
    return found


def _places_of(name: str, table: Table, sizes: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    """The same of one table whose fields had `sizes` rows, and of the parts that it is stacked of."""
    starts = table.starts.tolist()
    ranges = [torch.arange(size) + start for size, start in zip(sizes, starts, strict=True)]
    yield name, torch.cat(ranges).to(table.starts.device)
    if isinstance(table, StackedTable):
        first = 0
        for place, part in enumerate(table.tables):
            own = sizes[first : first + len(part.starts)]
            yield from _places_of(f"{name}.parts.{place}", part, own)
            first += len(own)
