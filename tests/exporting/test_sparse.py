"""Stored sparse: bytes from arithmetic, the same tensors after load, integer layers stay integer."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from slimrank.exporting.checks import check_graph
from slimrank.exporting.constants import constant
from slimrank.exporting.graph import build_graph, write_graph
from slimrank.exporting.sparse import TENSOR_BYTES, sparse_bytes, store_sparse


def graph_of(arrays: list[np.ndarray]) -> ir.Model:
    """Outputs [1 + ...]: each array times an input of one element."""
    kind = ir.DataType.from_numpy(arrays[0].dtype)
    factor = ir.Value(name="factor", shape=ir.Shape([1]), type=ir.TensorType(kind))
    graph = ir.Graph([factor], [], nodes=[], opset_imports={"": 21}, name="g")
    for index, array in enumerate(arrays):
        node = ir.node("Mul", [factor, constant(graph, array, f"w{index}")])
        graph.append(node)
        node.outputs[0].name = f"out{index}"
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(kind), ir.Shape(array.shape)
        graph.outputs.append(node.outputs[0])
    return ir.Model(graph, ir_version=10)


def pruned(shape: tuple[int, ...], zeros: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(shape) * (generator.random(shape) >= zeros)).astype(np.float32)


@pytest.mark.parametrize("shapes", [[(64, 50)], [(63, 51)], [(40, 40), (7,), (33, 61)], [(9, 9, 29)]])
@pytest.mark.parametrize("zeros", [0.6, 0.95, 1.0])
def test_the_same_tensors_come_back(shapes: list[tuple[int, ...]], zeros: float) -> None:
    arrays = [pruned(shape, zeros, seed) for seed, shape in enumerate(shapes)]
    model = graph_of(arrays)
    before = len(ir.to_proto(model).SerializeToString())
    done = store_sparse(model.graph)
    proto = ir.to_proto(model).SerializeToString()
    assert done
    assert len(proto) < before
    found = onnxruntime.InferenceSession(proto).run(None, {"factor": np.ones(1, np.float32)})
    for array, tensor in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(tensor, array)


def test_bytes_are_mask_and_values_and_little_else() -> None:
    array = pruned((400, 400), 0.9, 0)
    model = graph_of([array])
    store_sparse(model.graph)
    kept = np.count_nonzero(array)
    assert sparse_bytes(array) == 400 * 400 // 8 + 4 * kept + TENSOR_BYTES
    assert len(ir.to_proto(model).SerializeToString()) < 400 * 400 // 8 + 4 * kept + 1300


@pytest.mark.parametrize("zeros", [0.0, 0.02])
def test_what_would_not_shrink_stays(zeros: float) -> None:
    model = graph_of([pruned((100, 100), zeros, 0)])
    before = ir.to_proto(model).SerializeToString()
    assert store_sparse(model.graph) == {}
    assert ir.to_proto(model).SerializeToString() == before


def test_small_tensors_stay_whatever_their_zeros() -> None:
    assert store_sparse(graph_of([np.zeros((10, 10), np.float32)]).graph) == {}


def test_integer_layers_stay_integer(network, scores, sample, tmp_path) -> None:
    model = network(4, zeros=0.9)
    dense, sparse = tmp_path / "dense.onnx", tmp_path / "sparse.onnx"
    write_graph(build_graph(model, 5, sparse=False), dense)
    write_graph(build_graph(model, 5), sparse)
    assert check_graph(dense) == check_graph(sparse)
    np.testing.assert_array_equal(scores(dense, sample(50)), scores(sparse, sample(50)))
    assert sparse.stat().st_size < dense.stat().st_size
    stored = {tensor.name for tensor in onnx.load(sparse).graph.initializer}
    assert {"sparse.values", "sparse.mask"} <= stored
    assert torch.count_nonzero(model.first.weight) < model.first.weight.numel() / 2
