"""Rounding together: exact where it can be, and what a layer answers errs far less than by the nearest."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from slimrank import compress_graph
from slimrank.graphs.products import NIBBLES
from slimrank.graphs.rounding import range_scales, rounded_together

IN, OUT, WIDE, ROWS = 48, 40, 400, 2000


def inputs(seed: int = 0) -> np.ndarray:
    """Inputs that go together, as those of hidden layers do."""
    draw = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(12, IN))
    return np.maximum(draw.normal(size=(ROWS, 12)) @ mixing + draw.normal(size=(ROWS, IN)) * 0.3, 0).astype(np.float32)


def products(values: np.ndarray) -> np.ndarray:
    return values.T.astype(np.float64) @ values / len(values)


def weight(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(IN, OUT)).astype(np.float32) / 7


def test_answers_err_far_less_than_by_the_nearest() -> None:
    values, matrix = inputs(), weight()
    scale = np.abs(matrix).max(axis=0) / 7
    nearest = np.clip(np.round(matrix / scale), -7, 7) * scale
    found = rounded_together(matrix, range_scales(matrix, NIBBLES, products(values)), NIBBLES, products(values))
    assert found.dtype == np.int8
    assert np.abs(found).max() <= 7
    other = inputs(seed=5)
    together = found * range_scales(matrix, NIBBLES, products(values))
    errors = [float(np.square(other @ (each - matrix)).mean()) for each in (nearest, together)]
    assert errors[1] < errors[0] / 3


def test_weights_that_lie_on_the_grid_stay() -> None:
    draw = np.random.default_rng(0)
    codes = draw.integers(-7, 8, (IN, OUT))
    codes[0] = 7
    scale = draw.uniform(0.5, 2, OUT).astype(np.float32)
    found = rounded_together((codes * scale).astype(np.float32), scale, NIBBLES, products(inputs()))
    np.testing.assert_array_equal(found, codes)


def test_weights_that_are_zero_stay_zero() -> None:
    matrix = weight()
    matrix[np.random.default_rng(2).random(matrix.shape) < 0.5] = 0
    scale = range_scales(matrix, NIBBLES, products(inputs()))
    assert not rounded_together(matrix, scale, NIBBLES, products(inputs()))[matrix == 0].any()


def test_inputs_without_a_word_and_outputs_without_weights_are_no_fault() -> None:
    matrix = weight()
    matrix[:, 3] = 0
    for nothing in (np.zeros((IN, IN)), np.diag(np.r_[np.zeros(IN - 1), 1.0])):
        scale = range_scales(matrix, NIBBLES, nothing)
        assert np.isfinite(scale).all()
        assert (scale > 0).all()
        assert not rounded_together(matrix, scale, NIBBLES, nothing)[:, 3].any()


def test_a_range_that_cuts_off_one_large_weight_errs_less() -> None:
    """Nine weights of about 1 and one of 1.6 that hardly counts: the range ends near the nine."""
    matrix = np.r_[np.linspace(0.8, 1.0, 9), 1.6].astype(np.float32)[:, None]
    counts = np.diag(np.r_[np.ones(9), 1e-6])
    (scale,) = range_scales(matrix, NIBBLES, counts)
    assert scale < 1.3 / 7


@pytest.fixture
def ranker(tmp_path):
    """Two dense layers."""
    nodes = [
        helper.make_node("Gemm", ["x", "first", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "second"], ["y"]),
    ]
    draw = np.random.default_rng(3)
    held = {
        "first": weight(),
        "b": draw.normal(size=OUT).astype(np.float32),
        "second": draw.normal(size=(OUT, WIDE)).astype(np.float32),
    }
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in held.items()]
    ends = [helper.make_tensor_value_info(name, 1, ["N", width]) for name, width in (("x", IN), ("y", WIDE))]
    graph = helper.make_graph(nodes, "ranker", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


def test_four_bits_take_half_of_eight_and_answer_alike(ranker, run, over_noise, tmp_path) -> None:
    feeds, sizes = {"x": inputs()}, {}
    for bits in (8, 4):
        step = {"name": "quantize-dense", "bits": bits}
        done = compress_graph(ranker, tmp_path / f"{bits}.onnx", [step], feeds)
        (record,) = done["steps"]
        assert len(record["touched"]) == 2
        sizes[bits] = record["bytes_after"]
        found = run(tmp_path / f"{bits}.onnx", {"x": inputs(seed=7)})
        assert over_noise(run(ranker, {"x": inputs(seed=7)}), found) > (22 if bits == 4 else 33)
    weights = IN * OUT + OUT * WIDE
    assert sizes[8] - sizes[4] == weights // 2
    files = {bits: (tmp_path / f"{bits}.onnx").stat().st_size for bits in (4, 8)}
    assert files[8] - files[4] > 0.3 * weights  # the nodes that unpack take some hundred bytes


def test_a_layer_that_four_bits_would_spoil_has_eight(ranker, tmp_path) -> None:
    """Inputs that have nothing to do with each other, and weights of very different sizes in each output."""
    proto = onnx.load(ranker)
    first = next(each for each in proto.graph.initializer if each.name == "first")
    draw = np.random.default_rng(0)
    spoiled = draw.standard_t(1.5, size=(IN, OUT)).astype(np.float32)
    first.CopyFrom(onnx.numpy_helper.from_array(spoiled, "first"))
    onnx.save(proto, ranker)
    feeds = {"x": draw.normal(size=(ROWS, IN)).astype(np.float32)}
    done = compress_graph(ranker, tmp_path / "out.onnx", [{"name": "quantize-dense", "bits": 4}], feeds)
    told = [each for each in done["steps"][0]["touched"] if each.startswith("first")]
    assert len(told) == 1
    assert ", 8 bits: 4 would leave 1" in told[0]
