"""Real searches: from a goal to an artifact, whatever happens on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import polars
import pytest

import slimrank
from slimrank.artifact import open_artifact
from slimrank.cli import main
from slimrank.config import InputError
from slimrank.files import only_here, read_json
from slimrank.pipeline.search import search
from slimrank.pipeline.trials import Trials
from slimrank.pipeline.workers import Watch
from slimrank.recipe import Recipe, read_recipe
from slimrank.searching.search import Search
from slimrank.searching.study import trials_of

EASY = "auc_drop <= 0.5, bytes <= 1 MB"


def asked(goal: str = EASY, **settings: Any) -> Search:
    return Search.parse({"goal": goal, "workers": 1, "trainings": 2, **settings})


def complete(folder: Path) -> list[int]:
    """The trials that a study holds as complete, read without our own code."""
    with sqlite3.connect(folder / "search.db") as database:
        return [row[0] for row in database.execute("SELECT number FROM trials WHERE state = 'COMPLETE'")]


@pytest.fixture(scope="module")
def found(tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    """A search that nothing disturbed, with two workers, its result and its lines."""
    folder, lines = tmp_path_factory.mktemp("search") / "out", list[str]()
    recipe = Recipe.parse(tiny())
    result = search(recipe, asked(workers=2, trainings=1), folder, say=lines.append)
    return folder, result, lines


@pytest.mark.long
def test_a_search_ends_with_an_artifact_measured_on_test_rows(found, tiny) -> None:
    folder, result, lines = found
    said = result["search"]
    assert said["met"]
    assert {bound["key"] for bound in said["bounds"]} == {"auc_drop", "bytes"}
    proof = next(bound["proof"] for bound in said["bounds"] if bound["key"] == "auc_drop")
    assert proof["outcome"] == "non-inferior"
    told = [trial["number"] for trial in said["trials"] if trial["figures"] or trial["reason"]]
    assert sorted(line.split(":")[0] for line in lines) == sorted(f"trial {number}" for number in told)
    open_artifact(folder / "artifact")
    dataset = slimrank.load_dataset(read_recipe(folder / "recipe.json").data)
    again = slimrank.evaluate({"slim": folder / "artifact", "teacher": folder / "baseline" / "artifact"}, dataset)
    drop = again["teacher"]["quality"]["auc"] - again["slim"]["quality"]["auc"]
    assert said["figures"]["auc_drop"] == pytest.approx(drop)
    assert proof["rows"] == len(dataset.test)
    assert said["rows"]["search"] + said["rows"]["selection"] == len(dataset.valid)
    assert (folder / "report.html").stat().st_size < 2_000_000


@pytest.mark.long
def test_the_chosen_trial_is_the_one_whose_bytes_ship(found) -> None:
    folder, result, _ = found
    said = result["search"]
    chosen = next(trial for trial in said["trials"] if trial["number"] == said["chosen"])
    graph = folder / "artifact" / "model.onnx"
    assert chosen["figures"]["bytes"] == graph.stat().st_size == said["figures"]["bytes"]
    assert chosen["number"] in {trial["number"] for trial in said["trials"] if trial["state"] == "complete"}
    smaller = [
        trial
        for trial in said["trials"]
        if trial["state"] == "complete"
        and trial["figures"]["bytes"] < chosen["figures"]["bytes"]
        and trial["selection"]["proven"]["auc_drop"]
    ]
    assert smaller == []


@pytest.mark.long
def test_it_goes_on_where_it_was(found, tiny) -> None:
    folder, result, _ = found
    before, teachers = complete(folder), (folder / "teacher-1" / "model.safetensors").stat().st_mtime_ns
    again = search(Recipe.parse(tiny()), asked(workers=1, trainings=result["search"]["spent"] + 0.5), folder)
    assert set(before) <= set(complete(folder))
    assert (folder / "teacher-1" / "model.safetensors").stat().st_mtime_ns == teachers
    assert len(again["search"]["trials"]) > len(result["search"]["trials"])


@pytest.mark.long
def test_the_chosen_recipe_runs_by_itself(found, tmp_path: Path) -> None:
    folder, _, _ = found
    slimrank.run(read_recipe(folder / "recipe.json"), tmp_path / "again", until="export")
    open_artifact(tmp_path / "again" / "seed-1" / "artifacts" / "slim")


@pytest.mark.long
def test_without_time_and_without_luck_there_is_an_artifact_and_exit_code_3(
    tiny, tmp_path, monkeypatch, capsys
) -> None:
    """A goal that nothing meets, no time for any trial, and a first recipe that is unfit: one is trained whole."""
    recipe, out = tmp_path / "tiny.py", tmp_path / "out"
    recipe.write_text(
        "import json\nfrom slimrank.recipe import Recipe\nfrom slimrank.searching.search import Search\n"
        f"recipe = Recipe.parse(json.loads({json.dumps(tiny())!r}))\n"
        "space = {'steps.3.budget': [10, None]}\n"
        "search = Search(goal='bytes <= 900, auc_drop <= 0.5', workers=1, minutes=0.001, space=space)\n"
    )
    monkeypatch.setattr(sys, "argv", ["slimrank", "search", str(recipe), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    words = capsys.readouterr().out
    assert ended.value.code == 3
    assert "Asked for bytes <= 900, auc_drop <= 0.5: none meets it; nearest is trial" in words
    assert "it would be met with bytes <= " in words
    open_artifact(out / "artifact")
    trials = read_json(out / "result.json")["search"]["trials"]
    assert [trial["state"] for trial in trials] == ["failed", "complete"]


@pytest.mark.long
def test_two_searches_do_not_share_a_directory(found, tiny) -> None:
    folder, _, _ = found
    with only_here(folder), pytest.raises(InputError, match="another run is working in this directory"):
        search(Recipe.parse(tiny()), asked(trainings=7), folder)


@pytest.mark.long
def test_another_goal_recipe_or_version_is_not_the_same_study(found, tiny, monkeypatch) -> None:
    folder, _, _ = found
    with pytest.raises(InputError, match="was made with another goal; name another with --study"):
        search(Recipe.parse(tiny()), asked("auc_drop <= 0.4"), folder)
    monkeypatch.setattr("slimrank.searching.study.__version__", "9.9.9")
    with pytest.raises(InputError, match=r"was made with slimrank .*, this is 9\.9\.9"):
        search(Recipe.parse(tiny()), asked(trainings=7), folder)


KILLED = """
import sys
from slimrank.cli import main
recipe, out = sys.argv[1:]
asked = ["--goal", "auc_drop <= 0.5", "--workers", "1", "--trainings", "5"]
sys.argv = ["slimrank", "search", recipe, "--out", out, *asked]
main()
"""


def test_two_studies_in_one_directory_keep_their_artifacts_apart(tiny, tmp_path: Path) -> None:
    """Their trials have the same numbers."""
    searches = (asked(), asked(study="b"), asked("auc_drop <= 0.2"), asked(space={"steps.3.bits": [8]}))
    folders = {Trials(one, Recipe.parse(tiny()), tmp_path).artifacts for one in searches}
    assert len(folders) == len(searches)
    assert Trials(asked(workers=2, minutes=5), Recipe.parse(tiny()), tmp_path).artifacts in folders


@pytest.mark.long
def test_what_is_shipped_is_the_studys_own(found, tiny, tmp_path: Path) -> None:
    """Another study in the directory, of another space, has the same numbers and ships another model."""
    out = tmp_path / "out"
    shutil.copytree(found[0], out)
    before = {path: path.read_bytes() for path in out.glob("trials/*/*/artifact/model.onnx")}
    other = search(Recipe.parse(tiny()), asked(space={"steps.3.bits": [2]}, study="b", halving=False), out)
    assert other["search"]["chosen"] == 0
    assert open_artifact(out / "artifact").manifest["recipe"]["steps"][3]["bits"] == 2
    assert (out / "artifact" / "model.onnx").stat().st_size == other["search"]["figures"]["bytes"]
    assert before == {path: path.read_bytes() for path in before}
    assert (out / "artifact" / "model.onnx").read_bytes() not in before.values()


def test_rows_that_are_too_few_are_told_once_with_how_many_would_do(tiny, tmp_path: Path) -> None:
    trials, lines = Trials(asked("auc_drop <= 0.001"), Recipe.parse(tiny()), tmp_path), list[str]()
    study = trials.open_study(create=True)
    for drop in (0.0, 0.1):
        known = {"changes": {"n": drop}, "figures": {"auc_drop": drop, "bytes": 100.0}, "share": 1.0}
        needed = {"selection": {"rows_needed": {"auc_drop": 123_456}}}
        study.add_trial(optuna.trial.create_trial(values=[1.0, drop], user_attrs={**known, **needed}))
    watch = Watch(trials, study, lines.append)
    watch.look()
    watch.look()
    rows = len(trials.rows["test"])
    few = f"{rows} test rows may not decide auc_drop: of equally good models about 123,456 like these would"
    assert lines == [
        "trial 0: auc_drop 0.0000, bytes 100 bytes within the goal",
        few,
        "trial 1: auc_drop +0.1000, bytes 100 bytes",
    ]


@pytest.mark.long
def test_a_search_that_is_refused_has_changed_nothing(found, tiny) -> None:
    folder, _, _ = found
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    longer = tiny()
    longer["teacher"] = {**longer["teacher"], "training": {**longer["teacher"]["training"], "epochs": 3}}
    with pytest.raises(InputError, match="was made with another recipe"):
        search(Recipe.parse(longer), asked(trainings=7), folder)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path for path in before if after.get(path) != before[path]} <= {folder / "search.db"}


@pytest.mark.long
def test_a_worker_whose_parent_is_gone_ends(tiny, tmp_path: Path) -> None:
    """SIGKILL of the process that waits, alone: its worker tries nothing more."""
    out, recipe = tmp_path / "out", tmp_path / "recipe.json"
    recipe.write_text(json.dumps(tiny()))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(recipe), str(out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while not (out / "worker-1.log").exists() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    time.sleep(6)
    assert known(out) == []


@pytest.mark.long
def test_killed_at_any_moment_it_loses_at_most_the_trial_in_flight(tiny, tmp_path: Path) -> None:
    """SIGKILL of the whole group, when a trial is complete and the next one in flight."""
    out, recipe = tmp_path / "out", tmp_path / "recipe.json"
    recipe.write_text(json.dumps(tiny()))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(recipe), str(out)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.time() + 120
    while not known(out) and process.poll() is None and time.time() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = set(known(out))
    assert kept
    result = search(read_recipe(recipe), asked("auc_drop <= 0.5", trainings=2), out)
    trials = result["search"]["trials"]
    states = {trial["number"]: trial["state"] for trial in trials}
    assert kept <= {number for number, state in states.items() if state == "complete"}
    assert [trial["state"] for trial in trials].count("cut off") <= 1
    assert not list(out.glob("trial-*-*"))
    assert {path.name for path in (out / "trials").glob("*/*")} == {
        str(number) for number, state in states.items() if state == "complete"
    }


def known(out: Path) -> list[int]:
    try:
        return complete(out)
    except sqlite3.OperationalError:
        return []


@pytest.mark.long
def test_ctrl_c_ends_with_the_best_so_far(tiny, tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", tmp_path / "recipe.json"
    recipe.write_text(json.dumps(tiny()))
    asked_words = ["--goal", "auc_drop <= 0.5, p50_ms@1 <= 50", "--workers", "1", "--trainings", "90"]
    command = [str(Path(sys.executable).parent / "slimrank"), "search", str(recipe), "--out", str(out), *asked_words]
    process = subprocess.Popen(
        command, start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while not known(out) and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    words, lines = process.communicate(timeout=120)
    assert process.returncode == 0, lines
    assert "stopped; what was found so far is measured now" in lines
    assert "met by trial" in words
    assert read_json(out / "result.json")["search"]["figures"]["p50_ms@1"] > 0
    open_artifact(out / "artifact")


@pytest.mark.long
def test_two_machines_search_in_one_study(tiny, tmp_path: Path) -> None:
    """Two directories and one database: what one tried the other knows, and either can ship it."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first = search(Recipe.parse(tiny()), asked(storage=url, trainings=1), tmp_path / "one")
    second = search(Recipe.parse(tiny()), asked(storage=url, trainings=1), tmp_path / "two")
    assert [trial["number"] for trial in second["search"]["trials"]] == [
        trial["number"] for trial in first["search"]["trials"]
    ]
    assert second["search"]["chosen"] == first["search"]["chosen"]
    one, two = (tmp_path / name / "artifact" / "model.onnx" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.long
def test_a_full_disk_ends_with_an_error_and_a_study_that_opens(found, tiny, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the database cannot grow, and says so in one line."""
    out = tmp_path / "out"
    shutil.copytree(found[0], out)
    before, limit = complete(out), (out / "search.db").stat().st_size
    program = (
        "import resource, sys\nfrom slimrank.cli import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        f"sys.argv = ['slimrank', 'search', {str(tmp_path / 'r.json')!r}, '--out', {str(out)!r}, '--goal', {EASY!r},"
        " '--workers', '1', '--trainings', '90']\nmain()\n"
    )
    (tmp_path / "r.json").write_text(json.dumps(tiny()))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    *_, last = ended.stderr.strip().splitlines()
    assert re.fullmatch(r"error: .*(disk is full|disk I/O error|File too large|could not be written).*", last), last
    assert set(before) <= set(complete(out))
    trials = Trials(asked(), Recipe.parse(tiny()), out)
    study = trials.open_study(create=False)
    assert set(before) <= {trial.number for trial in trials_of(study) if trial.state == "complete"}


def test_gauc_of_rows_without_groups_is_refused_before_anything_is_trained(tiny, tmp_path: Path) -> None:
    plain = tiny()
    plain["data"] = {key: value for key, value in plain["data"].items() if key != "group"}
    with pytest.raises(InputError, match="gauc_drop needs groups"):
        search(Recipe.parse(plain), asked("gauc_drop <= 0.1"), tmp_path / "out")
    assert not (tmp_path / "out" / "teacher-1").exists()


def test_gauc_that_no_group_has_is_refused_before_anything_is_trained(tiny, tmp_path: Path) -> None:
    plain = tiny()
    rows = polars.read_parquet(plain["data"]["path"])
    alone = tmp_path / "alone.parquet"
    rows.with_columns(user=polars.int_range(len(rows))).write_parquet(alone)
    plain["data"] = {**plain["data"], "path": str(alone)}
    with pytest.raises(InputError, match="gauc_drop needs groups with rows of both classes, and the search rows"):
        search(Recipe.parse(plain), asked("gauc_drop <= 0.1"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_space_that_is_not_the_recipes_is_refused_before_anything_is_trained(tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no 'bit' there"):
        search(Recipe.parse(tiny()), asked(space={"steps.3.bit": [2, 4]}), tmp_path / "out")
    assert not (tmp_path / "out" / "teacher-1").exists()


def test_the_three_parts_of_the_rows_share_none(tiny, tmp_path: Path) -> None:
    trials = Trials(asked(), Recipe.parse(tiny()), tmp_path)
    sizes = {part: len(rows) for part, rows in trials.rows.items()}
    whole = slimrank.load_dataset(trials.recipe.data)
    assert sizes["search"] + sizes["selection"] == len(whole.valid)
    assert sizes["test"] == len(whole.test)
    assert trials.run.dataset.valid.equals(trials.rows["search"])
