"""A recipe: plain data that says which model is trained, how it is compressed, and what is handed over.

The same names in Python and in TOML. The default recipe is the main job: a DCNv2 on MovieLens-100K, distilled into a
small DNN whose table and layers are integers.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from slimrank.config import Config, InputError, as_config, describe, read_table, resolver
from slimrank.training.loop import Training
from slimrank.training.losses.loss import Distillation
from slimrank.training.stability import Stability

Seed = Annotated[int, Field(ge=0, lt=2**32)]
OrNone = BeforeValidator(lambda value: None if value is False else value)  # TOML has no word for none: it says false
Dataset = Annotated[SerializeAsAny[Config], resolver("dataset")]
Model = Annotated[SerializeAsAny[Config], resolver("model")]
Step = Annotated[SerializeAsAny[Config], resolver("step")]
Target = Annotated[SerializeAsAny[Config], resolver("target")]
Index = Annotated[SerializeAsAny[Config], resolver("index")]


class Teacher(Config):
    """The large model. Several seeds make an ensemble, whose mean logit is what the student learns from.

    With no seeds given, each run's teacher has the run's own seed. With a `checkpoint` (a safetensors file, here or
    where the data is) it is not trained but read from there.
    """

    model: Model = Field(default_factory=lambda: as_config("model", {"name": "dcnv2", "dropout": 0.3}))
    training: Training = Training(epochs=6, batch_size=1024, learning_rate=1e-3, l2=0.05)
    seeds: tuple[Seed, ...] = ()
    checkpoint: Path | None = None
    LATER: ClassVar = frozenset({"checkpoint"})


class Student(Config):
    """The small model that learns from the teachers. Without one, the teacher itself is compressed.

    With `warm_start` its table starts as the principal components of the teachers' (`training/warm_start.py`). It
    reads the fields whose shuffling costs the teachers at least `min_field_importance` of AUC on validation rows
    (`compression/fields.py`), or just `fields` where they are named.
    """

    model: Model = Field(default_factory=lambda: as_config("model", {"name": "dnn", "hidden": (64, 32)}))
    training: Training = Training(epochs=8, batch_size=1024, learning_rate=2e-3, l2=0.05)
    warm_start: bool = True
    fields: tuple[str, ...] = ()
    min_field_importance: float = Field(default=0.0005, ge=0)


class Recipe(Config):
    """Everything that a run does. What is not set is the main job's.

    Student, distillation and retraining may be left out: None in Python, `student = false` in TOML. The slim artifact
    of an encoder has `index` over its items stored with it; without one the index is made at load, and is exact. With
    `stability` the slim model starts from that of an earlier run, and keeps most of its codes.
    """

    name: str = Field(default="movielens", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    data: Dataset = Field(default_factory=lambda: as_config("dataset", "movielens-100k"))
    seeds: tuple[Seed, ...] = Field(default=(1,), min_length=1)
    teacher: Teacher = Teacher(seeds=(1, 2, 3))
    student: Annotated[Student | None, OrNone] = Student()
    distillation: Annotated[Distillation | None, OrNone] = Distillation()
    steps: tuple[Step, ...] = Field(
        default_factory=lambda: tuple(
            as_config("step", step) for step in ({"name": "quantize-tables", "bits": 4}, "quantize-dense")
        )
    )
    retraining: Annotated[Training | None, OrNone] = Training(
        epochs=4, batch_size=1024, learning_rate=1e-3, l2=0.05, patience=0
    )
    target: Target = Field(default_factory=lambda: as_config("target", "onnx"))
    threads: int = Field(default=0, ge=0)  # for training; 0: all cores
    index: Index | None = None
    stability: Annotated[Stability | None, OrNone] = None
    LATER: ClassVar = frozenset({"index", "stability"})

    @model_validator(mode="after")
    def _distinct_seeds(self) -> Recipe:
        for seeds in (self.seeds, self.teacher.seeds):
            if len(set(seeds)) != len(seeds):
                raise InputError(f"seeds must differ, got {list(seeds)}")
        return self

    @property
    def architecture(self) -> Config:
        """Of the model that the steps compress: the student's, or the teacher's where there is no student."""
        return self.teacher.model if self.student is None else self.student.model

    def teacher_seeds(self, seed: int) -> tuple[int, ...]:
        """The seeds of the teachers that the run with `seed` learns from; its baseline is the first."""
        others = tuple(other for other in self.teacher.seeds if other != seed)
        return (seed, *others) if seed in self.teacher.seeds or not self.teacher.seeds else others


def _config_called(name: str) -> type[Config]:
    """The config class of that name, for an error in a Python recipe; `Recipe` if there is none."""
    found = [kind for kind in _below(Config) if kind.__name__ == name]
    return found[0] if found else Recipe


def _below(kind: type[Config]) -> list[type[Config]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _below(child))]


def read_recipe(source: Path | str | None, **changes: Any) -> Recipe:
    """The recipe of a TOML or JSON file, the variable `recipe` of a Python file, or the main job; some keys changed.

    A recipe in TOML without a `name` has that of its file; its table `search`, if any, is not of the recipe.

    Raises:
        InputError: the file cannot be read, or holds an unknown key or a value that is not allowed.
    """
    if source is None:
        return Recipe.parse(changes, "recipe")
    path = Path(source)
    if path.suffix == ".py":
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        try:
            recipe = runpy.run_path(str(path)).get("recipe")
        except ValidationError as error:
            raise InputError(describe(error, _config_called(error.title), str(path))) from None
        if not isinstance(recipe, Recipe):
            raise InputError(f"{path}: has no variable `recipe` that is a slimrank.Recipe")
        return Recipe.parse(recipe.model_dump() | changes, str(path)) if changes else recipe
    values = {key: value for key, value in read_table(path).items() if key != "search"}
    return Recipe.parse({"name": path.stem} | values | changes, str(path))
