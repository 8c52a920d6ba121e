"""The deployments for LiteRT and ExecuTorch, converted and asked; tests/contract has what they answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from slimrank import runtime
from slimrank.config import InputError, as_config
from slimrank.deploying.asking import ask, deployed_graph, tensor_graph
from slimrank.deploying.deploy import deploy
from slimrank.deploying.executorch import MODEL as EXECUTORCH_MODEL
from slimrank.deploying.executorch import ExecuTorch
from slimrank.deploying.litert import MODEL as LITERT_MODEL
from slimrank.deploying.litert import LiteRT
from slimrank.deploying.parity import parity

Target = LiteRT | ExecuTorch
TARGETS: dict[str, type[Target]] = {"litert": LiteRT, "executorch": ExecuTorch}
MODELS = {"litert": LITERT_MODEL, "executorch": EXECUTORCH_MODEL}
MODULES = {"litert": "litert_torch", "executorch": "executorch"}  # what an environment without the tool has not
each_tool = pytest.mark.parametrize("tool", TARGETS)


@pytest.fixture(scope="session", params=TARGETS)
def target(request: pytest.FixtureRequest, interpreter: Callable[[str], Path]) -> Target:
    return TARGETS[request.param](rows=16, python=interpreter(request.param))


def large_table(model: onnx.ModelProto) -> None:
    """Bytes in the place of the linear graph's weights: 20,000 rows of 4, of which the first have ids."""
    graph = model.graph
    graph.initializer.remove(next(each for each in graph.initializer if each.name == "weights"))
    table = np.random.default_rng(0).integers(0, 256, (20_000, 4)).astype(np.uint8)
    graph.initializer.append(numpy_helper.from_array(table, "weights"))
    gather = next(place for place, node in enumerate(graph.node) if node.op_type == "Gather")
    graph.node[gather].output[0] = "bytes"
    graph.node.insert(gather + 1, onnx.helper.make_node("Cast", ["bytes"], ["looked_up"], to=onnx.TensorProto.FLOAT))


def test_bytes_of_tables_stay_bytes(target: Target, make_linear: Any, tmp_path: Path) -> None:
    artifact = make_linear(large_table)
    folder = deploy(artifact.path, tmp_path / "out", target)
    assert 80_000 <= (folder / MODELS[target.name]).stat().st_size < 120_000
    checks = json.loads((folder / "checks.json").read_text())
    assert 80_000 <= checks["bytes"]["constants"] < 80_100
    assert str(tmp_path) not in (folder / "slimrank.json").read_text().replace(str(artifact.path), "")
    opened = runtime.load(artifact.path)
    draw = np.random.default_rng(0)
    for rows in (1, 16, 37):  # of calls of 16 at most
        ids = np.stack([draw.integers(0, limit, rows) for limit in opened.checks.limits], axis=1).astype(np.int32)
        feeds = {"ids": ids, "numbers": draw.normal(size=(rows, 1)).astype(np.float32)}
        found = ask(deployed_graph(opened, target, folder), feeds)["logit"]
        np.testing.assert_allclose(found, ask(tensor_graph(opened), feeds)["logit"], rtol=1e-6)


def test_a_graph_of_tensors_is_asked_at_once(target: Target, asked_by_tensors: Path, tmp_path: Path) -> None:
    folder = deploy(asked_by_tensors, tmp_path, target)
    opened = runtime.load_graph(asked_by_tensors)
    deployed = deployed_graph(opened, target, folder)
    feeds = {"user": np.array([3, 0, 19, 7]), "numbers": np.ones((4, 2), np.float32)}
    found, wanted = ask(deployed, feeds), ask(opened, feeds)
    assert set(found) == {"score", "pair"}
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="is 17, the deployment takes"):
        ask(deployed, {"user": np.zeros(17, np.int64), "numbers": np.zeros((17, 2), np.float32)})


def test_a_finder_of_scores_agrees(target: Target, finder: Any) -> None:
    (found,) = parity(finder("scores").path, [target], requests=8)
    assert (found.refused, found.agrees, found.same_top) == ("", True, 1.0)


def test_an_operator_that_is_missing_is_named(target: Target, finder: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{target.name}: missing there: operator .*GRU"):
        deploy(finder("vectors").path, tmp_path / "out", target)
    assert not (tmp_path / "out" / "vectors").exists()


@each_tool
def test_an_environment_without_it_is_told_how_to_make_one(tool: str, linear: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        deploy(linear.path, tmp_path / "out", tool)
    words = str(refused.value)
    assert f"{tool}: this environment has no" in words
    assert MODULES[tool] in words
    assert "sh bench/peers/edge.sh" in words
    assert f"{tool}:python=PATH" in words
    assert not (tmp_path / "out" / "linear").exists()


@each_tool
def test_a_record_does_not_say_where_it_was_made(tool: str) -> None:
    config = as_config("deployment target", {"name": tool, "rows": 8, "python": "/some/where/python"})
    assert (config.rows, config.python) == (8, Path("/some/where/python"))
    assert config.model_dump(mode="json") == {"name": tool, "rows": 8, "python": None}


@each_tool
def test_rows_of_a_call_are_at_least_one(tool: str) -> None:
    with pytest.raises(InputError, match="rows"):
        as_config("deployment target", {"name": tool, "rows": 0})


@each_tool
def test_a_converter_that_is_ended_from_outside_is_said_to_be(tool: str, linear: Any, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho a warning >&2\nkill -9 $$\n")
    python.chmod(0o755)
    with pytest.raises(InputError, match=f"{tool}: ended by signal 9"):
        deploy(linear.path, tmp_path / "out", TARGETS[tool](python=python))
    assert not (tmp_path / "out" / "linear").exists()
