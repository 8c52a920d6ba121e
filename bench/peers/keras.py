"""GMF-8 from its published Keras weights: compressed after training, and both artifacts measured.

    python -m bench.peers.keras FOLDER

FOLDER holds `gmf-8.h5`, `ml-1m.test.rating` and `ml-1m.test.negative.gz`. Which way of storing the rows is taken is
told by the error in scores of pairs drawn at random among all users and films: no test pair has a part in it.
"""

from __future__ import annotations

import gzip
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from keras import layers
from numpy.typing import NDArray

import slimrank
from bench.peers.row import Judged, figures, tell

USERS, ITEMS, DIM = 6040, 3706, 8
WAYS: list[dict[str, Any]] = [
    {"name": "quantize-tables", "bits": 4},
    {"name": "quantize-tables", "bits": 4, "symmetric": False},
    {"name": "codebook-tables", "parts": 4, "bits": 8},
    {"name": "codebook-tables", "parts": 2, "bits": 8},
]


def gmf(weights: Path) -> keras.Model:
    """The architecture of NCF's GMF with 8 factors, and its weights."""
    user, item = (layers.Input((1,), dtype="int32", name=f"{each}_input") for each in ("user", "item"))
    sides = [
        layers.Flatten(name=f"flatten_{place}")(layers.Embedding(rows, DIM, name=f"{each}_embedding")(ids))
        for place, (each, rows, ids) in enumerate((("user", USERS, user), ("item", ITEMS, item)), 1)
    ]
    score = layers.Dense(1, activation="sigmoid", name="prediction")(layers.Multiply(name="merge_1")(sides))
    model = keras.Model([user, item], score)
    model.load_weights(weights, by_name=True)
    return model


def pairs(seed: int, count: int = 1 << 14) -> dict[str, torch.Tensor]:
    """Users and films drawn at random, every user and every film among them."""
    draw = np.random.default_rng(seed)
    ids = {
        name: np.concatenate([draw.permutation(rows), draw.integers(0, rows, count - rows)])
        for name, rows in (("user_input", USERS), ("item_input", ITEMS))
    }
    return {name: torch.from_numpy(values.reshape(-1, 1)) for name, values in ids.items()}


def leave_one_out(folder: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The film that each user met last [users], and with it behind 99 others [users, 100]."""
    last = np.loadtxt(folder / "ml-1m.test.rating", dtype=np.int64)[:, :2]
    with gzip.open(folder / "ml-1m.test.negative.gz") as file:
        others = np.array([[int(film) for film in line.split(b"\t")[1:]] for line in file])
    return last[:, 0], np.concatenate([others, last[:, 1:]], axis=1)


def judged(folder: Path) -> Judged:
    """Every user's last film among the others, of which one that is that film again is left out."""
    users, films = leave_one_out(folder)
    last = np.arange(films.shape[1]) == films.shape[1] - 1
    kept = (films != films[:, -1:]) | last
    label, user = (np.broadcast_to(each, films.shape)[kept] for each in (last, users[:, None]))
    inputs = {"user_input": user.reshape(-1, 1), "item_input": films[kept].reshape(-1, 1)}
    return Judged(inputs=inputs, label=label.astype(np.int64), group=user, metrics=("hit_rate@10", "ndcg@10"))


def chosen(model: keras.Model) -> tuple[keras.Model, list[dict[str, Any]], list[dict[str, Any]]]:
    """The way whose scores err least among those that make the tables six times smaller: model, records, all ways."""
    rows, tried = pairs(seed=1), []
    with torch.no_grad():
        expected = model(rows)
        for way in WAYS:
            small, records = slimrank.compress(model, [way], [pairs(seed=0)])
            error = float((small(rows) - expected).square().mean())
            tried.append((error, records[0]["bytes_before"] / records[0]["bytes_after"], small, records))
    fit = [each for each in tried if each[1] >= 6]
    best = min(fit, key=lambda each: each[0])
    told = [{"way": way, "error": each[0], "times_smaller": each[1]} for way, each in zip(WAYS, tried, strict=True)]
    return best[2], best[3], told


def main(folder: Path) -> None:
    """Print the row."""
    model = gmf(folder / "gmf-8.h5")
    small, records, ways = chosen(model)
    example = pairs(seed=2)
    with TemporaryDirectory(prefix="bench-") as root, torch.no_grad():
        artifacts = {name: Path(root) / name for name in ("before", "after")}
        for name, each in (("before", model), ("after", small)):
            slimrank.export(each, example, artifacts[name])
        answers = {name: each(example).numpy() for name, each in (("before", model), ("after", small))}
        rows = {name: value.numpy() for name, value in example.items()}
        row = figures(artifacts, answers, rows, judged(folder), 4 * DIM * (USERS + ITEMS), records)
    tell({"keras": keras.__version__, **row, "ways": ways})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
