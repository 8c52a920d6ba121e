"""The exported graph: the same scores as in torch, integer layers, any number of rows, nothing superfluous."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from slimrank.exporting.checks import check_graph
from slimrank.exporting.graph import build_graph, trace, write_graph
from slimrank.exporting.interface import of_rows
from slimrank.models.quantized import ActivationQuantizer, QuantizedLinear


def decibels(signal: np.ndarray, other: np.ndarray) -> float:
    error = float(np.square(signal - other).mean())
    return 10 * np.log10(float(np.square(signal).mean()) / max(error, 1e-30))


@pytest.mark.parametrize(
    ("bits", "numbers", "unpack_limit"), [(2, 0, 1 << 20), (2, 0, 0), (4, 3, 1 << 20), (4, 0, 0), (8, 3, 0)]
)
def test_scores_are_those_of_torch(bits, numbers, unpack_limit, network, scores, sample, tmp_path) -> None:
    model = network(bits, numbers)
    write_graph(build_graph(model, 5, numbers, unpack_limit=unpack_limit), tmp_path / "model.onnx")
    check_graph(tmp_path / "model.onnx")
    for rows in (1, 7, 300):
        ids = sample(rows)
        extra = torch.randn(rows, numbers) if numbers else None
        with torch.no_grad():
            expected = model(ids, extra).numpy()
        found = scores(tmp_path / "model.onnx", ids, extra)
        assert found.shape == (rows,)
        assert decibels(expected, found) > 80


@pytest.mark.parametrize("outputs", [1, 16, 300])
def test_the_largest_products_of_bytes_do_not_overflow(outputs: int, scores, tmp_path) -> None:
    """Weights and inputs at their bounds: with AVX2 and no VNNI two of the products are added in 16 bits."""

    class Bounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = QuantizedLinear(
                torch.ones(outputs, 64), None, ActivationQuantizer(torch.tensor(0.1), 0)
            ).pack()

        def forward(self, ids: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
            return self.layer(numbers).mean(dim=1) + ids.to(torch.float32).sum(dim=1)

    write_graph(build_graph(Bounds().eval(), 1, 64), tmp_path / "model.onnx")
    found = scores(tmp_path / "model.onnx", torch.zeros(5, 1, dtype=torch.int32), torch.full((5, 64), 25.5))
    np.testing.assert_allclose(found, 64 * 25.5, rtol=1e-5)


def test_torch_reads_its_operators_once_and_is_left_as_it_was(network, monkeypatch) -> None:
    from torch.onnx._internal.exporter._registration import ONNXRegistry, onnxscript_apis

    before, reads, model = vars(ONNXRegistry)["from_torchlib"], [], network(8, 0)
    build_graph(model, 5)
    monkeypatch.setattr(onnxscript_apis, "get_torchlib_ops", lambda: reads.append(1))
    build_graph(model, 5)
    assert vars(ONNXRegistry)["from_torchlib"] is before
    assert not reads


def test_codes_feed_the_first_layer_and_no_float_is_left(network, tmp_path) -> None:
    write_graph(build_graph(network(4), 5), tmp_path / "model.onnx")
    rows = {"Shape": 1, "Expand": 1, "Add": 1, "Gather": 1}
    layers = {"Reshape": 2, "QLinearConv": 1, "QGemm": 1, "Squeeze": 1}
    assert check_graph(tmp_path / "model.onnx") == rows | layers


def test_floats_stay_where_something_else_reads_them(network, scores, sample, tmp_path) -> None:
    model = network(4, cross=True)
    write_graph(build_graph(model, 5), tmp_path / "model.onnx")
    operators = check_graph(tmp_path / "model.onnx")
    assert (operators["QLinearConv"], operators["QGemm"], operators["DequantizeLinear"]) == (1, 1, 1)
    assert operators["Gather"] == 1
    assert "QuantizeLinear" not in operators
    with torch.no_grad():
        assert decibels(model(sample(64)).numpy(), scores(tmp_path / "model.onnx", sample(64))) > 80


def test_a_layer_that_reads_rows_and_numbers_side_by_side(network, scores, sample, tmp_path) -> None:
    model = network(8, 3, joined=True)
    model.numbers = None
    write_graph(build_graph(model, 5, 3), tmp_path / "model.onnx")
    operators = check_graph(tmp_path / "model.onnx")
    assert (operators["QGemm"], operators["QuantizeLinear"], operators["Concat"]) == (2, 1, 1)
    assert "DequantizeLinear" not in operators
    numbers = torch.randn(64, 3)
    with torch.no_grad():
        expected = model(sample(64), numbers).numpy()
    assert decibels(expected, scores(tmp_path / "model.onnx", sample(64), numbers)) > 80


def test_inputs_and_output_are_as_agreed(network) -> None:
    import onnx_ir

    graph = onnx_ir.to_proto(build_graph(network(4, 3), 5, 3)).graph
    described = {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in (*graph.input, *graph.output)
    }
    assert described == {
        "ids": (onnx.TensorProto.INT32, ["N", 5]),
        "numbers": (onnx.TensorProto.FLOAT, ["N", 3]),
        "logit": (onnx.TensorProto.FLOAT, ["N"]),
    }


def test_the_graph_adds_little_to_its_weights(network, tmp_path) -> None:
    write_graph(build_graph(network(4), 5), tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    weights = sum(len(onnx.numpy_helper.to_array(tensor).tobytes()) for tensor in proto.graph.initializer)
    assert (tmp_path / "model.onnx").stat().st_size - weights < 2000
    assert not proto.graph.value_info
    assert not proto.metadata_props
    assert not any(node.metadata_props or node.doc_string or node.name for node in proto.graph.node)
    onnx.checker.check_model(proto, full_check=True)


def test_the_same_model_gives_the_same_bytes(network, tmp_path) -> None:
    for name in ("a", "b"):
        write_graph(build_graph(network(4), 5), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_large_weights_lie_beside_the_graph(network, scores, sample, tmp_path) -> None:
    model = network(8)
    files = write_graph(build_graph(model, 5), tmp_path / "model.onnx", external_from=1000)
    assert [file.name for file in files] == ["model.onnx", "model.onnx.data"]
    assert (tmp_path / "model.onnx.data").stat().st_size >= 200 * 8
    check_graph(tmp_path / "model.onnx")
    with torch.no_grad():
        assert decibels(model(sample(9)).numpy(), scores(tmp_path / "model.onnx", sample(9))) > 80


def test_a_model_that_fixes_the_number_of_rows_is_refused() -> None:
    class Fixed(nn.Module):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return ids.float().sum(dim=1) + torch.zeros(len(ids))

    with pytest.raises(ValueError, match="the model fixes the number of rows of 'ids'"):
        trace(of_rows(Fixed(), 5))


def test_export_leaves_the_model_in_the_mode_it_was_in(network) -> None:
    model = network(8).train()
    trace(of_rows(model, 5))
    assert model.training
