"""Layers as convolutions: the same bytes as the layers they replace, and only where that is what runs fast."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from slimrank.exporting.checks import check_graph, optimized_graph
from slimrank.exporting.graph import shrink
from slimrank.exporting.pointwise import LARGEST, convolve


def layers(widths: tuple[int, ...], zero: int = 0, *, relu: bool = True, shared: bool = False) -> onnx.ModelProto:
    """Layers relu(W x + b) on bytes x [N, widths[0]], rounded to bytes; what they give is [N, widths[-1]]."""
    draw = np.random.default_rng(sum(widths))
    tensors = {"one": np.float32(1), "zero": np.uint8(zero), "none": np.uint8(0), "step": np.float32(40)}
    nodes, last = [], "x"
    for place, (width, out) in enumerate(pairwise(widths)):
        place_of = {name: f"{name}{0 if shared else place}" for name in "wtbz"}
        tensors[place_of["w"]] = draw.integers(-127, 128, (out, width)).astype(np.int8)
        tensors[place_of["t"]] = draw.uniform(0.01, 0.02, out).astype(np.float32)
        tensors[place_of["b"]] = draw.integers(-5000, 5000, out).astype(np.int32)
        tensors[place_of["z"]] = np.zeros(out, np.int8)
        nodes += [
            helper.make_node("DequantizeLinear", [last, "one", "none" if place else "zero"], [f"v{place}"]),
            helper.make_node("DequantizeLinear", [place_of[n] for n in "wtz"], [f"W{place}"], axis=0),
            helper.make_node("DequantizeLinear", [place_of[n] for n in "bt"], [f"B{place}"], axis=0),
            helper.make_node("Gemm", [f"v{place}", f"W{place}", f"B{place}"], [f"y{place}"], transB=1),
        ]
        last = f"y{place}"
        if relu:
            nodes.append(helper.make_node("Relu", [last], [f"r{place}"]))
            last = f"r{place}"
        nodes.append(helper.make_node("QuantizeLinear", [last, "step", "none"], [f"q{place}"]))
        last = f"q{place}"
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", widths[0]])],
        [helper.make_tensor_value_info(last, TensorProto.UINT8, ["N", widths[-1]])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(model: onnx.ModelProto, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": values})[0]
    return found


def rewritten(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    change = ir.from_proto(model)
    count = convolve(change.graph)
    shrink(change)
    return ir.to_proto(change), count


@pytest.mark.parametrize("widths", [(64, 32), (4, 8), (64, 64, 32), (20, 16, 24, 8), (128, 256)])
@pytest.mark.parametrize("zero", [0, 128])
def test_the_bytes_are_the_same(widths: tuple[int, ...], zero: int) -> None:
    before = layers(widths, zero)
    after, count = rewritten(before)
    assert count == len(widths) - 1
    for rows in (1, 2, 300):
        values = np.random.default_rng(rows).integers(0, 256, (rows, widths[0])).astype(np.uint8)
        expected = run(before, values)
        assert 0 < (expected > 0).mean() < 1
        np.testing.assert_array_equal(run(after, values), expected)


def test_the_runtime_keeps_no_transpose_and_rows_are_rows_at_both_ends_only(tmp_path) -> None:
    after, _ = rewritten(layers((64, 64, 32)))
    onnx.save(after, tmp_path / "model.onnx")
    assert check_graph(tmp_path / "model.onnx") == {"Reshape": 2, "QLinearConv": 2}
    nodes = [node.op_type for node in optimized_graph(tmp_path / "model.onnx").graph.node]
    assert nodes == ["Reshape", "QLinearConv", "QLinearConv", "Reshape"]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (layers((62, 64)), "inputs do not divide by 4"),
        (layers((64, 62)), "outputs do not divide by 8"),
        (layers((256, LARGEST // 256 + 8)), "too many weights"),
        (layers((64, 64), relu=False), "no Relu: nothing is rounded on one side alone"),
        (layers((64, 64, 64), shared=True), "two layers share a weight"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_layers_stay_as_they_are(model: onnx.ModelProto, why: str) -> None:
    after, count = rewritten(model)
    assert count == 0, why
    operators = [node.op_type for node in after.graph.node]
    assert operators.count("Gemm") == sum(node.op_type == "Gemm" for node in model.graph.node)
    assert "Conv" not in operators
