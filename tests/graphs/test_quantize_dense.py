"""Dense layers of graphs in integers: the arithmetic, the forms that the runtime keeps in integers, what is told."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper

from slimrank import compress_graph
from slimrank.exporting.optimized import INTEGER, gather_faults, left_in_floats, optimized_graph
from slimrank.graphs.products import Inputs, packed
from slimrank.graphs.quantize_dense import found_inputs

STEPS = ["quantize-dense"]
IN, OUT = 24, 32


def weights(out: int = OUT, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    matrix, bias = draw.normal(size=(IN, out)).astype(np.float32) * 0.2, draw.normal(size=out).astype(np.float32)
    return {"w": matrix, "b": bias, "turned": np.ascontiguousarray(matrix.T), "row": bias.reshape(1, -1)}


def rows(*axes: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(300, *axes, IN)).astype(np.float32)}


def node(operator: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


FORMS = {
    "Gemm": ([node("Gemm", "x turned b", "y", transB=1)], 2),
    "Gemm, not turned, as scikit-learn's": ([node("Gemm", "x w b", "y", alpha=0.5, beta=2.0)], 2),
    "Gemm without bias": ([node("Gemm", "x w", "y")], 2),
    "Gemm, then Relu": ([node("Gemm", "x w b", "h"), node("Relu", "h", "y")], 2),
    "Gemm, then Clip": ([node("Gemm", "x w b", "h"), node("Clip", "h zero six", "y")], 2),
    "MatMul": ([node("MatMul", "x w", "y")], 2),
    "MatMul, then Relu": ([node("MatMul", "x w", "h"), node("Relu", "h", "y")], 2),
    "MatMul, then Add": ([node("MatMul", "x w", "h"), node("Add", "h b", "y")], 2),
    "MatMul, then Add of a row": ([node("MatMul", "x w", "h"), node("Add", "row h", "y")], 2),
    "MatMul, Add, Relu": ([node("MatMul", "x w", "h"), node("Add", "h b", "s"), node("Relu", "s", "y")], 2),
    "MatMul of sequences": ([node("MatMul", "x w", "h"), node("Add", "h b", "y")], 3),
    "MatMul of sequences, then Relu": ([node("MatMul", "x w", "h"), node("Relu", "h", "y")], 3),
    "Transpose, then MatMul": ([node("Transpose", "turned", "w_"), node("MatMul", "x w_", "y")], 2),
    "Transpose, then Gemm": ([node("Transpose", "w", "w_"), node("Gemm", "x w_ b", "y", transB=1)], 2),
}


@pytest.mark.parametrize("opset", [13, 17, 21, 23])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_runs_in_integers(form, opset, layer, run, over_noise, tmp_path) -> None:
    nodes, rank = FORMS[form]
    held = weights() | {"zero": np.zeros((), np.float32), "six": np.full((), 6, np.float32)}
    read = {name for each in nodes for name in each.input}
    axes = ["N", IN] if rank == 2 else ["N", "T", IN]
    path = layer(nodes, {name: array for name, array in held.items() if name in read}, axes, opset)
    feeds = rows() if rank == 2 else rows(4)
    told = compress_graph(path, tmp_path / "out.onnx", STEPS, feeds)
    assert len(told["steps"][0]["touched"]) == 1
    assert told["opset"] == opset
    optimized = optimized_graph(tmp_path / "out.onnx")
    assert left_in_floats(optimized) == set()
    assert sum(each.op_type in INTEGER for each in optimized.graph.node) == 1
    noise = over_noise(run(path, feeds), run(tmp_path / "out.onnx", feeds))
    assert noise > 33
    assert told["agreement"]["y"]["decibels"] == pytest.approx(noise, abs=3)


def test_integers_from_arithmetic() -> None:
    """Columns of weights over their largest and 64; the bias in steps of weight and input."""
    weight = np.array([[0.64, -0.1], [-0.32, 0.2]], np.float32)
    found = packed(weight, np.array([0.05, 1.0], np.float32), Inputs(np.array(0.5, np.float32), 128))
    np.testing.assert_allclose(found.scale, [0.01, 0.2 / 64], rtol=1e-6)
    assert found.weight.tolist() == [[64, -32], [-32, 64]]
    assert found.bias is not None
    assert found.bias.tolist() == [10, 640]
    columns = packed(weight, None, Inputs(np.array([1.0, 4.0], np.float32), 0))
    assert columns.weight.tolist() == [[32, -8], [-64, 64]]  # folded: 0.64, -1.28 and -0.1, 0.8
    assert columns.step == 1


def test_a_bias_that_is_far_larger_than_its_weights_fits() -> None:
    found = packed(np.full((1, 1), 1e-9, np.float32), np.ones(1, np.float32), Inputs(np.array(1e-3, np.float32), 0))
    assert found.bias is not None
    assert found.bias[0] == 2**24


def test_the_largest_products_do_not_overflow(layer, run, tmp_path) -> None:
    """Weights and inputs at their bounds: with AVX2 and no VNNI two of the products are added in 16 bits."""
    path = layer([node("MatMul", "x w", "y")], {"w": np.ones((IN, OUT), np.float32)}, ["N", IN])
    feeds = {"x": np.full((20, IN), 25.5, np.float32)}
    compress_graph(path, tmp_path / "out.onnx", STEPS, feeds)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", feeds), IN * 25.5, rtol=1e-5)


def test_columns_of_other_sizes_have_scales_of_their_own(layer, run, over_noise, tmp_path) -> None:
    """Embeddings of .01 beside numbers of 10, with weights that make up for it: one scale would lose the former."""
    feeds, held = rows(), weights()
    size = np.where(np.arange(IN) < 20, 0.01, 10).astype(np.float32)
    feeds["x"] *= size
    path = layer([node("Gemm", "x w b", "y")], {"w": held["w"] / size[:, None], "b": held["b"]}, ["N", IN])
    told = compress_graph(path, tmp_path / "out.onnx", STEPS, feeds)
    assert "a scale a column" in told["steps"][0]["touched"][0]
    assert over_noise(run(path, feeds), run(tmp_path / "out.onnx", feeds)) > 33
    _, decibels = found_inputs(feeds["x"][:, :20], held["w"][:20])
    assert decibels > 30


def test_scales_of_columns_count_as_bytes_and_are_none_where_they_do_not_pay(layer, tmp_path) -> None:
    """With one output a byte and a scale for each input are five bytes, and the float was four."""
    size = np.where(np.arange(IN) < 20, 0.01, 10).astype(np.float32)
    for out, sizes, said in (
        (32, size, f"{4 * IN * 32:,} bytes to {IN * 32 + 4 * 32 + 4 * IN:,}, a scale a column"),
        (1, np.ones(IN, np.float32), f"w: {4 * IN} bytes to {IN + 4}, "),
        (1, size, "dB with one scale for its inputs, no fewer bytes with one a column"),
    ):
        held = {"w": weights(out)["w"] / sizes[:, None]}
        path = layer([node("MatMul", "x w", "y")], held, ["N", IN])
        (record,) = compress_graph(path, tmp_path / "out.onnx", STEPS, {"x": rows()["x"] * sizes})["steps"]
        assert said in [*record["touched"], *(each["reason"] for each in record["skipped"])][0]


def test_inputs_that_are_never_negative_get_the_whole_byte() -> None:
    values = np.abs(rows()["x"])
    inputs, _ = found_inputs(values, weights()["w"])
    assert inputs.zero == 0
    assert float(inputs.step) > values.max() / 255 * 0.3


def test_one_quantiser_serves_all_layers_that_read_a_value(layer, run, over_noise, tmp_path) -> None:
    """And one weight that two layers multiply is stored once."""
    nodes = [
        node("MatMul", "x w", "q"),
        node("MatMul", "x v", "k"),
        node("Tanh", "x", "t"),
        node("MatMul", "t w", "o"),
        node("Sum", "q k o", "y"),
    ]
    path = layer(nodes, {"w": weights()["w"], "v": weights(seed=1)["w"]}, ["N", "T", IN])
    feeds = rows(3)
    told = compress_graph(path, tmp_path / "out.onnx", STEPS, feeds)
    made = onnx.load(tmp_path / "out.onnx").graph
    assert Counter(each.op_type for each in made.node)["QuantizeLinear"] == 2
    stored = [each for each in made.initializer if each.data_type == onnx.TensorProto.INT8 and len(each.dims) == 2]
    assert len(stored) == 2
    assert told["percent_touched"] == pytest.approx(100)
    assert over_noise(run(path, feeds), run(tmp_path / "out.onnx", feeds)) > 30


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([node("MatMul", "w x_turned", "y")], "is the first input of MatMul y"),
        ([node("Gemm", "x w extra", "y")], "adds what is no bias in Gemm y"),
        ([node("Gemm", "x_turned w", "y", transA=1)], "multiplies a transposed input in Gemm y"),
        ([node("Mul", "x w", "y")], "is the weight of no MatMul and no Gemm: Mul y reads it"),
    ],
)
def test_what_is_no_layer_is_left_alone_with_the_reason(nodes, said, layer, run, tmp_path) -> None:
    before = [node("Transpose", "x", "x_turned"), node("Relu", "x", "extra")]
    square = np.random.default_rng(0).normal(size=(IN, IN)).astype(np.float32)
    path, feeds = layer([*before, *nodes], {"w": square}, [IN, IN]), {"x": square * 2}
    told = compress_graph(path, tmp_path / "out.onnx", STEPS, feeds)
    assert {"name": "w", "reason": said} in told["steps"][0]["skipped"]
    np.testing.assert_array_equal(run(path, feeds), run(tmp_path / "out.onnx", feeds))


def test_layers_of_few_weights_stay(layer, tmp_path) -> None:
    path = layer([node("MatMul", "x w", "y")], {"w": np.ones((1, 8), np.float32)}, ["N", 1])
    told = compress_graph(path, tmp_path / "out.onnx", STEPS, {"x": np.ones((4, 1), np.float32)})
    assert told["steps"][0]["skipped"][0]["reason"] == "would take 40 bytes, and takes 32 as it is"


def test_without_rows_layers_stay_in_floats_and_it_is_told(layer, run, tmp_path) -> None:
    path = layer([node("MatMul", "x w", "y")], {"w": weights()["w"]}, ["N", IN])
    told = compress_graph(path, tmp_path / "out.onnx", STEPS)
    assert told["steps"][0]["skipped"] == [{"name": "layers", "reason": "no rows were given to calibrate them on"}]
    assert told["agreement"] is None
    np.testing.assert_array_equal(run(path, rows()), run(tmp_path / "out.onnx", rows()))


def test_a_layer_that_the_runtime_would_turn_back_is_left_in_floats(layer, run, tmp_path) -> None:
    """A Clip without bounds, which no Max or Min takes the place of, keeps the product before it from integers."""
    nodes = [node("MatMul", "x w", "h"), node("Clip", "h", "c"), node("Tanh", "c", "s"), node("MatMul", "s v", "y")]
    held = {"w": np.random.default_rng(0).normal(size=(IN, IN)).astype(np.float32), "v": weights()["w"]}
    path, feeds = layer(nodes, held, ["N", IN]), rows()
    told = compress_graph(path, tmp_path / "out.onnx", STEPS, feeds)
    reason = "ONNX Runtime would multiply it in floats, and dequantise it in each run"
    assert told["steps"][0]["skipped"] == [{"name": "w", "reason": reason}]
    assert [line.split(":")[0] for line in told["steps"][0]["touched"]] == ["v"]
    optimized = optimized_graph(tmp_path / "out.onnx")
    assert left_in_floats(optimized) == set()
    assert sum(each.op_type in INTEGER for each in optimized.graph.node) == 1


@pytest.mark.long
@pytest.mark.parametrize("opset", [18, 23])
def test_a_ranker_keeps_its_scores(opset, clicks, arrays, run, over_noise, tmp_path) -> None:
    """All of its layers in integers, its tables of 8 bits looked up in bytes, any number of rows."""
    out = tmp_path / "out.onnx"
    told = compress_graph(clicks(opset), out, data=arrays())
    assert told["opset"] == opset
    optimized = optimized_graph(out)
    assert gather_faults(optimized) == []
    assert left_in_floats(optimized) == set()
    assert sum(each.op_type in INTEGER for each in optimized.graph.node) == 5
    for rows in (1, 7, 300):
        feeds = arrays(rows, seed=5)
        found = run(out, feeds)
        assert found.shape == (rows,)
        assert over_noise(run(clicks(opset), feeds), found) > 40
    assert told["percent_touched"] > 95


@pytest.mark.long
def test_a_transformer_s_projections(sequences, arrays, run, over_noise, tmp_path) -> None:
    out = tmp_path / "out.onnx"
    told = compress_graph(sequences, out, data={"history": arrays()["history"]})
    optimized = optimized_graph(out)
    assert left_in_floats(optimized) == set()
    assert sum(each.op_type in INTEGER for each in optimized.graph.node) == 5  # in, out, two of the block, items
    assert over_noise(run(sequences, arrays(40, seed=3)), run(out, arrays(40, seed=3))) > 25
    reasons = {each["name"]: each["reason"] for each in told["steps"][0]["skipped"]}
    assert reasons["places.weight"].endswith("and not by rows")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_layers_of_one_weight_are_told_apart(order, layer, run, tmp_path) -> None:
    """Both multiply w, by columns of other sizes; the runtime would compute the one before the bare Clip in floats."""
    square = np.random.default_rng(0).normal(size=(IN, IN)).astype(np.float32)
    sizes = np.random.default_rng(1).lognormal(0, 3, IN).astype(np.float32)
    sides = [
        [node("MatMul", "x w", "h"), node("Tanh", "h", "left")],
        [node("Mul", "x sizes", "z"), node("MatMul", "z w", "k"), node("Clip", "k", "c"), node("Tanh", "c", "right")],
    ]
    nodes = [each for place in order for each in sides[place]] + [node("Add", "left right", "y")]
    path, feeds = layer(nodes, {"w": square, "sizes": sizes}, ["N", IN]), rows()
    told = compress_graph(path, tmp_path / "out.onnx", STEPS, feeds)
    assert left_in_floats(optimized_graph(tmp_path / "out.onnx")) == set()
    reason = "ONNX Runtime would multiply it in floats, and dequantise it in each run"
    assert told["steps"][0]["touched"] == []
    assert [each["reason"] for each in told["steps"][0]["skipped"] if each["name"] == "w"] == [reason, reason]
