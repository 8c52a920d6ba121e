"""RecBole's SASRec, BPR and DeepFM, trained a little by RecBole: compressed as they come, trained on, exported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

# RecBole itself is there without what it needs, for its data; to ask for it would load it.
pytest.importorskip("ray", reason="test_elsewhere.py runs this where it is")

from bench.peers.choosing import ways
from bench.peers.recbole_models import Made, answer, tensors

from slimrank.api import compress, export
from slimrank.runtime import load_graph

SETTINGS: dict[str, dict[str, Any]] = {
    "SASRec": {"epochs": 2, "MAX_ITEM_LIST_LENGTH": 20, "hidden_size": 32, "inner_size": 64},
    "BPR": {"epochs": 4},
    "DeepFM": {"epochs": 1},
}


@pytest.fixture(scope="module", params=SETTINGS)
def made(request, tmp_path_factory) -> Iterator[Made]:
    """A trained model; RecBole writes logs to where it is run."""
    folder = tmp_path_factory.mktemp(request.param)
    with contextlib.chdir(folder):
        yield Made(request.param, folder, **SETTINGS[request.param])


def test_it_is_compressed_as_it_comes_and_exported(made, library, tmp_path) -> None:
    (example,) = tensors({name: array[:64] for name, array in made.judged("test").inputs.items()})

    def said(model: torch.nn.Module) -> torch.Tensor:
        return torch.from_numpy(answer(model, example, made.task.forward))

    steps = ways(*made.task.narrow)[0]
    batches = [{name: column[:256] for name, column in batch.items()} for batch in made.batches()[:4]]
    given = library(made.model, batches, example, said, made.task.forward, steps=steps)
    given.check(tmp_path, smaller=3)
    small, _ = given.compressed()
    before, after = made.metric(made.model), made.metric(small)
    assert after > before - 0.02
    made.fit(small, epochs=1)
    assert made.metric(small) > after - 0.02


def test_batches_of_its_own_loaders_serve_as_they_are(made, tmp_path: Path) -> None:
    batch = next(iter(made.train))
    small, records = compress(made.model, ["quantize-tables"], [batch])
    assert records[0]["skipped"] == []
    export(small, batch, tmp_path / "artifact")
    graph = load_graph(tmp_path / "artifact")
    (found,) = graph.run({name: batch[name].numpy() for name in graph.inputs}).values()
    with torch.no_grad():
        np.testing.assert_allclose(found, small.eval().predict(batch).numpy(), atol=1e-4)
