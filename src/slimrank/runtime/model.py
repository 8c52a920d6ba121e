"""A loaded artifact: encoded ids or raw rows in, scores out. Safe to use from several threads at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slimrank.data.encoding import Inputs
from slimrank.runtime.opened import Opened, opened

if TYPE_CHECKING:
    from slimrank.runtime.rows import Rows


@dataclass(frozen=True)
class Predictions:
    """Scores of raw rows.

    Attributes:
        probability: float32 [N], sigmoid of the model's logit.
        unknown: by field, how many ids were not in the vocabulary and were scored as out-of-vocabulary.
        shortened: by sequence or text field, how many rows were longer than the model reads.
    """

    probability: NDArray[np.float32]
    unknown: dict[str, int]
    shortened: dict[str, int]


@dataclass(frozen=True, eq=False)
class Model(Opened):
    """One verified artifact, ready to score. Made by `load`."""

    def score(self, inputs: Inputs) -> NDArray[np.float32]:
        """Logits, float32 [N], of encoded rows: ids int32 [N, K] local to their fields, numbers float32 [N, M].

        Raises:
            InputError: a type, shape, id or number is not allowed (`Checks`); nothing was scored then.
        """
        self.checks(inputs)
        return self.logits(inputs)

    def logits(self, inputs: Inputs) -> NDArray[np.float32]:
        """The same of inputs that were checked."""
        if len(inputs.ids) == 0:
            return np.empty(0, np.float32)
        given = {"ids": self.padded(inputs.ids), "numbers": inputs.numbers}
        feeds = {name: given[name] for name in self.feeds}
        logits: NDArray[np.float32] = self.session.run(["logit"], feeds)[0]
        return logits

    def predict(self, rows: Rows) -> Predictions:
        """Probabilities of raw rows: a polars frame, a mapping of columns or a list of rows.

        Ids that the vocabulary does not hold are scored as out-of-vocabulary and counted.

        Raises:
            InputError: a column is missing or of the wrong type, a number is NaN or infinite, a raw id is out of range.
        """
        inputs, unknown, shortened = self.encoder(rows)
        return Predictions(sigmoid(self.score(inputs)), unknown, shortened)


def load(path: str | Path, *, threads: int = 1) -> Model:
    """Verify the artifact in `path` and open it with that many threads per call.

    Raises:
        InputError: the artifact is damaged (`open_artifact`), uses an operator that is not allowed, does not
            load, or does not take what its schema says.
    """
    return opened(Model, path, threads, with_items=False)


def predict(path: str | Path, rows: Rows) -> Predictions:
    """Probabilities of raw rows by the artifact in `path`, loaded for this one call (`load` it to ask more than once).

    Raises:
        InputError: as `load` and `Model.predict`.
    """
    return load(path).predict(rows)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)) in float64, of any shape, rounded to float32; exp is only taken of numbers <= 0.

    >>> sigmoid(np.array([0.0, 1000.0, -1000.0], np.float32)).tolist()
    [0.5, 1.0, 0.0]
    """
    decay = np.exp(-np.abs(logits.astype(np.float64)))
    return (np.where(logits >= 0, 1.0, decay) / (1.0 + decay)).astype(np.float32)
