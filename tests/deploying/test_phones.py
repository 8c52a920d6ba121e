"""The way to phones through torch: a graph as a module gives what ONNX Runtime gives, and its bytes stay bytes.

It is the part of the conversion that is ours; test_converted.py has the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from slimrank.deploying.phones.graph import module_of, stored_bytes
from slimrank.deploying.phones.operators import operators
from slimrank.deploying.phones.program import _axis, run
from slimrank.deploying.phones.values import MissingError, Node


def save(folder: Path, nodes: list[Any], constants: dict[str, Any], inputs: dict[str, Any], kind: int) -> Path:
    """A graph with the output `out` of that type, and inputs of [N, width]."""
    ends = [helper.make_tensor_value_info(name, each, ["N", width]) for name, (each, width) in inputs.items()]
    out = helper.make_tensor_value_info("out", kind, None)
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "made", ends, [out], tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.example", 1)], ir_version=10
    )
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def both(path: Path, feeds: dict[str, np.ndarray]) -> tuple[Any, Any, Any]:
    """What ONNX Runtime gives, what the module gives, and the module."""
    module, graph = module_of(str(path))
    wanted = onnxruntime.InferenceSession(str(path)).run(None, feeds)[0]
    with torch.no_grad():
        found = module(*(torch.from_numpy(feeds[each.name]) for each in graph.input))[0]
    return wanted, found.numpy(), module


node = helper.make_node


def packed(bits: int) -> tuple[list[Any], dict[str, np.ndarray]]:
    """A table of 50 rows of 8 numbers, packed in bytes, which are taken apart before the lookup."""
    each = 8 // bits
    table = np.random.default_rng(0).integers(0, 256, (50, bits)).astype(np.uint8)
    constants: dict[str, np.ndarray] = {"table": table, "mask": np.array(2**bits - 1, np.uint8)}
    nodes, parts = [], []
    for place in range(each):
        constants[f"by{place}"] = np.array(8 - bits * (place + 1), np.uint8)
        nodes.append(node("BitShift", ["table", f"by{place}"], [f"s{place}"], direction="RIGHT"))
        nodes.append(node("BitwiseAnd", [f"s{place}", "mask"], [f"p{place}"]))
        parts.append(f"p{place}")
    nodes += [node("Concat", parts, ["codes"], axis=-1), node("Gather", ["codes", "ids"], ["out"])]
    return nodes, constants


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_packed_tables_are_unpacked_of_the_rows_that_are_looked_up(bits: int, tmp_path: Path) -> None:
    nodes, constants = packed(bits)
    path = save(tmp_path, nodes, constants, {"ids": (TensorProto.INT32, 2)}, TensorProto.UINT8)
    ids = np.random.default_rng(1).integers(0, 50, (20, 2)).astype(np.int32)
    wanted, found, module = both(path, {"ids": ids})
    assert np.array_equal(wanted, found)
    assert stored_bytes(module) == constants["table"].nbytes


@pytest.mark.parametrize(
    ("kind", "direction", "by"),
    [*(("BitShift", way, by) for way in ("LEFT", "RIGHT") for by in (0, 1, 3, 7))]
    + [(kind, "", by) for kind in ("BitwiseAnd", "BitwiseOr") for by in (0, 1, 3, 5, 128, 254, 255)],
)
def test_bits_of_floats_are_bits_of_bytes(kind: str, direction: str, by: int) -> None:
    """All 256 bytes, from arithmetic."""
    attributes = {"direction": direction.encode()} if direction else {}
    made = Node(kind, ("a", "b"), ("c",), attributes, "uint8")
    given = np.arange(256)
    found = operators()[kind](made, [torch.arange(256, dtype=torch.float32), by]).numpy()
    wanted = {"LEFT": given << by & 255, "RIGHT": given >> by}.get(
        direction, given & by if kind[-1] == "d" else given | by
    )
    assert np.array_equal(found, wanted)


def integer_layer(draw: np.random.Generator) -> tuple[list[Any], dict[str, np.ndarray]]:
    """QDQ as int8 layers are written: u8 by s8 with a scale by output, a bias, ReLU and a rounding behind it.

    Weights have seven bits: of eight, ONNX Runtime's sums of pairs overflow on processors without VNNI.
    """
    weight = draw.integers(-63, 64, (16, 24)).astype(np.int8)
    scale = draw.uniform(0.001, 0.01, 16).astype(np.float32)
    constants = {
        "step": np.float32(0.02),
        "zero": np.uint8(128),
        "weight": weight,
        "scale": scale,
        "weight_zero": np.zeros(16, np.int8),
        "bias": draw.integers(-5000, 5000, 16).astype(np.int32),
        "bias_scale": np.float32(0.02) * scale,
        "out_step": np.float32(0.013),
        "out_zero": np.uint8(0),
    }
    nodes = [
        node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
        node("DequantizeLinear", ["weight", "scale", "weight_zero"], ["w"], axis=0),
        node("DequantizeLinear", ["bias", "bias_scale"], ["b"], axis=0),
        node("Gemm", ["d", "w", "b"], ["y"], transB=1),
        node("Relu", ["y"], ["r"]),
        node("QuantizeLinear", ["r", "out_step", "out_zero"], ["out"]),
    ]
    return nodes, constants


def test_integer_layers_round_every_number_as_onnx_runtime_does(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    nodes, constants = integer_layer(draw)
    path = save(tmp_path, nodes, constants, {"x": (TensorProto.FLOAT, 24)}, TensorProto.UINT8)
    wanted, found, module = both(path, {"x": draw.normal(size=(4000, 24)).astype(np.float32)})
    assert len(np.unique(wanted)) > 100
    assert np.array_equal(wanted, found)
    assert stored_bytes(module) == constants["weight"].nbytes + constants["bias"].nbytes


def test_unsigned_bytes_are_stored_as_signed_ones(tmp_path: Path) -> None:
    table = np.arange(256, dtype=np.uint8).reshape(32, 8)
    path = save(
        tmp_path,
        [node("Gather", ["table", "ids"], ["out"])],
        {"table": table},
        {"ids": (TensorProto.INT32, 1)},
        TensorProto.UINT8,
    )
    wanted, found, module = both(path, {"ids": np.arange(32, dtype=np.int32)[:, None]})
    assert np.array_equal(wanted, found)
    assert [each.dtype for each in module.buffers()] == [torch.int8]


MADE: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "Softmax": ([node("Softmax", ["x"], ["out"], axis=-1)], {}),
    "Erf": ([node("Erf", ["x"], ["out"])], {}),
    "Gelu": ([node("Gelu", ["x"], ["out"])], {}),
    "LayerNormalization": (
        [node("LayerNormalization", ["x", "g", "b"], ["out"], axis=-1)],
        {"g": np.arange(6, dtype=np.float32), "b": np.ones(6, np.float32)},
    ),
    "ReduceMax": ([node("ReduceMax", ["x", "axis"], ["out"], keepdims=0)], {"axis": np.array([1])}),
    "Slice": (
        [node("Slice", ["x", "start", "end", "axis", "step"], ["out"])],
        {"start": np.array([1]), "end": np.array([2**62]), "axis": np.array([1]), "step": np.array([2])},
    ),
    "Split": (
        [node("Split", ["x", "sizes"], ["one", "other"], axis=1), node("Mul", ["one", "one"], ["out"])],
        {"sizes": np.array([2, 4])},
    ),
    "Reshape of a shape": (
        [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "first"], ["rows"]),
            node("Unsqueeze", ["rows", "zero"], ["rows_1"]),
            node("Concat", ["rows_1", "rest"], ["to"], axis=0),
            node("Reshape", ["x", "to"], ["out"]),
        ],
        {"first": np.array(0), "zero": np.array([0]), "rest": np.array([2, 3])},
    ),
    "Where": (
        [node("Less", ["x", "half"], ["less"]), node("Where", ["less", "x", "half"], ["out"])],
        {"half": np.float32(0.5)},
    ),
    "Clip": ([node("Clip", ["x", "low", "high"], ["out"])], {"low": np.float32(-1), "high": np.float32(0.5)}),
    "a shape made longer": (
        [
            node("Shape", ["x"], ["shape"]),
            node("Concat", ["two", "shape"], ["to"], axis=0),
            node("Expand", ["x", "to"], ["out"]),
        ],
        {"two": np.array([2])},
    ),
    "a number made wide": (
        [
            node("Shape", ["x"], ["shape"]),
            node("Expand", ["zero", "shape"], ["zeros"]),
            node("Cast", ["x"], ["places"], to=TensorProto.INT64),
            node("Abs", ["places"], ["there"]),
            node("ScatterElements", ["zeros", "there", "x"], ["out"], axis=1),
        ],
        {"zero": np.float32(0)},
    ),
    "a matrix of one number": (
        [node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1), node("MatMul", ["sum", "w"], ["out"])],
        {"axis": np.array([1]), "w": np.array([[0.5]], np.float32)},
    ),
    "numbers that hang on constants alone": (
        [
            node("Sqrt", ["two"], ["root"]),
            node("Div", ["root", "three"], ["part"]),
            node("Max", ["part", "third", "low"], ["most"]),
            node("Clip", ["row", "", "three"], ["few"]),
            node("Mul", ["x", "most"], ["y"]),
            node("Add", ["y", "few"], ["out"]),
        ],
        {
            "two": np.float32(2),
            "three": np.float32(3),
            "third": np.float32(1 / 3),
            "low": np.float32(0.1),
            "row": np.arange(6, dtype=np.float32),
        },
    ),
    "one of two numbers": (
        [node("Less", ["x", "half"], ["less"]), node("Where", ["less", "half", "one"], ["out"])],
        {"half": np.float32(0.5), "one": np.float32(1)},
    ),
    "half of a size": (
        [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "last"], ["width"]),
            node("Div", ["width", "two"], ["half"]),
            node("Unsqueeze", ["half", "zero"], ["end"]),
            node("Slice", ["x", "zero", "end", "axis"], ["out"]),
        ],
        {"last": np.array(1), "two": np.array(2), "zero": np.array([0]), "axis": np.array([1])},
    ),
    "a remainder with the sign of what is divided": (
        [node("Mod", ["x", "by"], ["out"], fmod=1)],
        {"by": np.float32(0.7)},
    ),
    "a number as wide as the input, and no more": (
        [node("Shape", ["x"], ["shape"]), node("Expand", ["number", "shape"], ["out"])],
        {"number": np.float32(0.7)},
    ),
    "CumSum": ([node("CumSum", ["x", "axis"], ["out"])], {"axis": np.array(1)}),
    "Conv": (
        [
            node("Transpose", ["x"], ["t"], perm=[1, 0]),
            node("Unsqueeze", ["t", "zero"], ["image"]),
            node("Conv", ["image", "w", "b"], ["out"]),
        ],
        {
            "zero": np.array([0]),
            "w": np.linspace(-1, 1, 24).reshape(4, 6, 1).astype(np.float32),
            "b": np.arange(4, dtype=np.float32),
        },
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_operators_give_what_onnx_runtime_gives(name: str, tmp_path: Path) -> None:
    nodes, constants = MADE[name]
    path = save(tmp_path, nodes, constants, {"x": (TensorProto.FLOAT, 6)}, TensorProto.FLOAT)
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    wanted, found, _ = both(path, {"x": x})
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "constants", "words"),
    [
        ([node("GRU", ["x"], ["out"]), node("Det", ["x"], ["other"])], {}, "operator Det, GRU"),
        ([node("Scale", ["x"], ["out"], domain="com.example")], {}, "operator com.example.Scale"),
        (
            [node("Gemm", ["x", "w"], ["out"], alpha=0.5)],
            {"w": np.eye(6, dtype=np.float32)},
            "operator Gemm with alpha",
        ),
        ([node("Squeeze", ["x"], ["out"])], {}, "operator Squeeze without axes"),
    ],
)
def test_what_is_missing_is_named(nodes: Any, constants: Any, words: str, tmp_path: Path) -> None:
    path = save(tmp_path, nodes, constants, {"x": (TensorProto.FLOAT, 6)}, TensorProto.FLOAT)
    with pytest.raises(MissingError, match=words):
        module_of(str(path))[0](torch.zeros(2, 6))


def test_calls_of_few_rows_are_put_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 7 queries and 3 items by calls of 2: every call has two of each, and no row is lost or there twice."""
    calls: list[tuple[int, int]] = []

    def call(arrays: list[np.ndarray]) -> list[np.ndarray]:
        calls.append((arrays[0].shape, arrays[1].shape))
        return [arrays[0] * 10, arrays[1] + 1]

    monkeypatch.setitem(run.__globals__["TOOLS"], "litert", (None, lambda model: call))
    np.savez(tmp_path / "feeds.npz", ids=np.arange(14).reshape(7, 2), items=np.arange(3))
    task = {
        "tool": "litert",
        "model": "",
        "feeds": tmp_path / "feeds.npz",
        "answers": tmp_path / "answers.npz",
        "inputs": [{"name": "ids", "shape": ["N", "K"]}, {"name": "items", "shape": ["C"]}],
        "outputs": [{"name": "vector", "shape": ["N", 2]}, {"name": "item_vector", "shape": ["C"]}],
        "sizes": {"N": 2, "K": 3, "C": 2},
        "padded": ["N", "K", "C"],
    }
    assert run(task) == {"calls": 4}
    assert calls == [((2, 3), (2,))] * 4
    with np.load(tmp_path / "answers.npz") as answers:
        assert answers["vector"][:, :2].tolist() == (np.arange(14).reshape(7, 2) * 10).tolist()
        assert answers["item_vector"].tolist() == [1, 2, 3]


def test_a_size_that_may_be_one_alone_does_not_vary() -> None:
    axes: dict[str, Any] = {}
    assert _axis("rows", axes, 1) is None
    found = _axis("rows", axes, 2)
    assert (found.__name__, found.min, found.max) == ("rows", 1, 2)
    assert _axis("rows", axes, 2) is found
