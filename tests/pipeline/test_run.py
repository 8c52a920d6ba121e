"""A run, end to end on small rows: what it writes, what it does not do twice, and what its variants leave out."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from slimrank import runtime
from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.files import only_here, read_json
from slimrank.metrics import quality
from slimrank.pipeline.plan import plan
from slimrank.pipeline.run import STAGES, run
from slimrank.pipeline.workspace import Run
from slimrank.recipe import Recipe
from slimrank.runtime.golden import check_golden

QUALITY = {"auc", "gauc", "logloss", "normalized_entropy", "pcoc"}
FOLDERS = ("teacher-1", "seed-1/student", "seed-1/slim", "seed-1/artifacts", "seed-1/measured")


def keys(folder: Path) -> dict[str, str]:
    """The key of every stage that is done."""
    records = {str(file.parent.relative_to(folder)): read_json(file) for file in folder.rglob("stage.json")}
    return {name: record["key"] for name, record in records.items() if record["done"]}


def times(folder: Path) -> dict[str, int]:
    """When each file of the stages was written."""
    return {str(file): file.stat().st_mtime_ns for name in FOLDERS for file in (folder / name).rglob("*")}


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """A finished run that may be changed."""
    return shutil.copytree(done, tmp_path / "run")


def test_the_result_has_what_it_must(done: Path) -> None:
    result = read_json(done / "result.json")
    assert set(result) == {
        *("name", "data", "teacher", "student", "slim", "comparison", "seeds", "rows", "threads", "training_threads"),
        *("data_fingerprint", "data_facts", "versions", "instruction_set", "processor", "cores", "system", "slices"),
        *("floor", "shipped_seed", "unknown_ids", "calibration", "recipe", "metric"),
    }
    for name in ("teacher", "student", "slim"):
        model = result[name]
        assert set(model) == {"quality", "bytes", "latency_ms", "rows_per_second", "floor_ms", "tensors", "by_seed"} | (
            {"steps"} if name == "slim" else set()
        )
        assert set(model["quality"]) == QUALITY
        of_wire = {"wire", "wire_graph", "wire_vocabulary", "wire_brotli"}
        assert set(model["bytes"]) == {"disk", "vocabulary", *of_wire, "resident"}
        assert set(model["latency_ms"]) == {"1", "32", "256"}
        for figures in model["latency_ms"].values():
            assert set(figures) == {"p50", "p99", "samples", "p50_interval", "p99_interval", "quantiles"}
            assert 0 < figures["p50"] <= figures["p99"]
            assert figures["samples"] >= 368
    assert result["seeds"] == [1]
    assert result["name"] == "tiny"
    assert sum(result["rows"].values()) == 2500
    assert {"slimrank", "torch", "onnxruntime"} <= set(result["versions"])


def test_the_artifact_says_what_scores_and_ids_were_like(done: Path) -> None:
    result, model = read_json(done / "result.json"), runtime.load(done / "artifact")
    reference = model.artifact.manifest["reference"]
    assert reference["rows"] == sum(reference["scores"]) == result["rows"]["test"]
    assert set(reference["unknown"]) == set(model.encoding.sizes)
    assert all(0 <= share < 0.5 for share in reference["unknown"].values())
    assert check_golden(model).startswith("8 golden rows")


def test_every_step_says_what_it_did_and_bytes_join_up(done: Path) -> None:
    steps = read_json(done / "result.json")["slim"]["steps"]
    assert [step["name"] for step in steps] == [
        "distil",
        "threshold-rows",
        "prune-weights",
        "prune-neurons",
        "quantize-tables",
        "quantize-dense",
    ]
    for step in steps:
        sizes = {"touched_bytes", "bytes_before", "bytes_after"}
        assert set(step) == {"name", "settings", "touched", "skipped", "facts", "note", *sizes}
        assert step["touched"]
        assert step["bytes_after"] <= step["bytes_before"]
    for before, after in pairwise(steps):
        assert before["bytes_after"] == after["bytes_before"]


def test_quality_and_bytes_are_the_artifacts_own(done: Path, tiny) -> None:
    """Measured again here from the files that ship, on the test rows."""
    result, dataset = read_json(done / "result.json"), load_dataset(tiny()["data"])
    logits = {}
    for name in ("teacher", "student", "slim"):
        folder = done / "seed-1" / "artifacts" / name
        model = runtime.load(folder)
        logits[name] = model.score(model.encoding.encode(dataset.test))
        label, user = dataset.test["label"].to_numpy(), dataset.test["user"].to_numpy()
        assert quality(label, logits[name], user) == result[name]["quality"]
        disk = sum(file.stat().st_size for file in folder.glob("model.onnx*"))
        assert result[name]["bytes"]["disk"] == disk
        assert result[name]["bytes"]["vocabulary"] == (folder / "vocabulary.parquet").stat().st_size
        assert model.artifact.manifest["data_fingerprint"] == dataset.fingerprint == result["data_fingerprint"]
        assert model.artifact.manifest["seed"] == 1
        assert Recipe.parse(model.artifact.manifest["recipe"]) == Recipe.parse(tiny())
    assert result["slim"]["bytes"]["disk"] < result["teacher"]["bytes"]["disk"]
    assert result["teacher"]["quality"]["auc"] > 0.7  # it learned what is in the rows
    assert result["slim"]["quality"]["auc"] > 0.65


def test_nothing_is_done_twice(copy: Path, tiny, essence_of) -> None:
    before, wanted = times(copy), essence_of(copy)
    run(Recipe.parse(tiny()), copy)
    assert times(copy) == before
    assert essence_of(copy) == wanted


TRAINING = {"epochs": 1, "batch_size": 256}
CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"name": "other", "threads": 1}, set()),
    ({"target": {"name": "onnx", "unpack_limit": 0}}, {"artifacts", "measured"}),
    ({"retraining": TRAINING}, {"slim", "artifacts", "measured"}),
    ({"steps": ["quantize-tables"]}, {"slim", "artifacts", "measured"}),
    ({"distillation": {"temperature": 2.0}}, {"student", "slim", "artifacts", "measured"}),
    ({"student": {"training": TRAINING}}, {"student", "slim", "artifacts", "measured"}),
    ({"teacher": {"training": TRAINING}}, {"teacher-1", "student", "slim", "artifacts", "measured"}),
]


@pytest.mark.parametrize(("changes", "again"), CHANGES, ids=lambda value: "-".join(sorted(value)) or "nothing")
def test_a_changed_key_does_again_what_hangs_on_it(changes, again, copy: Path, tiny, essence_of) -> None:
    """Up to compression for all; the whole run for the cheapest."""
    until = "report" if "target" in changes else "compress"
    again = again if until == "report" else again - {"artifacts", "measured"}
    before = times(copy)
    run(Recipe.parse(tiny(**changes)), copy, until=until)
    after = times(copy)
    changed = {name for name in FOLDERS if any(before.get(f) != t for f, t in after.items() if f"{name}/" in f)}
    assert {name.removeprefix("seed-1/") for name in changed} == again


def test_changing_back_does_it_again(copy: Path, tiny) -> None:
    before = load_file(copy / "seed-1/slim/model.safetensors")
    run(Recipe.parse(tiny(retraining=None)), copy, until="compress")
    assert "history.json" not in {file.name for file in (copy / "seed-1/slim").iterdir()}
    run(Recipe.parse(tiny()), copy, until="compress")
    after = load_file(copy / "seed-1/slim/model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_folder_that_is_half_gone_does_not_count_as_done(copy: Path, tiny) -> None:
    """What a SIGKILL in the middle of clearing a stage may leave behind."""
    folder = copy / "seed-1" / "slim"
    record = read_json(folder / "stage.json")
    (folder / "stage.json").unlink()
    (folder / "model.safetensors").unlink()
    run(Recipe.parse(tiny()), copy, until="compress")
    assert read_json(folder / "stage.json") == record
    assert (folder / "model.safetensors").exists()


def test_the_teacher_itself_is_compressed_over_several_seeds(tiny, tmp_path: Path) -> None:
    """No student, no distillation, no retraining: what is left is pruning and quantisation."""
    recipe = tiny(student=None, distillation=None, retraining=None, seeds=[1, 2], steps=["quantize-tables"])
    result = run(Recipe.parse(recipe), tmp_path / "run")
    assert result == read_json(tmp_path / "run" / "result.json")
    assert "student" not in result
    assert result["seeds"] == [1, 2]
    assert [each["seed"] for each in result["comparison"]] == [1, 2]
    assert [step["name"] for step in result["slim"]["steps"]] == ["quantize-tables"]
    for name in ("teacher", "slim"):
        found = result[name]["by_seed"]
        assert len(found) == 2
        assert found[0] != found[1]
        for key in QUALITY:
            assert result[name]["quality"][key] == pytest.approx(np.mean([one[key] for one in found]))
        records = [read_json(tmp_path / "run" / f"seed-{seed}" / "measured" / "result.json") for seed in (1, 2)]
        medians = [record["models"][name]["latency_ms"]["32"]["p50"] for record in records]
        assert result[name]["latency_ms"]["32"]["p50"] == pytest.approx(np.mean(medians))
    assert abs(result["slim"]["quality"]["auc"] - result["teacher"]["quality"]["auc"]) < 0.02
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_without_distillation_the_student_learns_from_labels(done: Path, tiny, tmp_path: Path) -> None:
    shutil.copytree(done / "teacher-1", tmp_path / "run" / "teacher-1")
    run(Recipe.parse(tiny(distillation=None)), tmp_path / "run", until="compress")
    histories = [read_json(folder / "seed-1/student/history.json") for folder in (done, tmp_path / "run")]
    assert histories[0] != histories[1]
    weights = [load_file(folder / "seed-1/student/model.safetensors") for folder in (done, tmp_path / "run")]
    assert not torch.equal(weights[0]["out.weight"], weights[1]["out.weight"])


def test_students_learn_from_an_ensemble_and_are_compared_with_their_own_teacher(tiny, tmp_path: Path) -> None:
    teacher = {**tiny()["teacher"], "seeds": [1, 2]}
    recipe = Recipe.parse(tiny(teacher=teacher, seeds=[2], steps=[], retraining=None))
    assert recipe.teacher_seeds(2) == (2, 1)
    run(recipe, tmp_path, until="compress")
    assert set(keys(tmp_path)) == {"teacher-1", "teacher-2", "seed-2/student", "seed-2/slim"}
    alone = Recipe.parse(tiny(seeds=[2], steps=[], retraining=None))
    before = load_file(tmp_path / "seed-2/student/model.safetensors")
    run(alone, tmp_path, until="compress")
    after = load_file(tmp_path / "seed-2/student/model.safetensors")
    assert not torch.equal(before["out.weight"], after["out.weight"])


def test_a_student_of_chosen_fields_reads_no_others(done: Path, tiny, tmp_path: Path) -> None:
    shutil.copytree(done / "teacher-1", tmp_path / "run" / "teacher-1")
    student = {**tiny()["student"], "fields": ["item", "tags"]}
    run(Recipe.parse(tiny(student=student)), tmp_path / "run", until="export")
    model = runtime.load(tmp_path / "run" / "seed-1" / "artifacts" / "slim")
    assert [field.name for field in model.encoding.schema.fields] == ["item", "tags", "price"]
    record = read_json(tmp_path / "run/seed-1/slim/steps.json")[0]
    assert record["touched"] == ["item", "tags"]
    assert record["skipped"] == [{"name": "user", "reason": "not read"}]
    model.predict(load_dataset(tiny()["data"]).test.drop("user"))


def test_a_student_of_the_fields_that_matter(done: Path, tiny, tmp_path: Path) -> None:
    shutil.copytree(done / "teacher-1", tmp_path / "run" / "teacher-1")
    student = {**tiny()["student"], "min_field_importance": 0.9}  # none is worth that much, so the best one stays
    run(Recipe.parse(tiny(student=student)), tmp_path / "run", until="compress")
    chosen = read_json(tmp_path / "run/seed-1/student/fields.json")
    assert chosen["kept"] == [max(chosen["importance"], key=chosen["importance"].get)]
    assert set(chosen["importance"]) == {"user", "item", "tags"}


@pytest.mark.parametrize("until", STAGES[:2])
def test_a_run_stops_where_it_is_told(until, done: Path, tiny, tmp_path: Path) -> None:
    shutil.copytree(done / "teacher-1", tmp_path / "teacher-1")
    assert run(Recipe.parse(tiny(retraining=None)), tmp_path, until=until) == {}
    expected = {"train": {"teacher-1"}, "compress": {"teacher-1", "seed-1/student", "seed-1/slim"}}
    assert set(keys(tmp_path)) == expected[until]
    assert not (tmp_path / "result.json").exists()


def test_two_runs_in_one_directory_at_once(tiny, tmp_path: Path) -> None:
    with only_here(tmp_path / "run"), pytest.raises(InputError, match="another run is working in this directory"):
        run(Recipe.parse(tiny()), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "until", "message"),
    [
        ({"student": {"fields": ["itm"]}}, "report", "student.fields: unknown field 'itm'. Did you mean 'item'?"),
        ({"data": {"name": "parquet", "path": "/no/such.parquet"}}, "report", "/no/such.parquet: no such file"),
        ({}, "compres", "unknown stage 'compres'. Did you mean 'compress'? Allowed: compress, evaluate, export"),
    ],
)
def test_faults_come_to_light_before_anything_is_written(changes, until, message, tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run(Recipe.parse(tiny(**changes)), tmp_path / "run", until=until)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_rows_of_nothing_but_a_label_are_refused(tiny, tmp_path: Path) -> None:
    data = {**tiny()["data"], "fields": {}, "drop": ["item", "tags", "price", "user"], "group": None}
    with pytest.raises(InputError, match=r"rows\.parquet: Schema: a schema needs at least one field"):
        run(Recipe.parse(tiny(data=data)), tmp_path / "run")


def test_the_plan_says_all_and_writes_nothing(tiny, tmp_path: Path) -> None:
    recipe = Recipe.parse(tiny())
    lines = plan(recipe, tmp_path / "run").splitlines()
    assert [line.split()[0] for line in lines] == [
        "data",
        "teacher",
        "student",
        *["step"] * 5,
        "retrain",
        "export",
        "out",
    ]
    assert list(tmp_path.iterdir()) == []
    rows = sum(len(frame) for frame in Run(recipe, tmp_path).dataset.splits.values())
    assert rows == 2500
    json.dumps(lines)
