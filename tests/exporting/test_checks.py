"""Each fault that an exported graph can have is found, and all at once."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import parser

from slimrank.exporting.checks import (
    GraphError,
    check_graph,
    constant_faults,
    gather_faults,
    memory_faults,
    optimized_graph,
    standard_faults,
)

HEADER = '<ir_version: {ir}, opset_import: ["" : {opset}]>'


def model(body: str, ir: int = 10, opset: int = 21) -> onnx.ModelProto:
    return parser.parse_model(HEADER.format(ir=ir, opset=opset) + body)


TABLE_FIRST = """
g (int32[N, 2] ids) => (float[N, 2, 4] out)
<uint8[3, 4] table = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float scale = {0.5}> {
  rows = DequantizeLinear(table, scale)
  out = Gather(rows, ids)
}"""
GATHER_FIRST = """
g (int32[N, 2] ids) => (float[N, 2, 4] out)
<uint8[3, 4] table = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float scale = {0.5}> {
  codes = Gather(table, ids)
  out = DequantizeLinear(codes, scale)
}"""
LAYER = """
g (float[N, 2] x) => (float[N, 3] y)
<float s = {0.1}, uint8 z = {0}, int8[3, 2] w = {1, 2, 3, 4, 5, 6}, float[3] t = {1, 1, 1}, BIAS> {
  q = QuantizeLinear(x, s, z)
  d = DequantizeLinear(q, s, z)
  v = DequantizeLinear <axis = 0> (w, t, wz)
  b = DEQUANTIZED
  y = Gemm <transB = 1> (d, v, b)
}"""
INTEGER_BIAS = "int8[3] wz = {0, 0, 0}, int32[3] bias = {1, 2, 3}, float[3] u = {0.1, 0.1, 0.1}"


def layer(bias: str = INTEGER_BIAS, dequantized: str = "DequantizeLinear <axis = 0> (bias, u)") -> onnx.ModelProto:
    return model(LAYER.replace("BIAS", bias).replace("DEQUANTIZED", dequantized))


def saved(graph: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(graph, folder / "model.onnx")
    return folder / "model.onnx"


def test_a_table_that_is_gathered_first_passes(tmp_path: Path) -> None:
    assert check_graph(saved(model(GATHER_FIRST), tmp_path)) == {"Gather": 1, "DequantizeLinear": 1}


def test_a_table_that_is_dequantised_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="DequantizeLinear works on a whole table before Gather"):
        check_graph(saved(model(TABLE_FIRST), tmp_path))


def test_a_fused_layer_passes(tmp_path: Path) -> None:
    assert check_graph(saved(layer(), tmp_path))["QGemm"] == 1


def test_a_layer_that_falls_back_to_float_is_refused(tmp_path: Path) -> None:
    graph = layer("int8[3] wz = {0, 0, 0}, float[3] bias = {1, 2, 3}", "Identity(bias)")
    with pytest.raises(GraphError, match="1 layers have quantised weights, 0 run on integers and 1 dequantise"):
        check_graph(saved(graph, tmp_path))


def test_work_on_constants_in_each_run_is_found() -> None:
    assert constant_faults(model(GATHER_FIRST)) == []
    assert constant_faults(model(TABLE_FIRST)) == ["1 x DequantizeLinear works on constants in each run"]


def test_unpacking_before_gather_is_allowed_and_arithmetic_is_not() -> None:
    body = """
g (int32[N, 2] ids) => (uint8[N, 2, 8] out)
<uint8[2, 4] table = {1, 2, 3, 4, 5, 6, 7, 8}, uint8 four = {4}, uint8 mask = {240}> {
  low = BitShift <direction = "LEFT"> (table, four)
  high = BitwiseAnd(table, mask)
  whole = Concat <axis = -1> (low, high)
  out = Gather(whole, ids)
}"""
    assert gather_faults(model(body)) == []
    assert gather_faults(model(body.replace("BitwiseAnd", "Mul"))) == ["Mul works on a whole table before Gather"]


FOLDED = """
g (int32[N, 2] ids) => (float[N, 2, 4] out)
<float[3, 4] table = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, float two = {2}> {
  rows = Mul(table, two)
  out = Gather(rows, ids)
}"""


def test_work_that_is_done_at_load_is_allowed_within_a_bound_of_memory(tmp_path: Path) -> None:
    graph = model(FOLDED)
    assert check_graph(saved(graph, tmp_path)) == {"Gather": 1}
    optimized = optimized_graph(tmp_path / "model.onnx")
    assert memory_faults(graph, optimized, limit=48) == []
    tiled = FOLDED.replace("Mul(table, two)", "Tile(table, many)").replace(
        "float two = {2}", "int64[2] many = {100, 1}"
    )
    optimized = optimized_graph(saved(model(tiled), tmp_path))
    added = 300 * 4 * 4 - (3 * 4 * 4 + 2 * 8)
    assert memory_faults(model(tiled), optimized, limit=added) == []
    fault = f"loading adds {added:,} bytes to those of the file, at most {added - 1:,} may be"
    assert memory_faults(model(tiled), optimized, limit=added - 1) == [fault]


def test_all_faults_of_versions_and_operators_at_once() -> None:
    graph = model("g (float[N] x) => (float[N] y) { z = com.microsoft.Gelu(x)\n y = Sinh(z) }", ir=9, opset=20)
    assert standard_faults(graph) == [
        "IR version is 9, must be 10",
        "operator Sinh is not allowed",
        "operator com.microsoft::Gelu is not allowed",
        "opset is {'': 20}, must be 21 of the standard domain alone",
    ]


def test_the_optimised_graph_is_that_of_the_runtime(tmp_path: Path) -> None:
    operators = [node.op_type for node in optimized_graph(saved(layer(), tmp_path)).graph.node]
    assert operators == ["QuantizeLinear", "QGemm"]
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
