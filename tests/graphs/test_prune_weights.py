"""Small weights at 0, stored sparse, with bytes from arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from slimrank import InputError, compress_graph
from slimrank.exporting.optimized import constant_faults, left_in_floats, optimized_graph
from slimrank.exporting.sparse import sparse_bytes

IN, OUT = 64, 128


@pytest.fixture
def two_layers(layer):
    draw = np.random.default_rng(0)
    held = {"w": draw.normal(size=(IN, OUT)).astype(np.float32), "v": draw.normal(size=(OUT, 4)).astype(np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    return lambda opset=17: (layer(nodes, held, ["N", IN], opset), held)


def feeds(rows: int = 50) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(size=(rows, IN)).astype(np.float32)}


@pytest.mark.parametrize("opset", [13, 17, 21, 23])
def test_the_smallest_weights_of_all_layers_become_zero(opset, two_layers, run, tmp_path) -> None:
    path, held = two_layers(opset)
    told = compress_graph(path, tmp_path / "out.onnx", [{"name": "prune-weights", "sparsity": 0.9}])
    sizes = np.concatenate([np.abs(each).ravel() for each in held.values()])
    tau = np.sort(sizes)[int(0.9 * len(sizes)) - 1]
    w, v = (np.where(np.abs(each) <= tau, 0, each) for each in held.values())
    np.testing.assert_allclose(run(tmp_path / "out.onnx", feeds()), feeds()["x"] @ w @ v, rtol=1e-4, atol=1e-4)
    record = told["steps"][0]
    assert record["facts"]["sparsity"] == pytest.approx(0.9, abs=1e-3)
    assert record["touched"][0] == f"w: {np.count_nonzero(w == 0):,} of {w.size:,} weights to 0"
    assert record["bytes_after"] == sum(min(sparse_bytes(each.astype(np.float32)), each.nbytes) for each in (w, v))
    nonzero = int(np.count_nonzero(w) + np.count_nonzero(v))
    stored = 4 * nonzero + (w.size + v.size) // 8
    assert stored < (tmp_path / "out.onnx").stat().st_size < stored + 2500
    assert constant_faults(optimized_graph(tmp_path / "out.onnx")) == []


@pytest.mark.parametrize("opset", [13, 20])
def test_integers_of_pruned_layers_are_stored_sparse(opset, two_layers, run, over_noise, tmp_path) -> None:
    path, _ = two_layers(opset)
    steps = [{"name": "prune-weights", "sparsity": 0.9}, "quantize-dense"]
    compress_graph(path, tmp_path / "pruned.onnx", steps[:1])
    told = compress_graph(path, tmp_path / "out.onnx", steps, feeds(400))
    assert told["bytes_after"] < IN * OUT * (0.1 + 1 / 8) + OUT * 4 + 3500
    optimized = optimized_graph(tmp_path / "out.onnx")
    assert left_in_floats(optimized) == set()
    assert constant_faults(optimized) == []
    assert over_noise(run(tmp_path / "pruned.onnx", feeds()), run(tmp_path / "out.onnx", feeds())) > 30


def test_a_threshold_that_reaches_nothing_is_told(two_layers, tmp_path) -> None:
    path, _ = two_layers()
    told = compress_graph(path, tmp_path / "out.onnx", [{"name": "prune-weights", "tau": 0.0}])
    reason = "no weight other than 0 is at most 0 in size"
    assert told["steps"][0]["skipped"] == [{"name": name, "reason": reason} for name in "wv"]
    assert told["percent_touched"] == 0


def test_one_way_of_saying_how_many(two_layers, tmp_path) -> None:
    path, _ = two_layers()
    with pytest.raises(InputError, match="give exactly one of tau and sparsity"):
        compress_graph(path, tmp_path / "out.onnx", ["prune-weights"])
    with pytest.raises(InputError, match="unknown key 'max_auc_drop'"):
        compress_graph(path, tmp_path / "out.onnx", [{"name": "prune-weights", "max_auc_drop": 0.1}])
