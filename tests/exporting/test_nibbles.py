"""Weights of 4 bits: two a byte in the file, the same integers in the runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from slimrank.api import compress, export
from slimrank.artifact import open_artifact
from slimrank.exporting.nibbles import LEAST, store_nibbles
from slimrank.runtime import load_graph


def graph_of(arrays: dict[str, np.ndarray]) -> ir.Model:
    """Every array as a constant, cast to floats and given out."""
    values = {
        name: ir.Value(
            name=name,
            const_value=ir.tensor(array, name=name),
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        )
        for name, array in arrays.items()
    }
    nodes = [ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}) for value in values.values()]
    for node, (name, array) in zip(nodes, arrays.items(), strict=True):
        node.outputs[0].name = f"{name}_out"
        node.outputs[0].shape, node.outputs[0].type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [],
        [node.outputs[0] for node in nodes],
        nodes=nodes,
        initializers=list(values.values()),
        opset_imports={"": 21},
        name="graph",
    )
    return ir.Model(graph, ir_version=10)


def draw(shape: tuple[int, int], low: int = -8, high: int = 8) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(low, high, shape).astype(np.int8)


@pytest.mark.parametrize(
    "shapes", [[(32, 32)], [(31, 33), (3, 5)], [(33, 31), (1, 1), (7, 9)], [(64, 64), (64, 63)]], ids=str
)
def test_what_comes_out_is_what_went_in(shapes: list[tuple[int, int]], tmp_path: Path) -> None:
    arrays = {f"m{place}": draw(shape) for place, shape in enumerate(shapes)}
    model = graph_of(arrays)
    assert store_nibbles(model.graph) == len(shapes)
    numbers = sum(array.size for array in arrays.values())
    packed = model.graph.initializers["nibbles"].const_value
    assert packed is not None
    assert packed.nbytes == (numbers + 1) // 2
    assert not set(arrays) & set(model.graph.initializers)
    ir.save(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for array, found in zip(arrays.values(), session.run(None, {}), strict=True):
        np.testing.assert_array_equal(found, array)


def test_other_matrices_stay_as_they_are() -> None:
    zeros = np.zeros((64, 64), np.int8)
    zeros[0, :9] = 7  # sparse takes less
    arrays = {
        "wide": draw((64, 64), -8, 9),
        "low": draw((64, 64), -9, 8),
        "bytes": draw((64, 64)).astype(np.uint8),
        "floats": draw((64, 64)).astype(np.float32),
        "biases": draw((64, 64)).reshape(-1),
        "zeros": zeros,
    }
    model = graph_of(arrays)
    assert store_nibbles(model.graph) == 0
    assert set(model.graph.initializers) == set(arrays)
    few = graph_of({"few": draw((LEAST // 32 - 1, 32))})
    assert store_nibbles(few.graph) == 0


def test_a_layer_of_4_bits_takes_half_the_bytes_and_runs_on_integers(tmp_path: Path) -> None:
    """`export` refuses a layer that does not run on integers."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    rows, sizes, found = torch.randn(256, 48), {}, {}
    for bits in (8, 4):
        small, (record,) = compress(model, [{"name": "quantize-dense", "bits": bits}], [rows])
        export(small, rows, tmp_path / str(bits))
        found[bits] = load_graph(tmp_path / str(bits)).run({"input": rows.numpy()})["output"]
        np.testing.assert_allclose(found[bits], small(rows).detach(), atol=0.02)
        tensors = open_artifact(tmp_path / str(bits)).manifest["graph"]["tensors"]
        sizes[bits] = record["bytes_after"], sum(each["bytes"] for each in tensors)
    weights = 48 * 64 + 64 * 8
    assert sizes[8][0] - sizes[4][0] == weights // 2
    assert weights // 2 - 100 < sizes[8][1] - sizes[4][1] <= weights // 2  # less what unpacks them
    assert not np.array_equal(found[8], found[4])
