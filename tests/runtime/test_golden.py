"""Golden rows: what an artifact carries of made rows, and that a runtime which answers otherwise is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from slimrank import runtime
from slimrank.api import export as export_of_any
from slimrank.artifact import SEALED_KEYS, open_artifact, write_artifact
from slimrank.compression.steps import Context, compress
from slimrank.config import InputError, as_config
from slimrank.data.golden import MOST_IDS, Golden, StoredTensor, made_rows
from slimrank.data.rows import encode_dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.exporting.artifact import export, with_metrics
from slimrank.models.architecture import build_model
from slimrank.runtime.golden import check_golden, golden_of
from slimrank.runtime.inspect import inspect
from slimrank.runtime.opened import answers_with_items, asked_by_tensors
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples

FIELDS = (
    Field(name="user", kind="categorical"),
    Field(name="tags", kind="sequence", max_length=3),
    Field(name="price", kind="numeric"),
)


def load_any(path: Path) -> Any:
    artifact = open_artifact(path)
    if asked_by_tensors(artifact):
        return runtime.load_graph(path)
    return runtime.load_retriever(path) if answers_with_items(artifact) else runtime.load(path)


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A sound artifact beside it, whose manifest says something else."""
    found = open_artifact(path)
    manifest = json.loads(json.dumps({k: v for k, v in found.manifest.items() if k not in SEALED_KEYS}))
    change(manifest)
    target = path.with_name(f"{path.name}-changed")
    write_artifact(target, dict(found.files), manifest)
    return target


def moved(manifest: dict[str, Any], output: str, by: float, row: int = 2) -> None:
    """Change the first number of a golden answer."""
    stored = manifest["golden"]["outputs"][output]
    array = StoredTensor.parse(stored).array()
    array[row, 0] += by
    manifest["golden"]["outputs"][output] = StoredTensor.of(array).model_dump(mode="json")


@pytest.fixture(scope="module")
def rankers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small model in floats and on integers."""
    draw = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "user": draw.integers(0, 30, 400),
            "tags": [list("abcde"[:count]) for count in draw.integers(0, 5, 400)],
            "price": draw.normal(size=400),
            "label": draw.integers(0, 2, 400),
        }
    )
    encoded = encode_dataset(make_dataset("rows", Schema(fields=FIELDS), (frame, frame, frame)))
    small = {"name": "dnn", "embedding_dim": 8, "hidden": (16, 8), "embedding_std": 0.3}
    folder, found = tmp_path_factory.mktemp("golden"), {}
    for name, steps in {"floats": [], "integers": [{"name": "quantize-tables", "bits": 4}, "quantize-dense"]}.items():
        model = build_model(as_config("model", small), Layout.of(encoded.encoding), seed=1)
        context = Context(Examples.of(encoded.train), Examples.of(encoded.valid))
        found[name] = folder / name
        export(compress(model, steps, context)[0].eval(), encoded.encoding, found[name])
    return found


@pytest.mark.parametrize("kind", ["floats", "integers"])
def test_a_ranker_answers_its_rows(kind: str, rankers: dict[str, Path]) -> None:
    model = runtime.load(rankers[kind])
    golden = golden_of(model.artifact)
    assert golden is not None
    ids, logit = golden.inputs["ids"].array(), golden.outputs["logit"].array()
    assert (ids[0] == 0).all()
    assert ids[1].tolist() == [size - 1 for size in (30 + 1, *[4 + 2] * 3)]
    assert logit.shape == (8, 1)
    made = made_rows(model.encoding.schema, model.encoding.sizes)
    assert model.score(made).tolist() == logit[:, 0].tolist()
    assert check_golden(model) == f"{golden.short()['rows']} golden rows answered as at export"
    assert len(json.dumps(model.artifact.manifest["golden"])) < 1000


@pytest.mark.parametrize("kind", ["vectors", "codes", "scores"])
def test_a_finder_answers_its_rows(kind: str, finder: Callable[[str], Any]) -> None:
    model = runtime.load_retriever(finder(kind).path)
    golden = golden_of(model.artifact)
    assert golden is not None
    assert set(golden.outputs) == set(model.outputs)
    assert len(json.dumps(model.artifact.manifest["golden"])) < 6000
    if kind != "scores":
        items = golden.inputs["items"].array()
        assert items[[0, -1]].tolist() == [model.first_item, model.first_item + model.count - 1]
    assert check_golden(model) == f"{golden.short()['rows']} golden rows answered as at export"
    name = "scores" if kind == "scores" else "vector"
    wrong = runtime.load_retriever(changed(finder(kind).path, lambda manifest: moved(manifest, name, 1.0)))
    with pytest.raises(InputError, match=rf"golden row 2: {name} is .*, expected "):
        check_golden(wrong)


def test_a_module_answers_inputs_within_its_tables(asked_by_tensors: Path) -> None:
    graph = runtime.load_graph(asked_by_tensors)
    golden = golden_of(graph.artifact)
    assert golden is not None
    assert golden.inputs["user"].dtype == "int64"
    assert golden.inputs["user"].array().max() < 20
    assert {name: each.shape for name, each in golden.outputs.items()} == {"score": (4, 1), "pair": (4, 2)}
    assert check_golden(graph) == f"{golden.short()['rows']} golden rows answered as at export"


class Reshaped(nn.Module):
    """Goes with numbers whose rows are counted by another input alone."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 1)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return torch.log(-numbers.abs() - 1) + self.last(numbers)


def test_where_made_inputs_have_no_answer_the_reason_is_told(tmp_path: Path) -> None:
    export_of_any(Reshaped().eval(), {"numbers": torch.randn(4, 3)}, tmp_path / "mine")
    graph = runtime.load_graph(tmp_path / "mine")
    reason = "output 'output' is NaN or infinite for made rows"
    assert check_golden(graph) == f"no golden rows: {reason}"
    assert graph.artifact.manifest["golden"] == {"inputs": {}, "outputs": {}, "none": reason}
    assert inspect(tmp_path / "mine")["golden"] == {"rows": 0, "none": reason}


