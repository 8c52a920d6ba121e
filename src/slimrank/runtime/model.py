"""A loaded artifact: encoded ids or raw rows in, scores out. Safe to use from several threads at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slimrank.artifact import Artifact, open_artifact
from slimrank.config import InputError
from slimrank.data.encoding import Encoding, Inputs
from slimrank.runtime.checks import Checks
from slimrank.runtime.rows import as_table
from slimrank.runtime.session import any_length, check_operators, check_signature, open_session, without_padding

if TYPE_CHECKING:
    from slimrank.runtime.rows import Rows

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Predictions:
    """Scores of raw rows.

    Attributes:
        probability: float32 [N], sigmoid of the model's logit.
        unknown: by field, how many ids were not in the vocabulary and were scored as out-of-vocabulary.
    """

    probability: NDArray[np.float32]
    unknown: dict[str, int]


@dataclass(frozen=True, eq=False)
class Model:
    """One verified artifact, ready to score. Made by `load`."""

    artifact: Artifact
    encoding: Encoding
    session: Any
    checks: Checks
    feeds: tuple[str, ...]

    def score(self, inputs: Inputs) -> NDArray[np.float32]:
        """Logits, float32 [N], of encoded rows: ids int32 [N, K] local to their fields, numbers float32 [N, M].

        Raises:
            InputError: a type, shape, id or number is not allowed (`Checks`); nothing was scored then.
        """
        self.checks(inputs)
        if len(inputs.ids) == 0:
            return np.empty(0, np.float32)
        if any_length(self.session):
            inputs = Inputs(without_padding(inputs.ids), inputs.numbers)
        feeds = {name: getattr(inputs, name) for name in self.feeds}
        logits: NDArray[np.float32] = self.session.run(["logit"], feeds)[0]
        return logits

    def predict(self, rows: Rows) -> Predictions:
        """Probabilities of raw rows: a polars frame, a mapping of columns or a list of rows.

        Ids that the vocabulary does not hold are scored as out-of-vocabulary and counted.

        Raises:
            InputError: a column is missing or of the wrong type, a number is NaN or infinite, a raw id is out of range.
        """
        inputs, unknown = self.encoding.encode_counting(as_table(rows, self.encoding.schema))
        return Predictions(sigmoid(self.score(inputs)), unknown)


def load(path: str | Path, *, threads: int = 1) -> Model:
    """Verify the artifact in `path` and open it with that many threads per call.

    Raises:
        InputError: the artifact is damaged (`open_artifact`), uses an operator that is not allowed, does not
            load, or does not take what its schema says.
    """
    return opened(path, threads, _open)


def opened(path: str | Path, threads: int, make: Callable[[Artifact, int], Loaded]) -> Loaded:
    """What `make` makes of the verified artifact in `path`; one that is replaced meanwhile is opened again."""
    if type(threads) is not int or threads < 1:
        raise InputError(f"threads is {threads!r}, must be an integer of at least 1")
    for _ in range(8):
        artifact = open_artifact(path)
        try:
            model = make(artifact, threads)
        except (InputError, OSError):
            if artifact.unchanged():
                raise
            continue
        if artifact.unchanged():
            return model
    raise InputError(f"{path}: the artifact is being replaced over and over; try again")


def predict(path: str | Path, rows: Rows) -> Predictions:
    """Probabilities of raw rows by the artifact in `path`, loaded for this one call (`load` it to ask more than once).

    Raises:
        InputError: as `load` and `Model.predict`.
    """
    return load(path).predict(rows)


def _open(artifact: Artifact, threads: int) -> Model:
    check_operators(artifact)
    encoding = Encoding.load(artifact.path)
    session = open_session(artifact, threads)
    if answers_with_items(artifact):
        raise InputError(f"{artifact.path}: answers with items or vectors, not with a score for each row")
    check_signature(session, encoding.schema, artifact.files["model.onnx"])
    feeds = tuple(each.name for each in session.get_inputs())
    return Model(artifact, encoding, session, Checks.of(encoding.schema, encoding.sizes), feeds)


def answers_with_items(artifact: Artifact) -> bool:
    """Whether an artifact is a `Retriever`'s: the manifest lists outputs, and no logit among them."""
    outputs = artifact.manifest.get("outputs", [])
    names = [each.get("name") for each in outputs if isinstance(each, Mapping)]
    return bool(names) and "logit" not in names


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)) in float64, of any shape, rounded to float32; exp is only taken of numbers <= 0.

    >>> sigmoid(np.array([0.0, 1000.0, -1000.0], np.float32)).tolist()
    [0.5, 1.0, 0.0]
    """
    decay = np.exp(-np.abs(logits.astype(np.float64)))
    return (np.where(logits >= 0, 1.0, decay) / (1.0 + decay)).astype(np.float32)
