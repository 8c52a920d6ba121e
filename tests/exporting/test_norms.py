"""Batch normalisations folded into integer layers: the same answer to half a step of the bias, and what stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from slimrank.api import compress, export
from slimrank.runtime import load_graph

WIDTH = 12
GAINS = (1.5, -0.5, 0.0, 1e-3, -1e-3)


class Normed(nn.Module):
    """A layer and its normalisation, whose answer something else may ask for as well."""

    def __init__(self, *, bias: bool = True, twice: bool = False):
        super().__init__()
        self.layer = nn.Linear(8, WIDTH, bias=bias)
        self.norm = nn.BatchNorm1d(WIDTH, eps=1e-3)
        self.twice = twice

    def forward(self, values: Tensor) -> Tensor:
        found = self.layer(values)
        normed: Tensor = self.norm(found)
        return normed + found if self.twice else normed


def normed(seed: int, **options: bool) -> Normed:
    torch.manual_seed(seed)
    made = Normed(**options)
    norm = made.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.copy_(torch.tensor([GAINS[place % len(GAINS)] for place in range(WIDTH)]))
        norm.bias.normal_()
        norm.bias[2] = 0.0  # of gain 0: the answer is 0 for all rows
    return made.eval()


def exported(model: nn.Module, rows: Tensor, path: Path) -> tuple[np.ndarray, list[str]]:
    export(model, rows, path)
    found = load_graph(path).run({"values": rows.numpy()})["output"]
    return found, [node.op_type for node in onnx.load(path / "model.onnx").graph.node]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_folded_to_half_a_step(bits: int, bias: bool, tmp_path: Path) -> None:
    model, rows = normed(bits, bias=bias), torch.randn(64, 8)
    small, _ = compress(model, [{"name": "quantize-dense", "bits": bits}], [rows])
    found, operators = exported(small, rows, tmp_path / "small")
    assert "BatchNormalization" not in operators
    with torch.no_grad():
        expected = small(rows).numpy()
    assert small.norm.running_var is not None
    factor = small.norm.weight / torch.sqrt(small.norm.running_var + small.norm.eps)
    step = (factor.abs() * small.layer.pack().scale).detach().numpy()
    assert step[2] == 0
    assert (np.abs(found - expected) <= step / 2 + 1e-5).all()
    assert np.std(expected) > 0.1


def test_an_answer_that_is_read_twice_stays(tmp_path: Path) -> None:
    model, rows = normed(0, twice=True), torch.randn(64, 8)
    small, _ = compress(model, ["quantize-dense"], [rows])
    found, operators = exported(small, rows, tmp_path / "small")
    assert operators.count("BatchNormalization") == 1
    with torch.no_grad():
        np.testing.assert_allclose(found, small(rows).numpy(), atol=1e-5)


def test_a_bias_that_does_not_fit_stays(tmp_path: Path) -> None:
    """A gain so small beside the shift that the shift is more steps than an int32 counts."""
    model, rows = normed(0), torch.randn(64, 8)
    with torch.no_grad():
        model.norm.weight[0] = 1e-9
        model.norm.bias[0] = 10.0
    small, _ = compress(model, ["quantize-dense"], [rows])
    found, operators = exported(small, rows, tmp_path / "small")
    assert operators.count("BatchNormalization") == 1
    with torch.no_grad():
        np.testing.assert_allclose(found, small(rows).numpy(), atol=1e-5)
