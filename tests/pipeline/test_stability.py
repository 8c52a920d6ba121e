"""A second day: a run that starts from the run before, keeps its codes, and is refused where it cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from tests.conftest import tiny_rows

from slimrank.artifact import open_artifact
from slimrank.config import InputError
from slimrank.data.encoding import Encoding
from slimrank.data.splits import Split
from slimrank.files import read_json, write_json
from slimrank.pipeline.plan import plan
from slimrank.pipeline.run import run
from slimrank.pipeline.search import search
from slimrank.recipe import Recipe
from slimrank.searching.search import Search

Daily = Callable[..., Recipe]
RETRAINING = {"epochs": 2, "batch_size": 256, "learning_rate": 0.001, "patience": 0}
STEPS = [{"name": "quantize-tables", "bits": 4}, {"name": "quantize-dense"}]


@pytest.fixture(scope="module")
def daily(tiny: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Daily:
    """A recipe whose train rows end at `until`; with a `base`, one that keeps the codes of that run."""
    path = tmp_path_factory.mktemp("daily") / "rows.parquet"
    rows = tiny_rows(2500).with_columns(time=polars.int_range(2500))
    later = (polars.col("time") >= 1900) & (polars.col("user") % 3 == 0)  # a third of the users come under new names
    rows.with_columns(user=polars.col("user") + later * 100).write_parquet(path)

    def recipe(until: int, base: Path | None = None, stability: dict[str, Any] | None = None, **changes: Any) -> Recipe:
        split = {"kind": "time", "train_until": until}
        data = {**tiny()["data"], "path": str(path), "time": "time", "split": split}
        kept = {} if base is None else {"stability": {"base": str(base), **(stability or {"hysteresis": 0.25})}}
        return Recipe.parse(tiny(**{"data": data, "steps": STEPS, "retraining": RETRAINING, **kept, **changes}))

    return recipe


@pytest.fixture(scope="module")
def first(daily: Daily, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first day's run; not to be changed."""
    folder = tmp_path_factory.mktemp("first") / "run"
    run(daily(1900), folder)
    return folder


