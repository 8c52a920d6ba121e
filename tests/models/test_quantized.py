"""Integer layers: from arithmetic, edge grid, trainable against packed, gradients."""

import copy
import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from slimrank.config import InputError
from slimrank.models.quantized import (
    ActivationQuantizer,
    PackedLinear,
    QuantizedLinear,
    TableQuantizer,
    output_scales,
)
from slimrank.tables.affine import fake_quantize
from slimrank.tables.codes import Codes
from slimrank.tables.integer import dequantize_linear, quantize_linear
from slimrank.tables.scaled import Grid, ScaledTable


def table_of(scale: list[float], bits: Literal[2, 4, 8], dim: int) -> ScaledTable:
    """A table with a field a scale, one row each."""
    fields = len(scale)
    return ScaledTable(torch.zeros(fields, dim), torch.tensor(scale), Grid(bits=bits), torch.arange(fields))


def decibels(signal: Tensor, other: Tensor) -> float:
    """Power of the signal over the power of the difference."""
    return float(10 * torch.log10(signal.square().mean() / (signal - other).square().mean()))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_packed_layer_from_arithmetic() -> None:
    layer = QuantizedLinear(
        torch.tensor([[1.0, -0.5]]), torch.tensor([0.2]), ActivationQuantizer(torch.tensor(0.1), 10)
    )
    packed = layer.pack()
    t = 1.0 * 0.1 / 64
    assert packed.scale.item() == pytest.approx(t)
    assert packed.weight.tolist() == [[64, -32]]
    assert packed.bias.item() == round(0.2 / t) - 10 * (64 - 32)
    assert packed.step.item() == pytest.approx(0.1)
    codes = [10 + 3, 10 - 2]  # of 0.3 and -0.2
    expected = t * (64 * codes[0] - 32 * codes[1] + packed.bias.item())
    assert packed(torch.tensor([[0.3, -0.2]])).item() == pytest.approx(expected, rel=1e-5)


