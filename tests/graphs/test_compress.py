"""The verb in Python and on the command line, without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import helper

from slimrank.config import InputError, read_named
from slimrank.graphs.compress import _agreement
from slimrank.graphs.told import _agreement as said
from slimrank.graphs.told import asked_steps

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\nfrom slimrank.cli import main\nmain()"


@pytest.fixture
def model(graph_file):
    """ids [N, 2] and prices [N] to a score: one table, one layer, as other converters write them."""
    draw = np.random.default_rng(0)
    held = {
        "table": (draw.normal(size=(500, 16)) * 0.1).astype(np.float32),
        "w": draw.normal(size=(33, 8)).astype(np.float32),
        "b": draw.normal(size=8).astype(np.float32),
        "flat": np.array([-1, 32], np.int64),
        "column": np.array([-1, 1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Reshape", ["rows", "flat"], ["row"]),
        helper.make_node("Reshape", ["price", "column"], ["prices"]),
        helper.make_node("Concat", ["row", "prices"], ["inputs"], axis=1),
        helper.make_node("Gemm", ["inputs", "w", "b"], ["score"]),
    ]
    inputs = {"ids": (onnx.TensorProto.INT64, ["N", 2]), "price": (onnx.TensorProto.FLOAT, ["N"])}
    return graph_file(nodes, inputs, ["score"], held)


@pytest.fixture
def rows(tmp_path):
    draw = np.random.default_rng(1)
    ids = draw.integers(0, 500, (300, 2))
    frame = pl.DataFrame({"ids": ids, "price": draw.lognormal(size=300)})
    frame.write_parquet(tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def slimrank(*words: object) -> subprocess.CompletedProcess[str]:
    """The command line where torch cannot be imported."""
    arguments = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *map(str, words)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_the_command_line_needs_no_torch(model, rows, run, over_noise, tmp_path) -> None:
    done = slimrank("compress", model, "--data", rows, "--out", tmp_path / "small.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "  touched table: 32,000 bytes to 8,004" in lines
    assert any(line.startswith("  touched w: 1,056 bytes to 428, a scale a column, ") for line in lines)
    assert any(line.startswith("output score: ") and line.endswith(" dB over its change") for line in lines)
    sizes = [path.stat().st_size for path in (model, tmp_path / "small.onnx")]
    assert (
        lines[-1]
        == f"{tmp_path / 'small.onnx'}: {sizes[0]:,} bytes to {sizes[1]:,}, {sizes[0] / sizes[1]:.1f}x smaller"
    )
    frame = pl.read_parquet(rows)
    feeds = {"ids": frame["ids"].to_numpy(), "price": frame["price"].to_numpy().astype(np.float32)}
    assert over_noise(run(model, feeds), run(tmp_path / "small.onnx", feeds)) > 31


def test_steps_are_said_in_order_and_the_file_lies_beside_the_model(model, rows) -> None:
    words = ["--step", "prune-weights:sparsity=0.5", "--step", "quantize-tables:bits=4,scale=row"]
    done = slimrank("compress", model, *words)
    assert (done.returncode, done.stderr) == (0, "")
    heads = [line.split(":")[0] for line in done.stdout.splitlines() if ", touched " in line]
    assert heads == ["prune-weights", "quantize-tables"]
    names = {each.name for each in onnx.load(model.with_name("graph-slim.onnx")).graph.initializer}
    assert {"table_codes", "table_scales"} <= names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--step", "quantise-tables"], "unknown graph step 'quantise-tables'. Did you mean 'quantize-tables'?"),
        (["--step", "quantize-tables:bit=4"], "unknown key 'bit'. Did you mean 'bits'?"),
        (["--step", "quantize-tables:bits"], "a setting is KEY=VALUE, got 'bits'"),
        (["--bits", "3"], "graph step quantize-tables: bits"),
        (["--bits", "4", "--step", "quantize-dense"], "--bits is that of tables where no --step is given"),
        (["--data", "none.parquet"], "none.parquet: no such file"),
        (["--seed", "1", "--seed", "2"], "an ONNX file is compressed once, got 2 seeds"),
    ],
)
def test_what_is_wrong_is_one_clear_error(words, said, model) -> None:
    done = slimrank("compress", model, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert not model.with_name("graph-slim.onnx").exists()


def test_options_of_graphs_are_none_of_recipes() -> None:
    done = slimrank("compress", "recipe.toml", "--bits", "4")
    assert done.returncode == 2
    assert "--step and --bits are of an ONNX file" in done.stderr


def test_steps_from_words() -> None:
    assert read_named("quantize-tables:only=['user*', 'item'],bits=2,weighted=false", "--step") == {
        "name": "quantize-tables",
        "only": ["user*", "item"],
        "bits": 2,
        "weighted": False,
    }
    assert asked_steps(None, None) == [{"name": "quantize-tables"}, {"name": "quantize-dense"}]
    assert asked_steps(None, 4)[0] == {"name": "quantize-tables", "bits": 4}
    with pytest.raises(InputError):
        asked_steps(["prune-weights"], 0)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ([1.0, np.inf, np.nan], [1.0, np.inf, np.nan], "200.0 dB over its change"),
        ([0.0, 0.0], [0.0, 0.0], "200.0 dB over its change"),
        ([1.0, np.inf], [np.nan, np.nan], "-200.0 dB over its change"),
        ([1.0, np.inf], [1.0, -np.inf], "-200.0 dB over its change"),
        ([1.0, -np.inf], [0.0, -np.inf], "0.0 dB over its change"),
        ([1.0, -1.0], [0.0, -1.9], "0.4 dB over its change"),
        ([1.0, -1.0], [1.1, -0.9], "20.0 dB over its change"),
    ],
)
def test_how_far_answers_agree_is_said_of_every_answer(before, after, found) -> None:
    told = _agreement(*(np.array(each, np.float32) for each in (before, after)))
    assert said(told) == found


def test_whole_numbers_agree_in_shares() -> None:
    assert said(_agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]))) == "75.00% as before"