@pytest.fixture(scope="module")
def second(daily: Daily, first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next day's run, which starts from the first; not to be changed."""
    folder = tmp_path_factory.mktemp("second") / "run"
    run(daily(1960, first), folder)
    return folder


def stability_of(folder: Path, seed: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = read_json(folder / f"seed-{seed}" / "slim" / "steps.json")[-1]
    assert found["name"] == "stability"
    return found


def tensors(folder: Path) -> dict[str, np.ndarray]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(folder / "seed-1" / "artifacts" / "slim" / "model.onnx").graph
    return {each.name: numpy_helper.to_array(each) for each in graph.initializer}


def test_most_codes_are_kept_and_the_result_says_how_many(first: Path, second: Path) -> None:
    found = read_json(second / "result.json")["slim"]["steps"][-1]
    assert found == stability_of(second)
    assert found["facts"]["codes kept"] / found["facts"]["codes"] > 0.9
    assert found["touched"][0].startswith("embedding.table: ")
    assert any(each["name"].startswith("mlp.linears.1.bias (") for each in found["skipped"])
    assert {"hysteresis", "pull", "base"} == set(found["settings"])


def test_what_is_counted_is_what_is_shipped(first: Path, second: Path) -> None:
    assert open_artifact(second / "artifact").manifest["recipe"]["stability"]["base"] == str(first)
    before, after = tensors(first), tensors(second)
    for name, tensor in before.items():
        if name.endswith(("scale", "step")):
            assert np.array_equal(tensor, after[name]), name
    layers = [name for name in before if name.endswith(("lookups.weight", "others.weight", "linears.1.weight"))]
    assert len(layers) == 3
    lines = {line.split(": ")[0]: line for line in stability_of(second)["touched"]}
    for name in layers:
        same = int((before[name] == after[name]).sum())
        assert f": {same:,} of {before[name].size:,} codes kept, 0 new" in lines[name.removesuffix(".weight")]


def test_ids_keep_their_rows_and_new_ones_come_behind(first: Path, second: Path) -> None:
    before, after = (Encoding.load(folder / "artifact") for folder in (first, second))
    assert after.sizes["user"] > before.sizes["user"]
    for name in before.sizes:
        old, new = (one.codecs[name].values.to_list() for one in (before, after))  # type: ignore[union-attr]
        assert new[: len(old)] == old
    old_rows, new_rows = tensors(first)["embedding.table.packed"], tensors(second)["embedding.table.packed"]
    start_before = start_after = same = 0
    for name, size in before.sizes.items():
        kept = old_rows[start_before : start_before + size] == new_rows[start_after : start_after + size]
        same += int(kept.sum())
        start_before, start_after = start_before + size, start_after + after.sizes[name]
    assert same / old_rows.size > 0.85  # a byte holds two codes


def test_the_delta_is_small(first: Path, second: Path, daily: Daily, tmp_path: Path) -> None:
    """Beside that of a run that does not know the first; files of a size, so that equal bytes are bytes in place."""
    fresh = tmp_path / "run"
    run(daily(1960), fresh, until="export")

    def same(folder: Path) -> float:
        before, after = tensors(first), tensors(folder)
        pairs = [(before[name], after[name]) for name in before if name.endswith("weight")]
        return float(np.mean(np.concatenate([(one == other).ravel() for one, other in pairs])))

    assert same(second) > 0.9
    assert same(fresh) < 0.3


def test_without_hysteresis_and_pull_fewer_codes_are_kept(
    first: Path, second: Path, daily: Daily, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run(daily(1960, first, {"hysteresis": 0, "pull": 0}), folder, until="compress")
    assert stability_of(folder)["facts"]["codes kept"] < stability_of(second)["facts"]["codes kept"]


def test_a_third_day_starts_from_the_second(second: Path, daily: Daily, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(daily(2000, second), folder, until="compress")
    found = stability_of(folder)["facts"]
    assert found["codes kept"] / found["codes"] > 0.9


def test_every_seed_starts_from_the_one_that_was_shipped(first: Path, daily: Daily, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(
        daily(1960, first, seeds=[5], teacher={**daily(1960).teacher.model_dump(mode="json"), "seeds": [1]}),
        folder,
        until="compress",
    )
    facts = stability_of(folder, 5)["facts"]
    assert facts["codes kept"] > 0.8 * facts["codes"]


def test_the_teacher_itself_may_be_compressed_day_after_day(daily: Daily, tmp_path: Path) -> None:
    alone: dict[str, Any] = {"student": None, "distillation": None}
    run(daily(1900, **alone), tmp_path / "first")
    run(daily(1960, tmp_path / "first", **alone), tmp_path / "second", until="compress")
    found = stability_of(tmp_path / "second")["facts"]
    assert found["codes kept"] / found["codes"] > 0.8


def test_a_stage_is_done_again_where_the_base_has_changed(first: Path, daily: Daily, tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "run"
    shutil.copytree(first, base)
    recipe = daily(1960, base)

    def keys() -> dict[str, str]:
        run(recipe, out, until="compress")
        return {name: read_json(out / name / "stage.json")["key"] for name in ("teacher-1", "seed-1/slim")}

    before = keys()
    assert keys() == before
    from slimrank.training.checkpoint import load_tensors, save_tensors

    slim = base / "seed-1" / "slim" / "model.safetensors"
    weights, told = load_tensors(slim)
    save_tensors(slim, {**weights, "out.bias": weights["out.bias"] + 1}, told)
    after = keys()
    assert after["teacher-1"] == before["teacher-1"]  # the ids are what they were
    assert after["seed-1/slim"] != before["seed-1/slim"]


def test_a_run_that_stopped_in_retraining_goes_on_and_ends_the_same(
    second: Path, first: Path, daily: Daily, tmp_path: Path, essence_of: Callable[[Path], Any], monkeypatch: Any
) -> None:
    from slimrank.training.stability import KeepCodes

    left = [10]
    whole = KeepCodes.on_step

    def stops(self: KeepCodes, state: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        whole(self, state)

    out = tmp_path / "run"
    monkeypatch.setattr(KeepCodes, "on_step", stops)
    with pytest.raises(KeyboardInterrupt):
        run(daily(1960, first), out)
    assert (out / "seed-1" / "slim" / "checkpoint.safetensors").exists()
    monkeypatch.undo()
    run(daily(1960, first), out)
    assert essence_of(out) == essence_of(second)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "another student": (
        {"student": {"model": {"name": "dnn", "embedding_dim": 8, "hidden": [8, 8]}}},
        r"stability\.base: the model of \S+ is .*'embedding_dim': 4.*, here is .*'embedding_dim': 8",
    ),
    "other bits": (
        {"steps": [{"name": "quantize-tables", "bits": 8}, {"name": "quantize-dense"}]},
        r"stability\.base: the steps of \S+ are .*'bits': 4.*, here are .*'bits': 8",
    ),
    "other fields of the student": (
        {"student": {"model": {"name": "dnn", "embedding_dim": 4, "hidden": [8, 8]}, "fields": ["user"]}},
        r"stability: student\.fields are \['user'\], the base's \['user', 'item', 'tags'\]",
    ),
    "no retraining": ({"retraining": None}, "stability: without `retraining` nothing is learned from the new rows"),
    "weight decay": (
        {"retraining": {"epochs": 1, "weight_decay": 0.1}},
        r"stability: retraining\.weight_decay moves every row, met or not; use l2, or leave it out",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_start_from_the_base_is_refused_before_anything_is_trained(
    name: str, first: Path, daily: Daily, tmp_path: Path
) -> None:
    changes, words = CHANGES[name]
    for refused in (run, plan):
        with pytest.raises(InputError, match=words):
            refused(daily(1960, first).model_copy(update=parsed(daily, changes)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def parsed(daily: Daily, changes: dict[str, Any]) -> dict[str, Any]:
    recipe = Recipe.parse({**daily(1960).model_dump(mode="json"), **changes})
    return {key: getattr(recipe, key) for key in changes}


def test_steps_that_decide_by_the_rows_are_refused(first: Path, daily: Daily, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(first, base)
    for step in (
        {"name": "threshold-rows", "min_count": 5},
        {"name": "quantize-tables", "bits": 4, "budget": 9000},
        {"name": "quantize-tables", "bits": 4, "scale": "row", "rows_per_scale": 4},
        {"name": "prune-weights", "max_auc_drop": 0.001},
    ):
        recipe = daily(1960, base).model_copy(update=parsed(daily, {"steps": [step]}))
        write_json(base / "recipe.json", daily(1900).model_copy(update={"steps": recipe.steps}).model_dump(mode="json"))
        with pytest.raises(InputError, match=rf"stability: step '{step['name']}' decides by the rows what a model"):
            run(recipe, tmp_path / "run")


def test_test_rows_that_may_have_trained_the_base_are_refused(first: Path, daily: Daily, tmp_path: Path) -> None:
    recipe = daily(1960, first)
    for changes in ({"split": Split(kind="rows")}, {"split": None, "time": None}):
        drawn = recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})
        with pytest.raises(InputError, match="stability: rows are split by a draw, so that today's test rows"):
            run(drawn, tmp_path / "run")


def test_records_of_steps_tell_nothing_of_weights_that_are_not_shipped(second: Path) -> None:
    *steps, _ = read_json(second / "seed-1" / "slim" / "steps.json")
    assert [each["name"] for each in steps] == ["quantize-tables", "quantize-dense"]
    assert all(
        "those of the run before" in each["note"] and set(each["facts"]) <= {"percent_touched"} for each in steps
    )


def test_other_fields_are_refused(first: Path, daily: Daily, tmp_path: Path) -> None:
    recipe = daily(1960, first)
    data = recipe.data.model_copy(update={"drop": ("price",)})
    with pytest.raises(
        InputError, match="the base has the fields user, item, tags, price, these rows user, item, tags"
    ):
        run(recipe.model_copy(update={"data": data}), tmp_path / "run")


@pytest.mark.parametrize("missing", ["", "result.json"])
def test_a_base_that_is_no_finished_run_is_refused(missing: str, first: Path, daily: Daily, tmp_path: Path) -> None:
    base = tmp_path / "base"
    if missing:
        shutil.copytree(first, base)
        (base / missing).unlink()
    with pytest.raises(InputError, match=r"stability\.base: \S+base holds no finished run: there is no result\.json"):
        run(daily(1960, base), tmp_path / "run")


def test_the_plan_tells_of_the_base_and_a_search_takes_none(first: Path, daily: Daily, tmp_path: Path) -> None:
    lines = plan(daily(1960, first), tmp_path / "run").splitlines()
    assert f"base      {first}, seed 1: its codes are kept, and no student is trained" in lines
    with pytest.raises(InputError, match="a search looks for another model than that of stability"):
        search(daily(1960, first), Search.parse({"goal": "auc_drop <= 0.01"}), tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_a_run_does_not_overwrite_its_base_and_misses_no_weights(first: Path, daily: Daily, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(first, base)
    with pytest.raises(InputError, match=r"stability\.base: \S+base is where this run is to be; choose another --out"):
        run(daily(1960, base), tmp_path / "elsewhere" / ".." / "base")
    (base / "seed-1" / "slim" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"stability\.base: \S+model\.safetensors: no such file"):
        run(daily(1960, base), tmp_path / "run")


def test_recipes_without_it_are_what_they_were(tiny: Callable[..., dict[str, Any]]) -> None:
    plain = Recipe.parse(tiny())
    assert "stability" not in plain.model_dump(mode="json")
    assert Recipe.parse(tiny(stability=False)) == plain
    told = Recipe.parse(tiny(stability={"base": "runs/day-1"})).model_dump(mode="json")
    assert json.loads(json.dumps(told))["stability"] == {"base": "runs/day-1", "hysteresis": 0.0, "pull": 0.4}
    with pytest.raises(InputError, match=r"unknown key 'stability\.hysteresys'\. Did you mean 'hysteresis'"):
        Recipe.parse(tiny(stability={"base": "runs/day-1", "hysteresys": 1}))
