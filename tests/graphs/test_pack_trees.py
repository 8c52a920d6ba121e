"""Ensembles of trees as the converters of three libraries write them: the same answers in fewer bytes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from lightgbm import LGBMClassifier
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from xgboost import XGBClassifier

from slimrank.graphs.compress import compress_graph
from slimrank.graphs.trees import Trees

WIDTH = 6


def rows(count: int = 500, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 50, (count, WIDTH)).astype(np.float32)


def clicks(x: np.ndarray) -> np.ndarray:
    return ((x[:, 0] * 7 + x[:, 1] * 3) % 50 > 25).astype(np.int64)


def converted(model: Any, path: Path) -> Path:
    """The model as its own converter writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnxmltools import convert_lightgbm, convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType
        from skl2onnx import to_onnx

        types = [("X", FloatTensorType([None, WIDTH]))]
        if isinstance(model, LGBMClassifier):
            proto = convert_lightgbm(model, initial_types=types, zipmap=False)
        elif isinstance(model, XGBClassifier):
            proto = convert_xgboost(model, initial_types=types, target_opset=15)
        else:
            options = {"zipmap": False} if hasattr(model, "classes_") else None
            proto = to_onnx(model, rows(2), options=options)
    onnx.save(proto, path)
    return path


def answers(path: Path, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {session.get_inputs()[0].name: x})
    return found


FITTED = {
    "lightgbm": lambda x: LGBMClassifier(n_estimators=20, num_leaves=15, verbose=-1, n_jobs=1).fit(x, clicks(x)),
    "lightgbm of three": lambda x: LGBMClassifier(n_estimators=8, verbose=-1, n_jobs=1).fit(x, x[:, 0] % 3),
    "xgboost": lambda x: XGBClassifier(n_estimators=20, n_jobs=1).fit(x, clicks(x)),
    "xgboost of three": lambda x: XGBClassifier(n_estimators=8, n_jobs=1).fit(x, (x[:, 0] % 3).astype(np.int64)),
    "forest": lambda x: RandomForestClassifier(10, max_depth=6, random_state=0).fit(x, clicks(x)),
    "forest of numbers": lambda x: RandomForestRegressor(10, max_depth=6, random_state=0).fit(x, x[:, 0] * x[:, 1]),
}


@pytest.mark.parametrize("name", FITTED)
def test_an_ensemble_says_the_same_in_fewer_bytes(name, tmp_path) -> None:
    x = rows()
    path, out = converted(FITTED[name](x), tmp_path / "trees.onnx"), tmp_path / "small.onnx"
    done = compress_graph(path, out, ["pack-trees"])
    assert "TreeEnsemble" in {node.op_type for node in onnx.load(out).graph.node}, done["steps"][0]["skipped"]
    asked = np.concatenate([x, rows(500, seed=1) + 0.5])
    for before, after in zip(*(answers(each, asked) for each in (path, out)), strict=True):
        assert before.shape == after.shape
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    assert done["bytes_before"] > 2 * done["bytes_after"]
    assert done["percent_touched"] > 99
    assert all("SlimClassifier" in why for why in done["left"].values())


def test_leaves_of_several_classes_are_not_packed_and_lose_what_is_not_read(tmp_path) -> None:
    x = rows()
    forest = RandomForestClassifier(5, max_depth=5, random_state=0).fit(x, (x[:, 0] % 3).astype(np.int64))
    path, out = converted(forest, tmp_path / "trees.onnx"), tmp_path / "small.onnx"
    (record,) = (done := compress_graph(path, out, ["pack-trees"]))["steps"]
    assert "leaves of several classes" in record["skipped"][0]["reason"]
    for before, after in zip(*(answers(each, x) for each in (path, out)), strict=True):
        np.testing.assert_array_equal(after, before)
    (node,) = [each for each in onnx.load(out).graph.node if each.op_type == "TreeEnsembleClassifier"]
    assert "nodes_hitrates" not in {each.name for each in node.attribute}
    assert done["bytes_after"] < done["bytes_before"]


