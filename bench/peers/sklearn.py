"""Models of scikit-learn's kind on Frappe: fitted, converted, compressed as graphs, and both files measured.

    python -m bench.peers.sklearn mlp|linear|trees

Ids are one-hot for the first two, as a pipeline has them; LightGBM takes them as numbers. The way
is chosen on validation rows; test rows choose nothing.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx
import sklearn
from lightgbm import LGBMClassifier
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import slimrank
from bench.peers.choosing import smallest
from bench.peers.row import Judged, OnnxFile, figures, graph_maker, tell
from slimrank.data.rows import Rows
from slimrank.metrics import auc

TREES, LEAVES, HIDDEN, EPOCHS = 500, 31, (64, 32), 6
COLUMNS = 10
LOSS = 0.001  # of AUC on validation rows
LAYERS: dict[str, Any] = {"name": "quantize-dense", "bits": 4}


class Kind(NamedTuple):
    """How a model is made and in which ways compressed, the type of numbers it takes, and the bytes of its tables."""

    make: Callable[[], Any]
    ways: list[list[dict[str, Any]]]
    dtype: type[np.generic]
    table_bytes: Callable[[Any], int]


def one_hot(model: Any) -> Any:
    """A pipeline that takes ids."""
    return make_pipeline(OneHotEncoder(handle_unknown="ignore", dtype=np.float32), model)


KINDS = {
    "mlp": Kind(
        lambda: one_hot(
            MLPClassifier(HIDDEN, batch_size=1024, learning_rate_init=2e-3, max_iter=EPOCHS, random_state=0)
        ),
        [
            [{"name": "codebook-tables", "parts": 16}, LAYERS],
            [{"name": "quantize-tables", "bits": 4}, LAYERS],
            [{"name": "codebook-tables", "parts": 32}, LAYERS],
            [{"name": "quantize-tables", "bits": 8}, LAYERS],
        ],
        np.int64,
        lambda model: 4 * model.steps[-1][1].coefs_[0].size,
    ),
    "linear": Kind(
        lambda: one_hot(LogisticRegression(max_iter=60)),
        [[{"name": "quantize-tables"}, {"name": "quantize-dense"}]],
        np.int64,
        lambda model: 4 * model.steps[-1][1].coef_.size,
    ),
    "trees": Kind(
        lambda: LGBMClassifier(n_estimators=TREES, num_leaves=LEAVES, n_jobs=1, random_state=0, verbose=-1),
        [[{"name": "pack-trees"}]],
        np.float32,
        lambda model: 0,
    ),
}


def converted(model: Any, path: Path) -> None:
    """The ONNX file of a fitted model, by its own converter."""
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import Int64TensorType

    if isinstance(model, LGBMClassifier):
        proto = convert_lightgbm(model, initial_types=[("X", FloatTensorType([None, COLUMNS]))], zipmap=False)
    else:
        options = {id(model.steps[-1][1]): {"zipmap": False}}
        proto = convert_sklearn(model, initial_types=[("X", Int64TensorType([None, COLUMNS]))], options=options)
    onnx.save(proto, path)


def probability(answer: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """That of a click."""
    return answer["probabilities"][:, 1]


def main(name: str) -> None:
    """Print the row."""
    warnings.simplefilter("ignore")  # rounds are few on purpose
    kind, data = KINDS[name], slimrank.encode_dataset(slimrank.load_dataset("frappe"))

    def columns(rows: Rows) -> NDArray[Any]:
        return rows.inputs.ids.astype(kind.dtype)

    model = kind.make().fit(columns(data.train), data.train.label.astype(np.int64))
    rows = {"X": columns(data.valid)}
    test = Judged(
        inputs={"X": columns(data.test)},
        label=data.test.label.astype(np.int64),
        group=data.test.group,
        metrics=("auc", "logloss"),
        answer=probability,
        probabilities=True,
    )
    with TemporaryDirectory(prefix="bench-") as root:
        before = Path(root) / "model.onnx"
        converted(model, before)
        small, records, told = smallest(
            before,
            kind.ways,
            graph_maker(before, Path(root), {"X": columns(data.train)}),
            lambda path: float(auc(data.valid.label, probability(OnnxFile(path).run(rows)))),
            loss=LOSS,
        )
        answers = {"before": model.predict_proba(rows["X"])[:, 1]}
        row = figures({"before": before, "after": small}, answers, rows, test, kind.table_bytes(model), records)
    tell({"scikit-learn": sklearn.__version__, **row, "choice": told})


if __name__ == "__main__":
    main(sys.argv[1])
