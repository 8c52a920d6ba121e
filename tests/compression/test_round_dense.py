"""Dense layers in bfloat16: rounding from arithmetic, bytes in the file, scores of the artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from slimrank.exporting.checks import check_graph
from slimrank.exporting.graph import build_graph, write_graph
from slimrank.exporting.pack import pack
from slimrank.models.rounded import PackedRoundedLinear, RoundedLinear, rounded_to_bfloat16


class Mixer(nn.Module):
    """Ids as numbers through one layer."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.layer(ids.to(torch.float32)).sum(dim=1)


def layer(width: int) -> RoundedLinear:
    torch.manual_seed(0)
    source = nn.Linear(width, 64)
    return RoundedLinear(source.weight, source.bias)


def test_a_value_changes_by_at_most_a_256th_of_itself() -> None:
    values = torch.randn(10_000) * torch.logspace(-20, 20, 10_000)
    rounded = rounded_to_bfloat16(values)
    assert ((rounded - values).abs() <= values.abs() / 256).all()
    bits = rounded.numpy().view(np.uint32)
    assert (bits & 0xFFFF == 0).all()


def test_gradients_go_straight_through_the_rounding() -> None:
    one = layer(8)
    values = torch.randn(5, 8)
    one(values).sum().backward()
    assert one.weight.grad is not None
    torch.testing.assert_close(one.weight.grad, values.sum(dim=0).expand(64, 8))
    torch.testing.assert_close(one(values), one.pack()(values))
    assert one.nbytes == 2 * 64 * 8 + 4 * 64


def test_packed_layers_are_half_as_large_in_the_file_and_run_in_float(tmp_path: Path) -> None:
    packed = pack(Mixer(layer(96)))
    assert isinstance(packed.layer, PackedRoundedLinear)
    path = write_graph(build_graph(packed, 96), tmp_path / "model.onnx")[0]
    plain = write_graph(build_graph(Mixer(nn.Linear(96, 64)), 96), tmp_path / "plain.onnx")[0]
    saved = plain.stat().st_size - path.stat().st_size
    assert saved == pytest.approx(2 * 96 * 64, abs=200)
    types = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 2}
    assert types == {onnx.TensorProto.BFLOAT16}
    assert "Cast" not in check_graph(path) or check_graph(path)["Cast"] == 1  # that of the ids
    ids = np.random.default_rng(0).integers(0, 5, (7, 96)).astype(np.int32)
    (found,) = onnxruntime.InferenceSession(path).run(["logit"], {"ids": ids})
    np.testing.assert_allclose(found, packed(torch.from_numpy(ids)).numpy(), atol=1e-4)