def test_an_artifact_without_rows_is_told_apart(linear: Any) -> None:
    assert check_golden(runtime.load(linear.path)) == "no golden rows: exported by a release that wrote none"
    assert "golden" not in inspect(linear.path)


def test_floats_are_held_to_four_digits(rankers: dict[str, Path]) -> None:
    near = runtime.load(changed(rankers["floats"], lambda manifest: moved(manifest, "logit", 5e-5)))
    assert check_golden(near) == "8 golden rows answered as at export"
    far = runtime.load(changed(rankers["floats"], lambda manifest: moved(manifest, "logit", 3e-4)))
    with pytest.raises(InputError, match=r"golden row 2: logit is \S+, expected \S+; allowed: 0.0001 of max"):
        check_golden(far)


def test_what_rounds_may_be_a_step_apart_and_no_more(rankers: dict[str, Path]) -> None:
    """One number of n that moves by d has a root mean square of d / sqrt(n)."""
    golden = golden_of(open_artifact(rankers["integers"]))
    assert golden is not None
    answers = golden.outputs["logit"].array()
    most = 0.03 * float(answers.std()) * answers.size**0.5
    near = runtime.load(changed(rankers["integers"], lambda manifest: moved(manifest, "logit", 0.9 * most)))
    assert check_golden(near) == "8 golden rows answered as at export"
    far = runtime.load(changed(rankers["integers"], lambda manifest: moved(manifest, "logit", 1.5 * most)))
    with pytest.raises(InputError, match=r"golden row 2: .* answers are \d+% of their spread apart, allowed: 3%"):
        check_golden(far)


def test_rows_of_another_model_are_refused(rankers: dict[str, Path]) -> None:
    other = open_artifact(rankers["floats"]).manifest["golden"]
    for name in rankers:
        shifted = {**other, "inputs": {**other["inputs"]}}
        made = StoredTensor.parse(shifted["inputs"]["ids"]).array()
        shifted["inputs"]["ids"] = StoredTensor.of(np.roll(made, 1, axis=0)).model_dump(mode="json")
        wrong = changed(rankers[name], lambda manifest, found=shifted: manifest.update(golden=found))
        with pytest.raises(InputError, match="golden row"):
            check_golden(runtime.load(wrong))


BAD: dict[str, tuple[Any, str]] = {
    "no table": ([1], "golden is a list, must be a table"),
    "unknown key": ({"rows": 1}, "unknown key 'rows'"),
    "too few values": (
        {"inputs": {"ids": {"dtype": "int32", "shape": [2, 4], "values": "1 2"}}},
        "2 values of type 'int32' are no array [2, 4]",
    ),
    "no number": (
        {"inputs": {"ids": {"dtype": "int32", "shape": [1, 4], "values": "1 2 x 3"}}},
        "a value is not of type int32",
    ),
    "a type that is none": (
        {"inputs": {"ids": {"dtype": "object", "shape": [1], "values": "1"}}},
        "1 values of type 'object' are no array [1]",
    ),
    "other inputs": (
        {
            "inputs": {"id": {"dtype": "int32", "shape": [1, 1], "values": "1"}},
            "outputs": {"logit": {"dtype": "float32", "shape": [1, 1], "values": "1"}},
        },
        "its golden rows cannot be asked",
    ),
    "another shape": (
        {
            "inputs": {
                "ids": {"dtype": "int32", "shape": [1, 4], "values": "1 1 1 1"},
                "numbers": {"dtype": "float32", "shape": [1, 1], "values": "0.5"},
            },
            "outputs": {"logit": {"dtype": "float32", "shape": [2, 1], "values": "1 1"}},
        },
        "logit is float32 [1, 1], expected float32 [2, 1]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_rows_of_another_form_are_an_error_of_the_manifest(case: str, rankers: dict[str, Path]) -> None:
    golden, message = BAD[case]
    model = runtime.load(changed(rankers["floats"], lambda manifest: manifest.update(golden=golden)))
    with pytest.raises(InputError) as error:
        check_golden(model)
    assert message in str(error.value)
    assert str(model.artifact.path) in str(error.value)


def test_figures_leave_the_rows_as_they_are(rankers: dict[str, Path], tmp_path: Path) -> None:
    with_metrics(rankers["floats"], tmp_path / "measured", {"quality": {"auc": 0.75}})
    before, after = (open_artifact(path).manifest["golden"] for path in (rankers["floats"], tmp_path / "measured"))
    assert before == after
    assert inspect(tmp_path / "measured")["golden"] == {
        "rows": 8,
        "inputs": {"ids": [8, 4], "numbers": [8, 1]},
        "outputs": {"logit": [8, 1]},
    }


def test_long_rows_are_fewer_and_short() -> None:
    schema = Schema(fields=(Field(name="history", kind="sequence", max_length=500),))
    made = made_rows(schema, {"history": 1000})
    assert len(made) * 500 <= MOST_IDS
    assert (made.ids[:, 16:] == 0).all()
    assert made.ids.min() == 0
    assert made.ids.max() == 999


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_what_is_written_down_is_read_back_the_same(dtype: str) -> None:
    array = (np.random.default_rng(0).normal(size=(3, 2)) * 3).astype(dtype)
    stored = StoredTensor.parse(json.loads(StoredTensor.of(array).model_dump_json()))
    assert stored.array().dtype == array.dtype
    assert np.array_equal(stored.array(), array)
    assert Golden.of({"a": array}, {}).short()["rows"] == 0
