"""The deployment for ONNX Runtime Mobile: its file, its lists of operators, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slimrank import runtime
from slimrank.config import InputError, as_config
from slimrank.deploying import ort
from slimrank.deploying.asking import ask, deployed_graph, tensor_graph
from slimrank.deploying.deploy import deploy
from slimrank.deploying.ort import MODEL, OPERATORS, TYPES, Ort, run_ort


def parsed(path: Path, *, with_types: bool) -> dict[str, dict[int, set[str]]]:
    """What ONNX Runtime's own parser of a reduced build reads: by domain and opset the operators."""
    from onnxruntime.tools.reduced_build_config_parser import parse_config

    operators, _ = parse_config(str(path), with_types)
    return {domain: {opset: set(names) for opset, names in sets.items()} for domain, sets in operators.items()}


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("level", ["basic", "extended"])
def test_it_answers_bit_by_bit(level: str, external: bool, make_linear: Any, tmp_path: Path) -> None:
    artifact = make_linear(external=external)
    folder = deploy(artifact.path, tmp_path / "out", {"name": "ort", "level": level})
    opened = runtime.load(artifact.path)
    draw = np.random.default_rng(0)
    ids = np.stack([draw.integers(0, limit, 50) for limit in opened.checks.limits], axis=1).astype(np.int32)
    feeds = {"ids": ids, "numbers": draw.normal(size=(50, 1)).astype(np.float32)}
    found = ask(deployed_graph(opened, Ort(), folder), feeds)["logit"]
    np.testing.assert_allclose(found, ask(tensor_graph(opened), feeds)["logit"], rtol=1e-6)
    assert sorted(each.name for each in folder.iterdir()) == sorted(
        [MODEL, OPERATORS, TYPES, "checks.json", "slimrank.json"]
    )


def test_a_reduced_build_knows_what_the_model_needs(linear: Any, tmp_path: Path) -> None:
    folder = deploy(linear.path, tmp_path / "out", "ort")
    used = {node.op_type for node in onnx.load(linear.path / "model.onnx").graph.node}
    for file, with_types in ((OPERATORS, False), (TYPES, True)):
        operators = parsed(folder / file, with_types=with_types)
        assert set().union(*operators["ai.onnx"].values()) == used
        assert str(tmp_path) not in (folder / file).read_text()
    assert '"float"' in (folder / TYPES).read_text()


def test_checks_say_what_an_app_has_to_refuse(linear: Any, tmp_path: Path) -> None:
    folder = deploy(linear.path, tmp_path / "out", "ort")
    checks = json.loads((folder / "checks.json").read_text())
    ids, numbers = checks["inputs"]
    sizes = linear.encoding.sizes
    counts = [sizes["user"], sizes["item"], *[sizes["history"]] * 3]
    assert [each["count"] for each in ids["ids"]] == counts
    assert ids["columns"] == ["user", "item", "history", "history", "history"]
    assert (ids["finite"], numbers["finite"], numbers["columns"]) == (False, True, ["price"])
    assert checks["bytes"]["model"] == (folder / MODEL).stat().st_size


def packed_graph(model: onnx.ModelProto) -> None:
    """The linear graph with a table of two numbers a byte, which are taken apart before the lookup, of all rows."""
    graph = model.graph
    graph.initializer.remove(next(each for each in graph.initializer if each.name == "weights"))
    table = np.random.default_rng(0).integers(0, 256, (5000, 2)).astype(np.uint8)
    constants = {"packed": table, "four": np.array(4, np.uint8), "low": np.array(15, np.uint8)}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    nodes = [
        helper.make_node("BitShift", ["packed", "four"], ["high_bits"], direction="RIGHT"),
        helper.make_node("BitwiseAnd", ["packed", "low"], ["low_bits"]),
        helper.make_node("Concat", ["high_bits", "low_bits"], ["bytes"], axis=-1),
        helper.make_node("Gather", ["bytes", "rows"], ["codes"]),
        helper.make_node("Cast", ["codes"], ["looked_up"], to=TensorProto.FLOAT),
    ]
    kept = [node for node in graph.node if node.op_type != "Gather"]
    graph.ClearField("node")
    graph.node.extend([kept[0], *nodes, *kept[1:]])


def test_packed_tables_stay_packed(make_linear: Any, tmp_path: Path) -> None:
    """10,000 bytes of table; unpacked they would be 20,000, and the graph around it takes less than 8,000."""
    artifact = make_linear(packed_graph)
    folder = deploy(artifact.path, tmp_path / "out", "ort")
    assert 10_000 < (folder / MODEL).stat().st_size < 18_000
    opened = runtime.load(artifact.path)
    feeds = {"ids": np.zeros((4, 5), np.int32), "numbers": np.ones((4, 1), np.float32)}
    found = run_ort(Ort(), folder, feeds)["logit"]
    assert np.array_equal(found, ask(tensor_graph(opened), feeds)["logit"])


def int4_graph(model: onnx.ModelProto) -> None:
    """The linear graph with a table of type INT4, which ONNX Runtime keeps in this format and then does not load."""
    graph = model.graph
    weights = next(each for each in graph.initializer if each.name == "weights")
    rows, dim = weights.dims
    graph.initializer.remove(weights)
    codes = np.zeros(rows * dim, np.int8)
    graph.initializer.append(helper.make_tensor("codes", TensorProto.INT4, [rows, dim], codes))
    graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "step"))
    graph.node.insert(0, helper.make_node("DequantizeLinear", ["codes", "step"], ["weights"]))


def test_what_does_not_load_in_this_format_is_refused(make_linear: Any, tmp_path: Path) -> None:
    artifact = make_linear(int4_graph)
    runtime.load(artifact.path)
    with pytest.raises(InputError, match="missing there: operator DequantizeLinear of 'codes', type INT4"):
        deploy(artifact.path, tmp_path / "out", "ort")
    assert not (tmp_path / "out" / "linear").exists()


def test_a_model_beyond_the_format_is_refused(linear: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "MOST_BYTES", 100)
    with pytest.raises(InputError, match="its format holds 100, in one file"):
        deploy(linear.path, tmp_path / "out", "ort")


def test_a_damaged_file_is_refused(linear: Any, tmp_path: Path) -> None:
    folder = deploy(linear.path, tmp_path / "out", "ort")
    (folder / MODEL).write_bytes(b"no model")
    with pytest.raises(InputError, match=r"model\.ort: ONNX Runtime cannot run it"):
        run_ort(Ort(), folder, {})


def test_an_unknown_level_names_those_that_there_are() -> None:
    with pytest.raises(InputError, match="'basic' or 'extended'"):
        as_config("deployment target", {"name": "ort", "level": "all"})
