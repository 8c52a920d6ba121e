"""A TensorFlow model of clicks: trained, saved, converted with tf2onnx, compressed as a graph, and a teacher's scores.

    python -m bench.peers.tensorflow SCORES

Two towers in one, of NeuMF's form (He et al. 2017, arXiv 1708.05031) over the ten fields of Frappe: the product of user
and item beside an MLP of all fields. SCORES becomes a Parquet file of the model's logits of the train rows, in their
order, as `slimrank.read_scores` takes them. The epoch is chosen on validation rows; nothing is chosen on test rows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")

import keras
import numpy as np
import polars as pl
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

import slimrank
from bench.peers.choosing import smallest
from bench.peers.row import Arrays, Judged, OnnxFile, figures, first, graph_maker, tell
from slimrank.data.rows import EncodedDataset, Rows
from slimrank.metrics import auc

DIM, HIDDEN, PRODUCT = 16, (128, 64), ("user", "item")
EPOCHS, BATCH, RATE, DROPOUT = 6, 1024, 2e-3, 0.2
OPSET = 17
LOSS = 0.001  # of AUC on validation rows
WAYS: list[list[dict[str, Any]]] = [
    [{"name": "quantize-tables", "bits": tables}, {"name": "quantize-dense", "bits": layers}]
    for tables, layers in ((4, 4), (4, 8), (8, 4), (8, 8))
]


def click_model(sizes: dict[str, int]) -> keras.Model:
    """Ids of every field [N] to a logit [N, 1]."""
    ids = {name: layers.Input((), dtype="int32", name=name) for name in sizes}
    rows = {name: layers.Embedding(size, DIM, name=f"{name}_embedding")(ids[name]) for name, size in sizes.items()}
    deep = layers.Concatenate()(list(rows.values()))
    for width in HIDDEN:
        deep = layers.Dropout(DROPOUT)(layers.Dense(width, activation="relu")(deep))
    product = layers.Multiply()([rows[name] for name in PRODUCT])
    logit = layers.Dense(1, name="logit")(layers.Concatenate()([product, deep]))
    return keras.Model(ids, logit)


def columns(rows: Rows, names: list[str]) -> dict[str, NDArray[np.int32]]:
    """Ids by field, as the model takes them."""
    ids = rows.inputs.ids.astype(np.int32)
    return {name: np.ascontiguousarray(ids[:, place]) for place, name in enumerate(names)}


def trained(data: EncodedDataset, names: list[str]) -> tuple[keras.Model, float]:
    """The model at the epoch that was best on validation rows, and its AUC there."""
    keras.utils.set_random_seed(1)
    model = click_model(dict(data.encoding.sizes))
    model.compile(keras.optimizers.Adam(RATE), keras.losses.BinaryCrossentropy(from_logits=True))
    best, weights = 0.0, model.get_weights()
    for _ in range(EPOCHS):
        model.fit(columns(data.train, names), data.train.label, batch_size=BATCH, verbose=0)
        reached = float(auc(data.valid.label, logits(model, columns(data.valid, names))))
        if reached > best:
            best, weights = reached, model.get_weights()
    model.set_weights(weights)
    return model, best


def logits(model: keras.Model, ids: Arrays) -> NDArray[np.float32]:
    """What TensorFlow says of rows."""
    found: NDArray[np.float32] = model.predict(dict(ids), batch_size=8192, verbose=0)
    return found.ravel()


def converted(model: keras.Model, folder: Path) -> Path:
    """The model as a SavedModel, and that as an ONNX file."""
    model.export(folder / "saved", verbose=False)
    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", folder / "saved"]
    command += ["--output", folder / "model.onnx", "--opset", str(OPSET)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"tf2onnx failed: {done.stderr.strip()[-800:]}")
    return folder / "model.onnx"


def main(scores: Path) -> None:
    """Print the row, and write the scores."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    data = slimrank.encode_dataset(slimrank.load_dataset("frappe"))
    names = list(data.encoding.sizes)
    model, reached = trained(data, names)
    pl.DataFrame({"score": logits(model, columns(data.train, names))}).write_parquet(scores)
    rows = columns(data.valid, names)
    test = Judged(
        inputs=columns(data.test, names),
        label=data.test.label.astype(np.int64),
        group=data.test.group,
        metrics=("auc", "logloss"),
    )
    with TemporaryDirectory(prefix="bench-") as root:
        before = converted(model, Path(root))
        small, records, told = smallest(
            before,
            WAYS,
            graph_maker(before, Path(root), columns(data.train, names)),
            lambda path: float(auc(data.valid.label, first(OnnxFile(path).run(rows)).ravel())),
            loss=LOSS,
        )
        answers = {"before": logits(model, rows)}
        tables = 4 * DIM * sum(data.encoding.sizes.values())
        row = figures({"before": before, "after": small}, answers, rows, test, tables, records)
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    tell({**versions, "valid_auc": reached, **row, "choice": told})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
