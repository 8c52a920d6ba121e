"""The command line: every verb, and for everything that a user can get wrong one clear error and exit code 2."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from slimrank.cli import main
from slimrank.files import only_here, read_json

PROGRAM = [sys.executable, "-c", "from slimrank.cli import main; main()"]
VERBS = (
    *("run", "train", "compress", "export", "evaluate", "compare", "report", "inspect", "predict", "sign", "serve"),
    *("parity", "pack", "unpack", "delta", "apply", "doctor"),
)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def slimrank(*words: str | Path) -> Ended:
    """What the command line does, in this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["slimrank", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return Ended(code, out.getvalue(), err.getvalue())


def in_process_of_its_own(*words: str | Path, **environment: str) -> Ended:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([*PROGRAM, *map(str, words)], capture_output=True, text=True, check=False, env=environment)
    return Ended(done.returncode, done.stdout, done.stderr)


def refused(ended: Ended, *parts: str) -> None:
    """An error, and nothing else: exit code 2, lines that begin with `error: `, and all of `parts` in them."""
    assert ended.code == 2, ended
    assert "Traceback" not in ended.err
    lines = ended.err.strip().splitlines()
    assert lines
    assert all(line.startswith("error: ") for line in lines), ended.err
    for part in parts:
        assert part in ended.err, ended.err


@pytest.fixture(scope="session")
def folder(tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, its rows, and its finished run; not to be changed."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.json").write_text(json.dumps(tiny(steps=["quantize-tables", "quantize-dense"])))
    (folder / "tiny.py").write_text(
        "import json\nfrom pathlib import Path\nfrom slimrank.recipe import Recipe\n"
        "recipe = Recipe.parse(json.loads((Path(__file__).parent / 'tiny.json').read_text()))\n"
    )
    shutil.copy(tiny()["data"]["path"], folder / "rows.parquet")
    ended = slimrank("run", folder / "tiny.py", "--out", folder / "run")
    assert ended.code == 0, ended.err
    (folder / "printed.txt").write_text(ended.out)
    return folder


@pytest.fixture(scope="session")
def artifact(folder: Path) -> Path:
    return folder / "run" / "seed-1" / "artifacts" / "slim"


@pytest.fixture
def damaged(artifact: Path, tmp_path: Path) -> Path:
    """An artifact that may be changed."""
    return shutil.copytree(artifact, tmp_path / "artifact")


# verbs


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_what_a_verb_does(verb: str) -> None:
    ended = slimrank(verb, "--help")
    assert ended.code == 0
    assert f"slimrank {verb}" in ended.out
    assert ended.err == ""


def test_help_names_every_verb() -> None:
    ended = slimrank("--help")
    assert ended.code == 0
    assert all(f" {verb} " in ended.out for verb in VERBS)


def test_a_run_prints_its_table_and_where_the_report_is(folder: Path) -> None:
    printed = (folder / "printed.txt").read_text()
    assert "teacher" in printed
    assert "slim" in printed
    assert f"report: {folder / 'run' / 'report.html'}" in printed
    assert (folder / "run" / "report.html").exists()


def test_the_plan_is_said_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    ended = slimrank("run", folder / "tiny.py", "--out", tmp_path / "run", "--dry-run", "--seed", "4", "--seed", "5")
    assert ended.code == 0, ended.err
    assert "seeds [4, 5]" in ended.out
    assert "quantize-tables" in ended.out
    assert str(tmp_path / "run") in ended.out
    assert list(tmp_path.iterdir()) == []


def test_stages_one_by_one_are_the_run(folder: Path, tmp_path: Path) -> None:
    """Each verb goes on where the one before stopped, in one directory."""
    out = tmp_path / "run"
    for verb, made in (("train", "teacher-1"), ("compress", "seed-1/slim"), ("export", "seed-1/artifacts/slim")):
        ended = slimrank(verb, folder / "tiny.py", "--out", out)
        assert ended.code == 0, ended.err
        assert (out / made).is_dir()
        assert not (out / "result.json").exists()
    ended = slimrank("evaluate", folder / "tiny.py", "--out", out)
    assert ended.code == 0, ended.err
    assert "slim" in ended.out
    assert not (out / "report.html").exists()
    qualities = [read_json(one / "result.json")["slim"]["quality"] for one in (out, folder / "run")]
    assert qualities[0] == qualities[1]


def test_the_directory_is_named_after_the_recipe(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert slimrank("train", folder / "tiny.py").code == 0
    assert (tmp_path / "runs" / "tiny" / "teacher-1" / "model.safetensors").exists()


def test_an_artifact_is_measured_on_the_test_rows_of_a_file(folder: Path, artifact: Path) -> None:
    ended = slimrank("evaluate", artifact, "--data", folder / "rows.parquet")
    assert ended.code == 0, ended.err
    record = json.loads(ended.out)
    assert set(record) == {"quality", "bytes", "latency_ms", "rows_per_second", "floor_ms", "tensors"}
    assert record["quality"]["auc"] > 0.6


def test_what_an_artifact_holds(artifact: Path) -> None:
    ended = slimrank("inspect", artifact)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert {"schema", "tensors", "operators", "files", "recipe", "data_fingerprint", "digest"} <= set(found)
    assert found["tensors"][0]["bytes"] >= found["tensors"][-1]["bytes"]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_rows_are_scored_to_a_file_and_to_the_terminal(kind: str, folder: Path, artifact: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(folder / "rows.parquet").head(50)
    rows, out = tmp_path / f"rows.{kind}", tmp_path / f"out.{kind}"
    frame.write_parquet(rows) if kind == "parquet" else frame.write_csv(rows)
    ended = slimrank("predict", artifact, rows, "--out", out)
    assert (ended.code, ended.out) == (0, ""), ended.err
    written = pl.read_parquet(out) if kind == "parquet" else pl.read_csv(out)
    assert written.columns == [*frame.columns, "probability"]
    assert len(written) == 50
    ended = slimrank("predict", artifact, rows)
    assert ended.code == 0
    head, *values = ended.out.split()
    assert head == "probability"
    assert [float(value) for value in values] == pytest.approx(written["probability"].to_list(), rel=1e-5)


def test_unknown_ids_are_scored_and_counted(folder: Path, artifact: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(folder / "rows.parquet").head(10)
    frame.with_columns(user=pl.Series([10_000, 10_001, *frame["user"][2:]])).write_parquet(tmp_path / "rows.parquet")
    ended = slimrank("predict", artifact, tmp_path / "rows.parquet")
    assert ended.code == 0
    assert "user: 2 unknown values, scored as out of vocabulary" in ended.err
    assert len(ended.out.split()) == 11


def test_the_doctor_says_what_there_is() -> None:
    ended = slimrank("doctor")
    assert ended.code in (0, 1)  # 1: something that is not needed here is missing
    for word in ("slimrank", "torch", "onnxruntime", "python"):
        assert word in ended.out.lower()


def test_the_module_ends_with_the_code_and_no_traceback(tmp_path: Path) -> None:
    """Once in a process of its own: what the shell sees."""
    ended = in_process_of_its_own("run", tmp_path / "no.toml")
    refused(ended, f"{tmp_path / 'no.toml'}: no such file")
    assert ended.out == ""


# recipes


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("teachr = 1", ("unknown key 'teachr'", "Did you mean 'teacher'?", "Allowed: data, ")),
        ("[student]\nmodl = 'dnn'", ("unknown key 'student.modl'", "Did you mean 'model'?", "Allowed: fields, ")),
        ("steps = ['quantise-tables']", ("unknown step 'quantise-tables'", "Did you mean 'quantize-tables'?")),
        ("steps = [{name = 'prune-weights', sparsity = 1.5}]", ("sparsity", "less than 1", "got 1.5")),
        ("steps = [{name = 'quantize-tables', bits = 3}]", ("bits", "1, 2, 4, 8 or 32", "got 3")),
        ("data = 'frapp'", ("unknown dataset 'frapp'", "Did you mean 'frappe'?", "Allowed: amazon-beauty")),
        ("name = [", ("not a TOML file",)),
        ("\xff\xfe", ("not a TOML file",)),
    ],
)
def test_faults_of_a_recipe(text: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(text.encode("latin-1"))
    for words in (("run",), ("run", "--dry-run"), ("train",)):
        refused(slimrank(*words, path, "--out", tmp_path / "run"), *parts)
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x")
    refused(slimrank("run", tmp_path / "recipe.yaml"), "recipe.yaml", ".toml, .json or .py file")
    (tmp_path / "recipe.py").write_text("from slimrank.recipe import Recipe\nrecipe = Recipe(nme=1)")
    refused(slimrank("run", tmp_path / "recipe.py"), "unknown key 'nme'. Did you mean 'name'?")


@pytest.mark.parametrize("words", [("rnu",), ("run", "--sed", "1"), ("predict",), ("serve", "x", "--port", "70000")])
def test_words_that_do_not_exist(words: tuple[str, ...]) -> None:
    ended = slimrank(*words)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert ended.err


# data


def test_unknown_names_of_data(tmp_path: Path) -> None:
    for words in (("run",), ("run", "--dry-run"), ("train",)):
        ended = slimrank(*words, "--data", "frapp", "--out", tmp_path / "run")
        refused(
            ended,
            "unknown dataset 'frapp'",
            "Did you mean 'frappe'?",
            "Allowed: amazon-beauty, amazon-beauty-sequences, avazu, criteo",
            ".parquet or .csv",
        )
    assert not (tmp_path / "run").exists()


def test_data_that_is_nowhere_to_be_found(tmp_path: Path, monkeypatch) -> None:
    """The main job, pointed at a folder without the files: both ways to get them are said."""
    ended = slimrank("run", "--data", tmp_path, "--out", tmp_path / "run")
    refused(ended, "ml-100k.inter", "not found", "pip install --no-deps recbole==1.2.1", "--data", "SLIMRANK_DATA")
    monkeypatch.setenv("SLIMRANK_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "frappe.toml").write_text("data = 'frappe'")
    refused(slimrank("run", tmp_path / "frappe.toml"), "SLIMRANK_DATA", "nowhere: no such folder")
    assert not (tmp_path / "run").exists()


ROWS: dict[str, tuple[Callable[[pl.DataFrame], Any], tuple[str, ...]]] = {
    "no label": (lambda f: f.drop("label"), ("no column is called like a label", "click", "user, item, tags, price")),
    "no group": (lambda f: f.rename({"user": "usr"}), ("user", "Did you mean 'usr'?")),
    "a label of 2": (
        lambda f: f.with_columns(label=pl.col("user") % 3),
        ("label", "is not 0 or 1", "Allowed: 0 and 1"),
    ),
    "one class": (lambda f: f.with_columns(label=pl.lit(1)), ("label", "both classes are needed")),
    "a column of one value": (lambda f: f.with_columns(item=pl.lit(7)), ("'item' has one value, 7", "drop it")),
    "NaN": (
        lambda f: f.with_columns(price=pl.when(pl.col("user") == 1).then(float("nan")).otherwise(pl.col("price"))),
        ("'price'", "NaN of 2500 values"),
    ),
    "infinity": (
        lambda f: f.with_columns(price=pl.Series([float("inf"), float("-inf"), *f["price"][2:]])),
        ("'price'", "2 infinite of 2500 values"),
    ),
    "no rows": (lambda f: f.clear(), ("empty", "no rows")),
}


@pytest.mark.parametrize("fault", ROWS)
def test_faults_of_rows(fault: str, folder: Path, tiny, tmp_path: Path) -> None:
    change, parts = ROWS[fault]
    change(pl.read_parquet(folder / "rows.parquet")).write_parquet(tmp_path / "rows.parquet")
    recipe = tiny(data={**tiny()["data"], "path": str(tmp_path / "rows.parquet")})
    (tmp_path / "tiny.json").write_text(json.dumps(recipe))
    shutil.copy(folder / "tiny.py", tmp_path / "tiny.py")
    for words in (("run", tmp_path / "tiny.py"), ("run", tmp_path / "tiny.py", "--dry-run")):
        refused(slimrank(*words, "--out", tmp_path / "run"), "rows.parquet", *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [0, 100, 5000])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_empty_and_truncated_files(size: int, kind: str, folder: Path, artifact: Path, tmp_path: Path) -> None:
    if kind == "csv" and size:
        pytest.skip("a CSV file that ends early is a shorter CSV file")
    path = tmp_path / f"rows.{kind}"
    path.write_bytes((folder / "rows.parquet").read_bytes()[:size])
    word = "empty" if size == 0 else "truncated"
    refused(slimrank("run", "--data", path, "--out", tmp_path / "run"), path.name, word)
    refused(slimrank("predict", artifact, path, "--out", tmp_path / "out.parquet"), path.name, word)
    refused(slimrank("evaluate", artifact, "--data", path), path.name, word)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# prediction


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda f: f.rename({"item": "itm"}), ("missing column 'item'", "Did you mean 'itm'?")),
        (lambda f: f.with_columns(price=pl.lit(float("nan"))), ("price", "2500 NaN")),
        (lambda f: f.with_columns(price=pl.lit("dear")), ("price",)),
    ],
)
def test_rows_that_cannot_be_scored(change, parts, folder: Path, artifact: Path, tmp_path: Path) -> None:
    change(pl.read_parquet(folder / "rows.parquet")).write_parquet(tmp_path / "rows.parquet")
    refused(slimrank("predict", artifact, tmp_path / "rows.parquet", "--out", tmp_path / "out.csv"), *parts)
    assert not (tmp_path / "out.csv").exists()


def test_raw_ids_out_of_range_are_refused(tmp_path: Path) -> None:
    """A field of raw ids has no out-of-vocabulary id to fall back to."""
    training = "{ epochs = 1 }"
    (tmp_path / "raw.toml").write_text(
        "data = { name = 'synthetic', rows = 600, fields = 2, ids = 20 }\nsteps = []\nstudent = {}\n"
        f"retraining = {training}\nteacher = {{ model = 'logistic-regression', training = {training} }}\n"
        f"[student]\nmodel = 'logistic-regression'\ntraining = {training}\n".replace("student = {}\n", "")
    )
    ended = slimrank("export", tmp_path / "raw.toml", "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    pl.DataFrame({"c0": [0, 19, 20, -1], "c1": [0, 1, 2, 3]}).write_parquet(tmp_path / "rows.parquet")
    ended = slimrank("predict", tmp_path / "run/seed-1/artifacts/slim", tmp_path / "rows.parquet")
    refused(ended, "c0", "2 of 4 raw ids out of range, such as 20, -1", "Allowed: 0..19")


# artifacts


def test_one_changed_byte_in_any_file(damaged: Path, folder: Path) -> None:
    for file in sorted(damaged.iterdir()):
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        for words in (("inspect", damaged), ("predict", damaged, folder / "rows.parquet")):
            refused(slimrank(*words), file.name)
        file.write_bytes(content)
    assert slimrank("inspect", damaged).code == 0


def test_a_missing_file(damaged: Path, folder: Path) -> None:
    for file in sorted(damaged.iterdir()):
        content = file.read_bytes()
        file.unlink()
        refused(slimrank("inspect", damaged), file.name, "missing")
        refused(slimrank("evaluate", damaged, "--data", folder / "rows.parquet"), file.name, "missing")
        file.write_bytes(content)


def test_an_unknown_format_version(damaged: Path) -> None:
    manifest = json.loads((damaged / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}))
    refused(slimrank("inspect", damaged), "manifest.json", "format_version 99 is unknown", "reads 1")


def test_what_is_no_artifact(tmp_path: Path) -> None:
    refused(slimrank("inspect", tmp_path), "manifest.json", "missing")
    refused(slimrank("inspect", tmp_path / "nowhere"), "nowhere", "no artifact there")
    (tmp_path / "file").write_text("x")
    refused(slimrank("inspect", tmp_path / "file"), "file", "an artifact is a directory")
    refused(slimrank("evaluate", tmp_path), "--data")


# the run directory


def test_a_run_directory_that_is_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    refused(slimrank("run", folder / "tiny.py", "--out", tmp_path / "run"), "run", "cannot be used as a run directory")
    assert (tmp_path / "run").read_text() == "mine"


def test_two_runs_in_one_directory_at_once(folder: Path, tmp_path: Path) -> None:
    with only_here(tmp_path / "run"):
        ended = in_process_of_its_own("run", folder / "tiny.py", "--out", tmp_path / "run")
    refused(ended, str(tmp_path / "run"), "another run is working in this directory", "--out")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_full_disk(folder: Path, artifact: Path, tmp_path: Path) -> None:
    """Files may have no bytes at all: nothing is left, and what was there stays."""
    program = (
        "import resource; from slimrank.cli import main; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); main()"
    )
    for words in (
        ("predict", artifact, folder / "rows.parquet", "--out", tmp_path / "out.parquet"),
        ("run", folder / "tiny.py", "--out", tmp_path / "run"),
    ):
        command = [sys.executable, "-c", program, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        refused(Ended(done.returncode, done.stdout, done.stderr), "could not be written", "File too large")
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_compare_ends_by_its_verdict(linear, linear_rows, tmp_path: Path) -> None:
    """0 where non-inferiority is shown, 3 where it is not, 2 where nothing could be compared."""
    rows, files = pl.concat([linear_rows] * 50), {}
    rows.write_parquet(tmp_path / "rows.parquet")
    for name, logit in (("poor", 1.0 - rows["label"]), ("good", rows["label"] + 0.0)):
        files[name] = tmp_path / f"{name}.parquet"
        pl.DataFrame({"logit": logit}).write_parquet(files[name])
    asked = ("--data", tmp_path / "rows.parquet", "--metric", "auc", "--metric", "logloss")
    same = slimrank("compare", linear.path, linear.path, *asked, "--out", tmp_path / "found.json", "--by", "user")
    assert same.code == 0, same
    assert "B is non-inferior to A" in same.out
    assert [one["metric"] for one in read_json(tmp_path / "found.json")["metrics"]] == ["auc", "logloss"]
    assert slimrank("compare", files["poor"], files["good"], *asked).code == 0
    worse = slimrank("compare", files["good"], files["poor"], *asked)
    assert worse.code == 3
    assert "B is inferior to A" in worse.out
    constant = tmp_path / "constant.parquet"
    pl.DataFrame({"score": [1.0] * 300}).write_parquet(constant)
    asked = ("--data", tmp_path / "rows.parquet", "--label", "label", "--group", "user")
    refused(slimrank("compare", linear.path, constant, *asked), "auc: an interval needs 20 groups, got 3")
    found = slimrank("compare", linear.path, constant, *asked[:4], "--out", tmp_path / "found.json")
    assert found.code == 3
    assert read_json(tmp_path / "found.json")["behaviour"]["rank_correlation"] is None
    refused(
        slimrank("compare", linear.path, constant, *asked[:2], "--metric", "aucc"), "unknown metric 'aucc'", "'auc'"
    )
    refused(slimrank("compare", linear.path, tmp_path / "none", *asked[:2]), "none")
    refused(slimrank("compare", linear.path, constant, "--data", "frapp"), "frapp")
    refused(slimrank("compare", linear.path, constant, *asked[:2], "--margin", "nan"), "margin: got nan")


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    """A known history, a long one, one with an unknown item, and none."""
    long = [f"item {place}" for place in range(20, 26)]
    histories = [["item 3", "item 4"], long, ["item 999", "item 7"], []]
    path = tmp_path / "queries.parquet"
    pl.DataFrame({"request": [7, 8, 9, 10], "history": histories}).write_parquet(path)
    return path


def test_the_first_items_of_every_query_are_printed(finder, queries: Path) -> None:
    ended = slimrank("predict", finder("vectors").path, queries, "--k", "3")
    assert ended.code == 0, ended.err
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [len(items) for items in found] == [3, 3, 3, 3]
    assert not {"item 3", "item 4"}.intersection(found[0])
    assert not {f"item {place}" for place in range(20, 26)}.intersection(found[1])
    assert ended.err.splitlines() == [
        "history: 1 unknown values, scored as out of vocabulary",
        "history: 1 longer than the model reads, the most recent items were kept",
    ]


@pytest.mark.parametrize("kind", [".jsonl", ".parquet"])
def test_the_first_items_are_written_beside_what_was_asked(kind: str, finder, queries: Path, tmp_path: Path) -> None:
    out = tmp_path / f"found{kind}"
    ended = slimrank("predict", finder("scores").path, queries, "--k", "2", "--out", out)
    assert (ended.code, ended.out) == (0, "")
    frame = pl.read_parquet(out) if kind == ".parquet" else pl.read_ndjson(out)
    assert frame.columns == ["request", "history", "items", "scores"]
    assert frame["request"].to_list() == [7, 8, 9, 10]
    assert frame["items"].list.len().to_list() == frame["scores"].list.len().to_list() == [2, 2, 2, 2]
    printed = slimrank("predict", finder("scores").path, queries, "--k", "2")
    assert [json.loads(line) for line in printed.out.splitlines()] == frame["items"].to_list()


def test_queries_that_cannot_be_answered(finder, linear, queries: Path, tmp_path: Path) -> None:
    path = finder("vectors").path
    out = tmp_path / "found.csv"
    refused(slimrank("predict", path, queries, "--out", out), "unknown kind of file '.csv' for lists", ".jsonl")
    refused(slimrank("predict", path, queries, "--out", tmp_path / "none" / "found.jsonl"), "is no directory")
    assert slimrank("predict", path, queries, "--k", "0").code == 2
    refused(slimrank("predict", path, tmp_path / "queries.json"), "unknown kind of file")
    pl.read_parquet(queries).rename({"history": "histori"}).write_parquet(tmp_path / "other.parquet")
    refused(slimrank("predict", path, tmp_path / "other.parquet"), "missing column 'history'. Did you mean 'histori'")
    pl.read_parquet(queries).with_columns(items=1).write_parquet(tmp_path / "taken.parquet")
    taken = tmp_path / "taken.parquet"
    refused(slimrank("predict", path, taken, "--out", tmp_path / "found.jsonl"), "already has a column 'items'")
    assert not out.exists()
    pl.DataFrame({"history": ["item 3"]}).write_csv(tmp_path / "text.csv")
    refused(slimrank("predict", path, tmp_path / "text.csv"), "column 'history'", "a sequence is a list")


def test_no_queries_print_nothing(finder, tmp_path: Path) -> None:
    pl.DataFrame({"history": []}, schema={"history": pl.List(pl.String)}).write_parquet(tmp_path / "none.parquet")
    ended = slimrank("predict", finder("vectors").path, tmp_path / "none.parquet")
    assert (ended.code, ended.out.strip(), ended.err) == (0, "", "")


def test_models_that_find_items_are_compared(finder, tmp_path: Path) -> None:
    good, poor = finder("vectors"), finder("worse")
    good.dataset.test.write_parquet(tmp_path / "rows.parquet")
    asked = ("--data", tmp_path / "rows.parquet", "--out", tmp_path / "found.json")
    same = slimrank("compare", good.path, good.path, *asked)
    assert same.code == 0, same.err
    assert "B is non-inferior to A: ndcg@10 at a margin of 0.001 on 400 rows" in same.out
    assert "Of A's first 10, 100.0% are among B's" in same.out
    worse = slimrank("compare", good.path, poor.path, *asked)
    assert worse.code == 3
    assert "B is inferior to A" in worse.out
    assert read_json(tmp_path / "found.json")["verdict"]["metric"] == "ndcg@10"


def test_a_search_of_items_is_refused(next_item, tmp_path: Path) -> None:
    (tmp_path / "next.json").write_text(json.dumps(next_item()))
    ended = slimrank("search", tmp_path / "next.json", "--goal", "bytes <= 9 KB", "--out", tmp_path / "out")
    refused(ended, "a search is of models that answer with clicks", "'item'", "slimrank run")


def test_report_writes_what_is_asked_for(folder: Path, tmp_path: Path, smallest_result: dict[str, Any]) -> None:
    (tmp_path / "result.json").write_text(json.dumps(smallest_result))
    assert slimrank("report", tmp_path).code == 0
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    ended = slimrank("report", tmp_path / "result.json", "--format", "md", "--out", tmp_path / "pr.md")
    assert ended.out.strip() == str(tmp_path / "pr.md")
    assert "the slim model is about as large" in (tmp_path / "pr.md").read_text()
    assert slimrank("report", tmp_path, "--format", "svg").out.strip() == str(tmp_path / "pictures" / "quality.svg")
    refused(slimrank("report", tmp_path, "--format", "pdf"), "unknown format 'pdf'", "md")
    refused(slimrank("report", folder / "nowhere"), "nowhere")


@pytest.fixture
def smallest_result() -> dict[str, Any]:
    part = {"quality": {"auc": 0.9}, "bytes": {"disk": 1000}}
    return {"teacher": part, "slim": part}
