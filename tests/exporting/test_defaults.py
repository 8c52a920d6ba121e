"""Attributes at their defaults: gone from the graph, which computes the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from slimrank.exporting.defaults import drop_defaults


def graph_of(operator: str, inputs: list[np.ndarray], attributes: dict) -> ir.Model:
    """One node: its first input is fed, the others are constants."""
    x = ir.Value(name="x", shape=ir.Shape(inputs[0].shape), type=ir.TensorType(ir.DataType.FLOAT))
    constants = [ir.Value(name=f"c{place}", const_value=ir.tensor(each)) for place, each in enumerate(inputs[1:])]
    node = ir.node(operator, [x, *constants], attributes)
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=constants, opset_imports={"": 21}, name="graph")
    return ir.Model(graph, ir_version=10)


def answer(model: ir.Model, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)
WEIGHT = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
WHOLE, PART = np.array([4, 3], np.int64), np.array([0, 2, 2], np.int64)


@pytest.mark.parametrize(
    ("operator", "rest", "attributes", "left"),
    [
        ("Gemm", [WEIGHT], {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}, {"transB"}),
        ("Gemm", [WEIGHT], {"alpha": 0.5, "beta": 1.0, "transB": 1}, {"alpha", "transB"}),
        ("Gather", [np.array([1, 0], np.int64)], {"axis": 0}, set()),
        ("Gather", [np.array([1, 0], np.int64)], {"axis": 1}, {"axis"}),
        ("Softmax", [], {"axis": -1}, set()),
        ("Softmax", [], {"axis": 0}, {"axis"}),
        ("Reshape", [WHOLE], {"allowzero": 1}, set()),
        ("Reshape", [PART], {"allowzero": 0}, set()),
        ("Reshape", [PART], {"allowzero": 1}, {"allowzero"}),
        ("LeakyRelu", [], {"alpha": 0.2}, {"alpha"}),
        ("Transpose", [], {"perm": (1, 0)}, {"perm"}),
    ],
)
def test_what_is_said_anyway_goes(operator: str, rest: list, attributes: dict, left: set) -> None:
    model = graph_of(operator, [VALUES, *rest], attributes)
    runs = attributes != {"allowzero": 1} or 0 not in rest[0]  # no row of no numbers has twelve
    expected = answer(model, VALUES) if runs else None
    assert drop_defaults(model.graph) == len(attributes) - len(left)
    assert set(model.graph[0].attributes) == left
    if runs:
        np.testing.assert_array_equal(answer(model, VALUES), expected)


def test_operators_of_other_domains_keep_theirs() -> None:
    model = graph_of("Gemm", [VALUES, WEIGHT], {"alpha": 1.0, "transB": 1})
    model.graph[0].domain = "some.where"
    assert drop_defaults(model.graph) == 0
    assert set(model.graph[0].attributes) == {"alpha", "transB"}