def test_zero_points_cost_nothing() -> None:
    """c = round(b / t) - Q z: zero inputs give the rounded bias exactly, whatever the zero point."""
    for zero_point in (0, 1, 128, 255):
        layer = QuantizedLinear(random(3, 5), random(3), ActivationQuantizer(torch.tensor(0.1), zero_point)).pack()
        rounded = layer.bias + zero_point * layer.weight.int().sum(dim=1)
        torch.testing.assert_close(layer(torch.zeros(1, 5))[0], rounded * layer.scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_trainable_and_packed_agree(per_column: bool, positive: bool, bias: bool) -> None:
    sizes = torch.logspace(-2, 2, 40) if per_column else torch.ones(40)
    inputs = random(300, 40) * sizes
    inputs = inputs.relu() if positive else inputs
    quantizer = ActivationQuantizer.calibrated(inputs, per_column=per_column)
    layer = QuantizedLinear(random(8, 40, seed=1) / sizes, random(8, seed=2) if bias else None, quantizer)
    with torch.no_grad():
        trained, packed = layer(inputs), layer.pack()(inputs)
        exact = torch.nn.functional.linear(inputs, layer.weight, layer.bias)
    assert decibels(trained, packed) > 100
    assert decibels(exact, packed) > 34


def test_numbers_of_all_sizes_need_a_scale_each() -> None:
    inputs = random(300, 6) * torch.tensor([1e-3, 1e-2, 0.1, 1.0, 10.0, 1e3])
    alone = ActivationQuantizer.calibrated(inputs, per_column=True)
    together = ActivationQuantizer.calibrated(inputs)
    with torch.no_grad():
        small = inputs[:, :1]
        assert decibels(small, alone(inputs)[:, :1]) > 34
        assert decibels(small, together(inputs)[:, :1]) < 1


def test_never_negative_inputs_get_the_whole_byte() -> None:
    inputs = torch.linspace(0, 2.55, 256).reshape(-1, 1)
    quantizer = ActivationQuantizer.calibrated(inputs)
    assert quantizer.zero_point == 0
    assert quantizer.steps().item() == pytest.approx(0.01)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rows_of_a_table_are_taken_as_they_are(bits: int) -> None:
    table = table_of([0.5, 0.01], bits, dim=4)
    quantizer = TableQuantizer(table, (0, 1, 0))
    steps = torch.tensor([0.5, 0.01, 0.5]).repeat_interleave(4)
    torch.testing.assert_close(quantizer.steps(), steps / 2 ** (8 - bits))
    codes = Codes.unsigned(bits)
    rows = fake_quantize(random(100, 12), steps, codes)
    assert torch.equal(quantizer(rows), rows)
    found = quantize_linear(rows, quantizer.steps().detach(), torch.full((12,), 128, dtype=torch.uint8))
    assert torch.equal(found % 2 ** (8 - bits), torch.zeros_like(found))
    layer = QuantizedLinear(random(4, 12, seed=1), random(4, seed=2), quantizer)
    with torch.no_grad():
        assert decibels(layer(rows), layer.pack()(rows)) > 100


def test_a_deep_copy_reads_the_scales_of_the_copied_table() -> None:
    table = table_of([1.0], 8, dim=3)
    model = torch.nn.ModuleDict({"table": table})
    model["layer"] = QuantizedLinear(random(2, 3), None, TableQuantizer(table, (0,)))
    assert "layer.inputs.source.0.log_scale" not in model.state_dict()
    assert [name for name, _ in model.named_parameters()] == ["table.weight", "table.log_scale", "layer.weight"]
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied["table"].log_scale.fill_(math.log(4.0))
    assert copied["layer"].inputs.steps().tolist() == [4.0] * 3
    assert model["layer"].inputs.steps().tolist() == [1.0] * 3


def test_gradients_go_straight_through() -> None:
    inputs = random(64, 10).requires_grad_()
    layer = QuantizedLinear(random(3, 10, seed=1), random(3, seed=2), ActivationQuantizer(torch.tensor(0.05), 128))
    layer(inputs).sum().backward()
    assert layer.weight.grad is not None
    assert inputs.grad is not None
    assert isinstance(layer.inputs, ActivationQuantizer)
    assert layer.inputs.log_scale.grad is not None
    torch.testing.assert_close(layer.weight.grad, inputs.detach().sum(dim=0).expand(3, -1), rtol=0.05, atol=0.5)
    torch.testing.assert_close(inputs.grad, layer.weight.detach().sum(dim=0).expand(64, -1), rtol=0.1, atol=0.05)


def test_zeros_stay_zeros() -> None:
    weight = random(8, 16)
    weight[weight.abs() < 1] = 0.0
    packed = QuantizedLinear(weight, None, ActivationQuantizer(torch.tensor(0.1), 7)).pack()
    assert torch.equal(packed.weight[weight == 0], torch.zeros_like(packed.weight[weight == 0]))


def test_rows_of_zeros_and_extreme_biases_pack() -> None:
    weight = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1e-12, 0.0], [1e6, 1e-6]])
    bias = torch.tensor([0.0, 0.3, 1e3, -1e-9])
    packed = QuantizedLinear(weight, bias, ActivationQuantizer(torch.tensor(0.1), 128)).pack()
    torch.testing.assert_close(packed(torch.zeros(1, 2))[0], bias, rtol=1e-5, atol=1e-3)
    assert torch.isfinite(packed(torch.tensor([[1e30, -1e30]]))).all()


def test_output_scales_hold_weights_and_bias() -> None:
    folded, bias = torch.tensor([[0.64, 0.0]]), torch.tensor([2.0**24])
    assert output_scales(folded, None).item() == pytest.approx(0.01)
    assert output_scales(folded, bias).item() == 1.0


@pytest.mark.parametrize(
    "inputs", [torch.empty(0, 3), torch.tensor([[1.0, float("nan")]]), torch.tensor([[torch.inf]])]
)
def test_calibration_refuses_what_has_no_range(inputs: Tensor) -> None:
    with pytest.raises(InputError, match="at least one row of inputs, without NaN or infinity"):
        ActivationQuantizer.calibrated(inputs)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_any_number_of_rows(rows: int) -> None:
    layer = QuantizedLinear(random(2, 5), None, ActivationQuantizer(torch.tensor(0.1), 128))
    assert layer(random(rows, 5)).shape == (rows, 2)
    assert layer.pack()(random(rows, 5)).shape == (rows, 2)


def test_bytes_are_counted_with_everything_stored() -> None:
    packed = QuantizedLinear(random(3, 5), None, ActivationQuantizer(torch.tensor(0.1), 128)).pack()
    assert packed.nbytes == 15 + 3 + 4 * 3 + 4 * 3 + 4 + 1
    assert isinstance(packed.pack(), PackedLinear)
    assert torch.equal(
        dequantize_linear(packed.weight, packed.scale, packed.weight_zero), packed.weight * packed.scale.unsqueeze(1)
    )


def test_the_largest_weight_of_every_output_has_a_gradient() -> None:
    weight = torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
    layer = QuantizedLinear(weight, None, ActivationQuantizer(torch.tensor(0.05), 0))
    layer(torch.full((1, 7), 0.5)).sum().backward()
    assert layer.weight.grad is not None
    assert (layer.weight.grad != 0).all()
