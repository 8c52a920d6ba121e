"""The directory of a run, its recipe and its data: what the stages of a run share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from slimrank.compression.steps import Context, unsorted_fields
from slimrank.config import InputError, name_of, nearest, runner
from slimrank.data import load_dataset
from slimrank.data.rows import Dataset, EncodedDataset, encode_dataset
from slimrank.models.layers import Encoder, Network
from slimrank.pipeline.base import Base
from slimrank.recipe import Recipe
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples, training_device
from slimrank.training.teachers import check_taught


@dataclass
class Run:
    """One recipe in one directory, and its data, read when first needed.

    `teachers` is where those are, if elsewhere. `prepared` is the dataset, where it was read and divided before.
    """

    recipe: Recipe
    folder: Path
    data: Path | None = None
    teachers: Path | None = None
    prepared: Dataset | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """The recipe's dataset."""
        return self.prepared or load_dataset(self.recipe.data, self.data)

    @cached_property
    def base(self) -> Base | None:
        """The run that the slim model starts from, where the recipe names one."""
        return None if self.recipe.stability is None else Base.read(self.recipe.stability.base)

    @cached_property
    def encoded(self) -> EncodedDataset:
        """The dataset as arrays."""
        return encode_dataset(self.dataset, None if self.base is None else self.base.encoding)

    @cached_property
    def layout(self) -> Layout:
        """The models' columns."""
        return Layout.of(self.encoded.encoding)

    @cached_property
    def device(self) -> torch.device:
        """Where models are trained."""
        return training_device()

    def check(self) -> None:
        """Raises `InputError` where the data is unfit or does not have what the recipe names; writes nothing."""
        if self.base is not None:
            self.base.check(self.recipe, self.folder)
        layout = self.layout
        if not layout.names and not layout.numbers:
            raise InputError(f"{self.dataset.name}: no input columns beside label, group and time")
        self._check_distillation()
        self._check_index()
        for name in self.recipe.student.fields if self.recipe.student is not None else ():
            if name not in layout.names:
                raise InputError(f"student.fields: unknown field {name!r}. {nearest(name, layout.names)}")

    def _check_distillation(self) -> None:
        """Raises `InputError` where what learns from teachers cannot; before they are trained, which takes hours."""
        recipe = self.recipe
        if recipe.distillation is None:
            return
        taught = [] if recipe.student is None else [(recipe.student.model, recipe.student.training)]
        if recipe.retraining is not None:
            taught.append((recipe.architecture, recipe.retraining))
        for model, training in taught:
            kind: type[Network] = runner("model", model)  # type: ignore[assignment]
            check_taught(kind, recipe.distillation, training.loss)

    def _check_index(self) -> None:
        """Raises `InputError` where the recipe names an index and the slim model has no vectors of items for one."""
        recipe = self.recipe
        if recipe.index is None:
            return
        model = recipe.architecture
        kind: type[Network] = runner("model", model)  # type: ignore[assignment]
        if not issubclass(kind, Encoder) or self.dataset.schema.catalogue is None:
            raise InputError(
                f"index {name_of(recipe.index)!r}: {name_of(model)!r} on {self.dataset.name} has no vectors of items; "
                "leave it out"
            )

    def with_recipe(self, recipe: Recipe, folder: Path | None = None) -> Run:
        """The same data, which is read once for both, and the same teachers, with another recipe on that data."""
        other = Run(recipe, folder or self.folder, self.data, self.teachers or self.folder)
        shared = ("dataset", "base", "encoded", "layout", "device", "train", "valid")
        other.__dict__.update({name: getattr(self, name) for name in shared})
        return other

    @cached_property
    def train(self) -> Examples:
        """Rows to fit on."""
        return Examples.of(self.encoded.train, self.device, self.dataset.schema.answer)

    @cached_property
    def valid(self) -> Examples:
        """Rows to choose on."""
        return Examples.of(self.encoded.valid, self.device, self.dataset.schema.answer)

    def context(self, seed: int) -> Context:
        """What the steps of one seed may look at."""
        encoding = self.encoded.encoding
        return Context(self.train, self.valid, encoding.counts, seed, unsorted_fields(encoding))

    def teacher_folder(self, seed: int) -> Path:
        """Where the teacher of that seed is."""
        return (self.teachers or self.folder) / f"teacher-{seed}"

    def seed_folder(self, seed: int) -> Path:
        """Where what belongs to one seed of the recipe is."""
        return self.folder / f"seed-{seed}"
