"""Models of other libraries, compressed as they come: bytes touched, ratio, quality, parity and latency of each.

One row a library, each in a process of its own (`bench/peers/NAME.py`), and where the library does not go with ours in
an environment of its own (`bench/peers/ENVIRONMENT.sh`); all figures are of exported artifacts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import slimrank
from bench.peers import in_environment, run_alone
from slimrank.config import InputError
from slimrank.data.files import data_folder, locate

KERAS_FILES = ("gmf-8.h5", "ml-1m.test.rating", "ml-1m.test.negative.gz")
STUDENT = {"name": "dnn", "embedding_dim": 8, "hidden": (32, 16)}
NO_WORSE = {"post_training.quality.auc.change": -0.001, "fine_tuned.quality.auc.change": -0.001}
CLICKS = {"quality.auc.change": -0.001}
TENSORFLOW = "TensorFlow: SavedModel of NeuMF's form, by tf2onnx"
TWICE = {
    "post_training.times_smaller": 8,
    "post_training.quality.auc.change": -0.001,
    "fine_tuned.times_smaller": 24,
    "fine_tuned.quality.auc.change": -0.001,
}


def nothing() -> list[str]:
    """No argument."""
    return []


def keras_files() -> list[str]:
    """Where the weights of GMF-8 and its test rows are.

    Raises:
        InputError: they are not there.
    """
    files = locate(None, ["ml-1m-ncf"], [KERAS_FILES])
    if files is None:
        raise InputError(f"byo-keras needs ml-1m-ncf/{', '.join(KERAS_FILES)} in SLIMRANK_DATA")
    return [str(files[0].resolve().parent)]


def scifact_folder() -> list[str]:
    """Where SciFact is.

    Raises:
        InputError: SLIMRANK_DATA names no directory.
    """
    folder = data_folder(None)
    if folder is None:
        raise InputError("SLIMRANK_DATA names no directory: it holds scifact/")
    return [str((folder / "scifact").resolve())]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        model: what it is and whose, in words.
        asked: the rows it is judged by.
        module: of `bench.peers`, which makes it.
        environment: where it runs; that of the benchmarks where none is named.
        arguments: of its command line.
        keeps: whether it keeps what it has trained in a directory, named before the arguments.
        goal: what it must reach.
    """

    model: str
    asked: str
    module: str
    environment: str | None = None
    arguments: Callable[[], list[str]] = nothing
    goal: Mapping[str, float] = field(default_factory=dict)
    keeps: bool = False

    def __call__(self, folder: Path) -> dict[str, Any]:
        """Its figures; `folder` is where it may keep what it has trained.

        Raises:
            InputError: data or the environment is not there, or the process failed.
        """
        arguments = [*([str(folder)] if self.keeps else []), *self.arguments()]
        if self.environment is None:
            found = run_alone(self.module, *arguments)
        else:
            found = in_environment(self.module, *arguments, environment=self.environment)
        goal = {"embedding_bytes_touched": 0.99, **self.goal}
        what = f"{self.model}: {self.asked}; both artifacts, one thread"
        return {"what": what, "model": self.model, **found, "goal": goal}


def tensorflow(folder: Path) -> dict[str, Any]:
    """A click model of TensorFlow by its SavedModel and tf2onnx, and a student that learns from its scores.

    Raises:
        InputError: the environment is not there, or Frappe is not.
    """
    dataset = slimrank.load_dataset("frappe")
    data = slimrank.encode_dataset(dataset)
    with TemporaryDirectory(prefix="bench-") as made:
        scores = Path(made) / "scores.parquet"
        row = in_environment("tensorflow", str(scores))
        teacher = slimrank.read_scores(scores, dataset.train)
        student = slimrank.train(STUDENT, data, slimrank.Training(epochs=6), seed=1, teachers=[teacher])
        slimrank.export(student, data.encoding, Path(made) / "student")
        found = slimrank.evaluate({"student": Path(made) / "student"}, dataset)["student"]
    return {
        "what": f"{TENSORFLOW}: Frappe; 4-bit tables and int8 layers, post-training; a student of its scores",
        "model": TENSORFLOW,
        **row,
        "student": {"model": STUDENT, "quality": found["quality"], "bytes": found["bytes"]},
        "goal": {"embedding_bytes_touched": 0.99, **CLICKS},
    }


ROWS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "fuxictr": Row(
        "FuxiCTR: DCNv2", "Frappe, trained on by its own `fit`", "fuxictr", "fuxictr", goal=TWICE, keeps=True
    ),
    "torch-rechub": Row(
        "torch-rechub: DeepFM", "Frappe, trained on by its own trainer", "torch_rechub", goal=TWICE, keeps=True
    ),
    "deepctr": Row(
        "DeepCTR-Torch: DeepFM", "Frappe, trained on by its own `fit`", "deepctr", "deepctr", goal=NO_WORSE, keeps=True
    ),
    "recbole-deepfm": Row("RecBole: DeepFM", "Frappe", "recbole_models", "recbole", lambda: ["DeepFM"], CLICKS),
    "recbole-sasrec": Row(
        "RecBole: SASRec",
        "MovieLens-100K, the last film of each user among all",
        "recbole_models",
        "recbole",
        lambda: ["SASRec"],
    ),
    "recbole-bpr": Row(
        "RecBole: BPR",
        "MovieLens-100K, a tenth of each user's films among all that training had not",
        "recbole_models",
        "recbole",
        lambda: ["BPR"],
    ),
    "torchrec": Row(
        "TorchRec: DLRM over an EmbeddingBagCollection",
        "Frappe, trained on by the same loop",
        "torchrec",
        "torchrec",
        goal=NO_WORSE,
        keeps=True,
    ),
    "sentence-transformers": Row(
        "sentence-transformers: all-MiniLM-L6-v2",
        "SciFact, test queries over all documents",
        "sentence_transformers",
        "sentence-transformers",
        scifact_folder,
    ),
    "keras": Row(
        "Keras: GMF-8 of NCF, from its weights",
        "MovieLens-1M, leave-one-out among 100, all users",
        "keras",
        arguments=keras_files,
        goal={"times_smaller": 6, "quality.hit_rate@10.change": -0.003, "quality.ndcg@10.change": -0.003},
    ),
    "tensorflow": tensorflow,
    "sklearn-mlp": Row("scikit-learn: MLP of one-hot ids, by skl2onnx", "Frappe", "sklearn", arguments=lambda: ["mlp"]),
    "sklearn-linear": Row(
        "scikit-learn: logistic regression of one-hot ids", "Frappe", "sklearn", arguments=lambda: ["linear"]
    ),
    "sklearn-trees": Row(
        "LightGBM: 500 trees, by onnxmltools",
        "Frappe, the same trees in fewer bytes",
        "sklearn",
        arguments=lambda: ["trees"],
        goal={"embedding_bytes_touched": 0.0},
    ),
}