def ensemble(tmp_path: Path, **lists: Any) -> Path:
    """A regression of two trees: x0 <= 1 ? 10 : (x1 <= 2 ? 20 : 10), and a leaf of 1; NaN goes left in the first."""
    held = {
        "nodes_treeids": [0, 0, 0, 0, 0, 1],
        "nodes_nodeids": [0, 1, 2, 3, 4, 0],
        "nodes_featureids": [0, 0, 1, 0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"],
        "nodes_values": [1.0, 0.0, 2.0, 0.0, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 3, 0, 0, 0],
        "nodes_falsenodeids": [2, 0, 4, 0, 0, 0],
        "nodes_missing_value_tracks_true": [1, 0, 0, 0, 0, 0],
        "target_treeids": [0, 0, 0, 1],
        "target_nodeids": [1, 3, 4, 0],
        "target_ids": [0, 0, 0, 0],
        "target_weights": [10.0, 20.0, 10.0, 1.0],
        "n_targets": 1,
        **lists,
    }
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", name="trees", **held)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])])
    opsets = [helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "trees.onnx")
    return tmp_path / "trees.onnx"


def test_by_hand(tmp_path) -> None:
    path, out = ensemble(tmp_path), tmp_path / "small.onnx"
    compress_graph(path, out, ["pack-trees"])
    x = np.array([[1, 9], [1.5, 2], [1.5, 2.5], [np.nan, 9], [5, np.nan]], np.float32)
    assert answers(out, x)[0].ravel().tolist() == [11, 21, 11, 11, 11]
    model = onnx.load(out)
    (node,) = model.graph.node
    held = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    assert list(held["leaf_targetids"]) == [0, 0, 0]
    assert {each.domain: each.version for each in model.opset_import} == {"ai.onnx.ml": 5, "": 17}


@pytest.mark.parametrize(
    ("lists", "why"),
    [
        ({"nodes_truenodeids": [7, 0, 3, 0, 0, 0]}, "names nodes that it does not have"),
        ({"nodes_nodeids": [0, 1, 2, 3, 3, 0]}, "has two nodes of one place"),
        ({"target_nodeids": [1, 3, 3, 0]}, "leaves of several classes or targets"),
        ({"post_transform": "PROBIT"}, "a function that is no standard operator"),
        ({"base_values": [1.0, 2.0]}, "has 2 base values for 1 sums"),
        ({"nodes_modes": ["BRANCH_MEMBER", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF"]}, "compares by BRANCH_MEMBER"),
    ],
)
def test_what_cannot_be_packed_is_named_with_the_reason(lists, why, tmp_path) -> None:
    path, out = ensemble(tmp_path, **lists), tmp_path / "small.onnx"
    (record,) = compress_graph(path, out, ["pack-trees"])["steps"]
    assert why in record["skipped"][0]["reason"]
    assert [node.op_type for node in onnx.load(out).graph.node] == ["TreeEnsembleRegressor"]


def test_one_that_would_answer_otherwise_stays(tmp_path, monkeypatch) -> None:
    packed = Trees.node

    def wrong(self: Trees, *arguments: Any) -> Any:
        self.splits[0] += 1
        return packed(self, *arguments)

    monkeypatch.setattr(Trees, "node", wrong)
    (record,) = compress_graph(ensemble(tmp_path), tmp_path / "small.onnx", ["pack-trees"])["steps"]
    assert "a packed one would answer otherwise" in record["skipped"][0]["reason"]


def test_a_graph_without_trees_says_so(lookup, tmp_path) -> None:
    path = lookup(np.ones((4, 4), np.float32))
    (record,) = compress_graph(path, tmp_path / "small.onnx", ["pack-trees"])["steps"]
    assert record["skipped"] == [{"name": "trees", "reason": "the graph has no ensemble of trees"}]
