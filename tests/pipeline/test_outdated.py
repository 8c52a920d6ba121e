"""What another recipe, other teachers or other data left behind is never taken for this run's own."""

from __future__ import annotations

from pathlib import Path

import polars
import pytest

from slimrank.artifact import open_artifact
from slimrank.config import InputError
from slimrank.files import read_json
from slimrank.pipeline.plan import plan
from slimrank.pipeline.result import compared
from slimrank.pipeline.run import run
from slimrank.recipe import Recipe, read_recipe

PUBLISHED = ("result.json", "report.html", "artifact")


def test_another_recipe_removes_what_the_last_one_published(tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(Recipe.parse(tiny()), out)
    assert all((out / name).exists() for name in PUBLISHED)
    run(Recipe.parse(tiny(name="renamed")), out, until="export")
    assert not any((out / name).exists() for name in PUBLISHED)
    manifest = open_artifact(out / "seed-1" / "artifacts" / "slim").manifest
    assert manifest["name"] == "renamed-slim"
    assert manifest["recipe"]["name"] == "renamed"


def test_other_rows_in_the_same_file_remove_what_was_published(tiny, tmp_path: Path) -> None:
    values = tiny()
    rows, out = tmp_path / "rows.parquet", tmp_path / "run"
    whole = polars.read_parquet(values["data"]["path"])
    whole.write_parquet(rows)
    recipe = Recipe.parse(tiny(data={**values["data"], "path": str(rows)}))
    before = run(recipe, out)["data_fingerprint"]
    whole.head(2000).write_parquet(rows)
    run(recipe, out, until="train")
    assert not any((out / name).exists() for name in PUBLISHED)
    assert run(recipe, out)["data_fingerprint"] != before


def test_without_a_student_the_slim_model_still_hangs_on_every_teacher(tiny, tmp_path: Path) -> None:
    def slim_key(seeds: list[int]) -> str:
        teacher = {**tiny()["teacher"], "seeds": seeds}
        steps = [{"name": "quantize-tables", "bits": 8}]
        run(Recipe.parse(tiny(teacher=teacher, student=None, steps=steps)), tmp_path / "run", until="compress")
        return str(read_json(tmp_path / "run" / "seed-1" / "slim" / "stage.json")["key"])

    assert slim_key([1, 2]) != slim_key([1, 3])


def test_a_checkpoint_is_gone_when_its_stage_is_done(done: Path) -> None:
    assert not list(done.rglob("checkpoint.safetensors"))


def test_the_plan_refuses_what_the_run_refuses(tiny, tmp_path: Path) -> None:
    recipe = Recipe.parse(tiny(student={**tiny()["student"], "fields": ["itme"]}))
    for refused in (lambda: plan(recipe, tmp_path / "run"), lambda: run(recipe, tmp_path / "run")):
        with pytest.raises(InputError, match=r"unknown field 'itme'\. Did you mean 'item'"):
            refused()
    assert not (tmp_path / "run").exists()


def test_one_positive_test_row_leaves_the_comparison_out(done: Path, tiny) -> None:
    from dataclasses import replace

    import numpy as np

    from slimrank.data import load_dataset
    from slimrank.data.rows import encode_dataset

    data = encode_dataset(load_dataset(tiny()["data"]))
    label = np.zeros(len(data.test), np.float32)
    label[0] = 1.0
    lonely = replace(data, test=replace(data.test, label=label))
    scores = np.arange(len(label), dtype=np.float32)
    assert compared(lonely, scores, scores)["comparison"] is None
    assert compared(data, scores, scores)["comparison"]["difference"] == 0.0
    few = np.arange(len(label)) % 3
    assert compared(data, scores, scores, few)["comparison"] is None
    many = compared(data, scores, scores, np.arange(len(label)) // 5)["comparison"]
    assert (many["groups"], many["verdict"]["outcome"]) == (len(label) // 5, "non-inferior")


def test_toml_says_false_for_none_and_a_recipe_is_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "clicks.toml"
    path.write_text("student = false\ndistillation = false\nretraining = false\n")
    recipe = read_recipe(path)
    assert (recipe.student, recipe.distillation, recipe.retraining) == (None, None, None)
    assert recipe.name == "clicks"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": [-1]}, "seeds.0: Input should be greater than or equal to 0, got -1"),
        ({"seeds": [10**14]}, "seeds.0: Input should be less than"),
        ({"teacher": {"model": {"name": "dnn", "hidden": [-5]}}}, "hidden.0: Input should be greater than 0, got -5"),
        ({"teacher": {"model": {"name": "dlrm", "bottom": [0]}}}, "bottom.0: Input should be greater than 0, got 0"),
        ({"steps": [{"name": "quantize-dense", "rows": 10**6}]}, "rows: Input should be less than or equal to 32768"),
    ],
)
def test_numbers_out_of_bounds_are_refused_where_they_enter(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as error:
        Recipe.parse(changes)
    assert words in str(error.value)
