"""What every registered export target promises, over every architecture and shape of row."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from slimrank import runtime
from slimrank.compression.steps import Context, compress
from slimrank.config import as_config, entries
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema
from slimrank.evaluation.cost import bytes_of
from slimrank.exporting.artifact import export
from slimrank.exporting.checks import check_graph
from slimrank.models.architecture import build_model
from slimrank.models.layers import Ranker
from slimrank.models.size import packed_bytes
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples, score

RANKERS = {n for n, each in entries("model").items() if issubclass(each.run, Ranker) and n != "cross-encoder"}


SHAPES = ("ids", "two ids", "ids, sequence and numbers", "numbers", "a sequence")
STEPS = {
    "floats": [],
    "integers": [{"name": "quantize-tables", "bits": 4}, "quantize-dense"],
}


def decibels(signal: np.ndarray, other: np.ndarray) -> float:
    """Power of the signal over the power of the difference."""
    noise = np.square(signal.astype(np.float64) - other).mean()
    return float(10 * np.log10(np.square(signal.astype(np.float64)).mean() / max(noise, 1e-30)))


def small(case, architecture: str, steps: str):
    context = Context(Examples.of(case.encoded.train), Examples.of(case.encoded.valid))
    return compress(case.model(architecture), STEPS[steps], context)[0].eval()


@pytest.fixture(params=sorted(entries("target")))
def target(request: pytest.FixtureRequest):
    return as_config("target", request.param)


def fits(architecture: str, shape: str) -> bool:
    """DLRM multiplies pairs of vectors, and numbers alone, or one sequence, are one vector; GMF just one pair."""
    if "gmf" in (architecture, shape) or shape == "two ids":
        return architecture == "gmf" and shape == "two ids"
    return architecture != "dlrm" or shape.startswith("ids")


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(
    ("architecture", "shape"),
    [(name, shape) for name in sorted(RANKERS) for shape in SHAPES if fits(name, shape)],
)
def test_the_artifact_scores_raw_rows_as_the_model_does(target, architecture, shape, steps, problem, tmp_path) -> None:
    case = problem(shape)
    model = small(case, architecture, steps)
    expected = score(model, Examples.of(case.encoded.test))
    export(model, case.encoding, tmp_path / "artifact", target)
    shipped = runtime.load(tmp_path / "artifact")
    found = shipped.score(shipped.encoding.encode(case.dataset.test))
    assert decibels(expected, found) > (100 if steps == "floats" else 40)
    inputs = case.encoded.test.inputs
    assert np.array_equal(shipped.score(inputs), found)
    parts = [shipped.score(inputs.take(slice(start, start + size))) for start, size in ((0, 1), (1, 7), (8, 300))]
    np.testing.assert_allclose(np.concatenate(parts), found, rtol=1e-4, atol=1e-5)
    assert len(shipped.score(inputs.take(slice(0, 0)))) == 0


def test_the_graph_is_checked_as_the_runtime_optimises_it(target, problem, tmp_path) -> None:
    case = problem("ids, sequence and numbers")
    export(small(case, "dnn", "integers"), case.encoding, tmp_path / "artifact", target)
    operators = check_graph(tmp_path / "artifact" / "model.onnx")
    assert (operators["QGemm"], operators["QLinearConv"]) == (3, 1)  # lookups, others and out; hidden
    assert "Gemm" not in operators
    assert "MatMul" not in operators


def test_the_encoding_is_cut_to_the_ids_that_the_model_has(target, problem, tmp_path) -> None:
    case = problem("ids, sequence and numbers")
    counts = case.encoding.counts
    context = Context(Examples.of(case.encoded.train), Examples.of(case.encoded.valid), counts)
    model, _ = compress(case.model("dnn"), [{"name": "threshold-rows", "min_count": 20}], context)
    export(model, case.encoding, tmp_path / "artifact", target)
    shipped = runtime.load(tmp_path / "artifact")
    assert shipped.encoding.sizes == dict(zip(model.embedding.layout.names, model.embedding.layout.sizes, strict=True))
    assert shipped.encoding.sizes["user"] < case.encoding.sizes["user"]
    unknown = shipped.predict(case.dataset.test).unknown
    met = dict(case.dataset.train["user"].value_counts().iter_rows())
    assert unknown["user"] == sum(met.get(user, 0) < 20 for user in case.dataset.test["user"])
    expected = score(model, Examples.of(case.encoded.test))
    assert decibels(expected, shipped.score(shipped.encoding.encode(case.dataset.test))) > 100


def test_a_student_of_few_fields_asks_for_no_others(target, problem, tmp_path) -> None:
    case = problem("ids, sequence and numbers")
    kept = {"item", "tags"}
    model = build_model(as_config("model", {"name": "dnn", "hidden": (4,)}), case.layout.only(kept), seed=1)
    model.embedding.reads = case.layout.columns_of(kept)
    expected = score(model, Examples.of(case.encoded.test))
    export(model, case.encoding, tmp_path / "artifact", target)
    shipped = runtime.load(tmp_path / "artifact")
    assert [field.name for field in shipped.encoding.schema.fields] == ["item", "tags", "price", "age"]
    given = case.dataset.test.drop("user")
    assert decibels(expected, shipped.score(shipped.encoding.encode(given))) > 100


@pytest.mark.parametrize("bits", [None, 8, 4, 2])
def test_bytes_are_those_by_which_the_artifact_grows(target, bits, tmp_path) -> None:
    """100,000 rows of 16 numbers: what the model says they take and what the file takes differ by less than 2%."""
    sizes, disk, said = (1_000, 101_000), [], []
    for ids in sizes:
        schema = Schema(fields=(Field(name="user", kind="categorical", encoding="identity", num_ids=ids),))
        encoding = Encoding.fit(schema, pl.DataFrame({"user": [0, 1, 2], "label": [0, 1, 0]}))
        model = build_model(as_config("model", {"name": "dnn", "hidden": (4,)}), Layout.of(encoding), seed=1)
        rows = Examples(torch.zeros(4, 1, dtype=torch.int32), torch.zeros(4, 0), torch.tensor([0.0, 1.0, 0.0, 1.0]))
        steps = [] if bits is None else [{"name": "quantize-tables", "bits": bits}]
        model, _ = compress(model, steps, Context(rows, rows), in_place=True)
        export(model, encoding, tmp_path / str(ids), target)
        artifact = tmp_path / str(ids)
        disk.append(sum(file.stat().st_size for file in artifact.iterdir() if file.name.startswith("model.")))
        said.append(packed_bytes(model))
    assert disk[1] - disk[0] == pytest.approx(said[1] - said[0], rel=0.02)
    assert said[1] - said[0] == 100_000 * 16 * (bits or 32) // 8


@pytest.mark.parametrize("steps", STEPS)
def test_the_same_model_gives_the_same_bytes_in_every_file(target, steps, problem, tmp_path) -> None:
    case = problem("ids, sequence and numbers")
    for name in ("a", "b"):
        export(small(case, "dcnv2", steps), case.encoding, tmp_path / name, target, {"seed": 1})
    files = sorted(file.name for file in (tmp_path / "a").iterdir())
    assert files == sorted(file.name for file in (tmp_path / "b").iterdir())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_weights_on_disk_are_what_the_model_says(target, problem, tmp_path) -> None:
    case = problem("ids")
    model = small(case, "dnn", "integers")
    export(model, case.encoding, tmp_path / "artifact", target)
    stored = sum(
        tensor["bytes"] for tensor in runtime.load(tmp_path / "artifact").artifact.manifest["graph"]["tensors"]
    )
    assert bytes_of(tmp_path / "artifact")["disk"] >= stored
    assert stored == pytest.approx(packed_bytes(model), rel=0.2)
