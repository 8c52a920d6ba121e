"""A classifier of clicks for scikit-learn: `fit` trains, distils and compresses, and what was exported answers.

All of it is the verbs of `api.py` on the rows of a `Pipeline`, `GridSearchCV` or `cross_val_score`, with the main job's
student, steps and training where nothing else is said. Left out: more than two classes, sample weights, which no loss
here knows, and sparse matrices.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from slimrank import api, runtime
from slimrank.artifact import MANIFEST, SEALED_KEYS, open_artifact, write_artifact
from slimrank.config import Config, InputError, as_config, name_of, runner
from slimrank.data.frames import Categorical, as_frame, is_frame, looked_up
from slimrank.data.rows import Dataset, EncodedDataset, encode_dataset, fingerprint, without_constants
from slimrank.data.schema import infer_schema
from slimrank.evaluation.machine import versions
from slimrank.models.architecture import build_model
from slimrank.models.layers import Network, Ranker
from slimrank.recipe import Recipe, Student
from slimrank.tables.embedding import Layout
from slimrank.training.loop import Training
from slimrank.training.losses.loss import Distillation
from slimrank.training.teachers import METHODS, Teacher, estimator_scores
from slimrank.training.warm_start import start_table

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, clone
    from sklearn.utils import _safe_indexing, check_random_state
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
except ModuleNotFoundError:
    raise InputError("SlimClassifier needs scikit-learn: pip install 'slimrank[sklearn]'") from None

EPOCH = 64  # steps that an epoch of few rows has at least, so that it is more than the one of a large batch ...
SMALLEST_BATCH = 16  # ... down to this many rows each


class SlimClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A small, compressed model of two classes, which answers from the artifact that it ships.

    Columns of text or of a category's type are looked up in tables, others are numbers. A missing number counts as the
    mean, a missing or new category as out of vocabulary; columns of one value are not read. Give ids as ids: in their
    one-hot encoding nothing is left to look up.

    Args:
        teacher: where soft labels come from; None: no teacher. An estimator with `predict_proba`, `decision_function`
            or `predict` (`estimator_scores`) is cloned and fitted to the train rows as they came, with labels 0 and 1;
            one that is fitted already stays as it is in `sklearn.frozen.FrozenEstimator`. A model of this package (a
            name, a mapping with a key `name`, or a config) is trained as the student is, which starts with its tables.
        student: a model of this package; None: the main job's DNN.
        steps: what compresses it, in order; None: the main job's, tables in 4 bits and layers in 8; (): nothing.
        training: a `Training`, or keys that differ from the main job's. What steps changed is retrained, half as long.
        distillation: a `Distillation`, or some of its keys.
        categorical_features: columns that are looked up, as in scikit-learn's `HistGradientBoostingClassifier`:
            "from_dtype", None for no column, or names, positions or a mask.
        validation_fraction: the share of each class's rows, at least one, that the best epoch is chosen on; neither
            student nor teacher is fitted to them.
        random_state: None, an int or a `RandomState`.

    Attributes:
        classes_: [2]; the second one is the click.
        n_features_in_: columns of X; `feature_names_in_`: their names, where X is a frame.
        is_categorical_: bool [n_features_in_], the columns that are looked up.
        steps_: a record for each step: what it touched, and what it skipped and why.
        artifact_: the artifact's files as bytes, by name. The teacher is not kept.
    """

    def __init__(
        self,
        teacher: Any = None,
        *,
        student: Config | Mapping[str, Any] | str | None = None,
        steps: Sequence[Config | Mapping[str, Any] | str] | None = None,
        training: Training | Mapping[str, Any] | None = None,
        distillation: Distillation | Mapping[str, Any] | None = None,
        categorical_features: Categorical = "from_dtype",
        validation_fraction: float = 0.1,
        random_state: Any = None,
    ):
        self.teacher = teacher
        self.student = student
        self.steps = steps
        self.training = training
        self.distillation = distillation
        self.categorical_features = categorical_features
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: ArrayLike) -> SlimClassifier:
        """Train, distil, compress and export, on rows X [N, F] (array, pandas or polars frame) of classes y [N].

        Raises:
            InputError: a setting is not allowed, y has not two classes with two rows each, or a column is unfit.
            ValueError, TypeError: as scikit-learn's estimators, where X and y are no rows and classes at all.
        """
        label = validate_data(self, y=y)
        rows = self._rows(X, reset=True)
        check_consistent_length(rows, label)
        self.classes_, target = two_classes(label)
        draw = check_random_state(self.random_state)
        train, valid = parted(target, self.validation_fraction, draw)
        plan = Plan.of(self, len(train), int(draw.randint(2**31 - 1)))
        frame = as_frame(rows, self._names())
        self.is_categorical_ = looked_up(rows, frame, self.categorical_features)
        dataset = dataset_of(frame, self.is_categorical_, target, (train, valid))
        data = encode_dataset(dataset)
        teachers = (
            [] if self.teacher is None else [self._taught(_safe_indexing(rows, train), target[train], data, plan)]
        )
        model, self.steps_ = plan.carried_out(data, teachers)
        self.artifact_ = exported(model, data, plan.record() | {"data_fingerprint": dataset.fingerprint})
        self._model = opened(self.artifact_)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Logits [N] of the second class, by the artifact."""
        check_is_fitted(self)
        frame = as_frame(self._rows(X, reset=False), self._names())
        return self._model.score(self._model.encoding.encode(frame)).astype(np.float64)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities [N, 2] of the classes, in the order of `classes_`."""
        logit = self.decision_function(X)
        return np.exp(-np.logaddexp(0.0, np.stack([logit, -logit], axis=1)))  # sigmoid, of -logit and of logit

    def predict(self, X: Any) -> NDArray[Any]:
        """The more probable class [N]."""
        second = self.decision_function(X) > 0
        found: NDArray[Any] = self.classes_[second.astype(np.intp)]
        return found

    def export(self, path: Path | str) -> None:
        """Write the artifact to the directory `path`, for `slimrank.load`, `slimrank predict` and `slimrank serve`.

        Raises:
            InputError: it cannot be written there.
            NotFittedError: there is none yet.
        """
        check_is_fitted(self)
        manifest = json.loads(self.artifact_[MANIFEST])
        files = {name: content for name, content in self.artifact_.items() if name != MANIFEST}
        write_artifact(path, files, {key: value for key, value in manifest.items() if key not in SEALED_KEYS})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_model"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "artifact_" in state:
            self._model = opened(self.artifact_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = True
        return tags

    def _rows(self, X: Any, *, reset: bool) -> Any:
        """X as it is where it is a frame, else as an array; with as many columns and the names that `fit` met."""
        if is_frame(X):
            return validate_data(self, X, reset=reset, skip_check_array=True)
        return validate_data(self, X, reset=reset, dtype=None, ensure_all_finite="allow-nan")

    def _names(self) -> list[str]:
        """The columns' names; x0, x1, ... where X has none."""
        return [str(name) for name in getattr(self, "feature_names_in_", ())] or [
            f"x{place}" for place in range(self.n_features_in_)
        ]

    def _taught(self, rows: Any, target: NDArray[np.int64], data: EncodedDataset, plan: Plan) -> Teacher:
        """The teacher, fitted to the train rows: a model, or what an estimator says of them."""
        if isinstance(self.teacher, Config | Mapping | str):
            return api.train(self.teacher, data, plan.training, seed=plan.seed)
        if not any(hasattr(self.teacher, name) for name in METHODS):
            raise InputError(
                f"teacher is of type {type(self.teacher).__name__}. Allowed: None, an estimator with one of "
                f"{', '.join(METHODS)}, or a model's name or config."
            )
        estimator = clone(self.teacher).fit(rows, target)
        known, own = np.asarray(getattr(estimator, "classes_", [0, 1])).tolist(), self.classes_.tolist()
        if known not in ([0, 1], own):
            raise InputError(f"teacher was fitted to the classes {known}. Allowed: {own}, or 0 and 1 in their place.")
        return estimator_scores(estimator, rows)


@dataclass(frozen=True)
class Plan:
    """What is trained and how, every setting checked before the first hour of work."""

    student: Config
    steps: tuple[Config, ...]
    training: Training
    distillation: Distillation
    seed: int

    @classmethod
    def of(cls, settings: SlimClassifier, rows: int, seed: int) -> Plan:
        """What the parameters say for that many train rows; the main job's where they say nothing.

        Raises:
            InputError: a name, a key or a value is not allowed, or the student scores no rows.
        """
        usual = Recipe()
        student = as_config("model", Student().model if settings.student is None else settings.student)
        if not issubclass(runner("model", student), Ranker):  # type: ignore[arg-type]
            raise InputError(f"student {name_of(student)!r} finds items; a model that scores rows is needed")
        steps = usual.steps if settings.steps is None else settings.steps
        batch = min(Student().training.batch_size, max(SMALLEST_BATCH, rows // EPOCH))
        return cls(
            student,
            tuple(as_config("step", step) for step in steps),
            _changed(Student().training.model_copy(update={"batch_size": batch}), settings.training, "training"),
            _changed(Distillation(), settings.distillation, "distillation"),
            seed,
        )

    def carried_out(self, data: EncodedDataset, teachers: Sequence[Teacher]) -> tuple[Network, list[dict[str, Any]]]:
        """The student, trained, compressed and retrained, and the record of its steps."""
        model = build_model(self.student, Layout.of(data.encoding), self.seed)
        networks = [teacher for teacher in teachers if isinstance(teacher, Network)]
        if networks:
            start_table(model, networks, data.encoding.counts)
        lessons: dict[str, Any] = {"seed": self.seed, "teachers": teachers, "distillation": self.distillation}
        model = api.train(model, data, self.training, **lessons)
        if not self.steps:
            return model, []
        model, records = api.compress(model, self.steps, data, seed=self.seed)
        return api.train(model, data, self.retraining, **lessons), records

    @property
    def retraining(self) -> Training:
        """Half the epochs at half the rate, all of them: a model that was just compressed is not at its best yet."""
        halves = {"epochs": ceil(self.training.epochs / 2), "learning_rate": self.training.learning_rate / 2}
        return self.training.model_copy(update={**halves, "patience": 0})

    def record(self) -> dict[str, Any]:
        """What the artifact's manifest says of where it comes from."""
        recipe = {name: getattr(self, name).model_dump(mode="json") for name in ("student", "training", "distillation")}
        recipe["steps"] = [step.model_dump(mode="json") for step in self.steps]
        return {"name": "SlimClassifier", "recipe": recipe, "seed": self.seed, "versions": versions()}


C = TypeVar("C", bound=Config)


def _changed(usual: C, given: C | Mapping[str, Any] | None, where: str) -> C:
    """A whole config as it is, or `usual` with the keys that are given."""
    if isinstance(given, type(usual)):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise InputError(f"{where} is {given!r}. Allowed: None, a {type(usual).__name__}, or a mapping of its keys.")
    return type(usual).parse({**usual.model_dump(), **(given or {})}, where)


def two_classes(label: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes [2] in order, and for every row 0 or 1 [N].

    Raises:
        InputError: there are more, or there is one.
    """
    check_classification_targets(label)
    kind = type_of_target(label, input_name="y", raise_unknown=True)
    if kind != "binary":
        raise InputError(f"Only binary classification is supported. The type of the target is {kind}.")
    classes, target = np.unique(label, return_inverse=True)
    if len(classes) == 1:
        raise InputError(f"y has one class, {classes.tolist()[0]!r}, in all {len(label)} rows: two are needed")
    return classes, target


def parted(
    target: NDArray[np.int64], fraction: float, draw: np.random.RandomState
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows to fit and to choose on, in order: `fraction` of each class goes to the latter, and one row at least.

    Raises:
        InputError: the fraction is not between 0 and 1, or a class has one row.
    """
    if not isinstance(fraction, float) or not 0 < fraction < 1:
        raise InputError(f"validation_fraction is {fraction!r}. Allowed: a float between 0 and 1.")
    held = []
    for each in (0, 1):
        own = draw.permutation(np.flatnonzero(target == each))
        if len(own) < 2:
            raise InputError("y has one sample of a class: each needs two, one to fit and one to choose on")
        held.append(own[: min(max(1, round(fraction * len(own))), len(own) - 1)])
    valid = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(target)), valid), valid


def dataset_of(
    frame: pl.DataFrame,
    is_categorical: NDArray[np.bool_],
    target: NDArray[np.int64],
    parts: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> Dataset:
    """The frame with its labels in train and valid rows; no rows are kept for a test.

    Raises:
        InputError: no column has two values in train.
    """
    label = "label"
    while label in frame.columns:
        label += "_"
    kinds = np.where(is_categorical, "categorical", "numeric").tolist()
    overrides = {name: {"kind": kind} for name, kind in zip(frame.columns, kinds, strict=True)}
    train, valid = (frame.with_columns(pl.Series(label, target))[part] for part in parts)
    if all(train[name].n_unique() == 1 for name in frame.columns):
        raise InputError(f"X: each of its {frame.width} columns has one value in all rows, so nothing can be learned")
    schema, _ = without_constants(infer_schema(train, label=label, overrides=overrides), train)
    splits = (train, valid, valid.clear())
    return Dataset("X", schema, *splits, fingerprint(schema, splits))


def exported(model: Network, data: EncodedDataset, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of the model's artifact, by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "artifact"
        api.export(model, data.encoding, path, provenance=provenance)
        return {file.name: file.read_bytes() for file in (path / MANIFEST, *open_artifact(path).files.values())}


def opened(files: Mapping[str, bytes]) -> runtime.Model:
    """The artifact in `files`, verified and ready to score."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # where a mapped file cannot be removed yet
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return runtime.load(folder)
