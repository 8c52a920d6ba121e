"""The graph of a linear model of items: what it scores, that it needs no more of a history than there is, its bytes."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch

from slimrank.compression.steps import Context, compress
from slimrank.data.rows import EncodedDataset, encode_dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.exporting.artifact import export
from slimrank.exporting.pack import pack
from slimrank.models.architecture import build_model
from slimrank.models.ease import EASE
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples
from slimrank.training.loop import Training, fit

STEPS = {
    "dense": [],
    "pruned": [{"name": "prune-neighbours", "per_item": 16}],
    "pruned, floats": [{"name": "prune-neighbours", "per_item": 16, "bits": 32}],
    "int8": [{"name": "quantize-tables", "bits": 8}],
    "fewer dimensions": [{"name": "reduce-dimensions", "rank": 8, "fold": False}],
    "codes": [{"name": "codebook-tables", "parts": 1, "bits": 4, "only": ["history"]}],
}


@pytest.fixture(scope="module")
def data() -> EncodedDataset:
    """Paths along 60 items on a circle; item 7 is not in train."""
    draw = np.random.default_rng(0)

    def frame(users: int) -> pl.DataFrame:
        paths = (draw.integers(0, 60, (users, 1)) + draw.integers(1, 4, (users, 9)).cumsum(axis=1)) % 60
        lengths = draw.integers(1, 9, users)
        rows = [path[:length].tolist() for path, length in zip(paths, lengths, strict=True)]
        return pl.DataFrame({"history": rows, "item": paths[np.arange(users), lengths], "user": np.arange(users)})

    train = frame(400).with_columns(pl.col("history").list.eval(pl.element().filter(pl.element() != 7)))
    schema = Schema(
        fields=(Field(name="history", kind="sequence", max_length=8),),
        label="item",
        group="user",
        answer="item",
        catalogue="history",
    )
    splits = train.filter(pl.col("item") != 7), frame(60), frame(60)
    return encode_dataset(make_dataset("circle", schema, splits))


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_the_artifact_scores_as_the_packed_model_does(data: EncodedDataset, steps: list, tmp_path: Path) -> None:
    model = build_model(EASE(l2=5.0), Layout.of(data.encoding), seed=0)
    train, valid = (Examples.of(rows, "cpu", "item") for rows in (data.train, data.valid))
    fit(model, train, valid, Training(), seed=0)
    small, records = compress(model, steps, Context(train, valid, data.encoding.counts))
    assert all(record["touched"] for record in records)
    export(small, data.encoding, tmp_path / "artifact")
    session = onnxruntime.InferenceSession(tmp_path / "artifact" / "model.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()
    assert (output.name, output.shape[1]) == ("scores", 61)
    ids = data.test.inputs.ids.copy()
    ids[3] = 0
    assert (ids == 1).any()
    packed = pack(small)
    expected = packed(torch.from_numpy(ids)).detach().numpy()
    found = session.run(None, {"ids": ids})[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not found[3].any()
    np.testing.assert_allclose(
        packed(torch.from_numpy(ids)).detach(), small.eval()(torch.from_numpy(ids)).detach(), atol=1e-4
    )
    for row in range(5):
        length = max(1, int((ids[row] != 0).sum()))
        alone = session.run(None, {"ids": ids[row : row + 1, :length]})[0]
        np.testing.assert_allclose(alone[0], found[row], atol=1e-5)


def test_bytes_are_those_of_the_table_and_little_more(data: EncodedDataset, tmp_path: Path) -> None:
    train = Examples.of(data.train, "cpu", "item")
    model = build_model(EASE(l2=5.0), Layout.of(data.encoding), seed=0)
    fit(model, train, train, Training(), seed=0)
    small, (record,) = compress(model, [{"name": "prune-neighbours", "per_item": 16}], Context(train, train))
    export(small, data.encoding, tmp_path / "artifact")
    tensors = json.loads((tmp_path / "artifact" / "manifest.json").read_text())["graph"]["tensors"]
    stored = sum(each["bytes"] for each in tensors if ".table." in each["name"])
    assert stored + 4 == record["bytes_after"] == small.embedding.table.nbytes  # the scale is a number without a name
    assert (tmp_path / "artifact" / "model.onnx").stat().st_size - stored < 5000
