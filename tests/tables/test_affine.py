"""The arithmetic of affine quantisation, from numbers that can be checked by hand."""

import pytest
import torch

from slimrank.tables.affine import (
    dequantize,
    fake_quantize,
    quantize,
    round_stochastic,
)
from slimrank.tables.codes import WEIGHT_CODES, Codes, affine_from_range
from slimrank.tables.ranges import range_scale, squared_error_scale


def test_codes_are_rounded_shifted_and_clipped() -> None:
    values = torch.tensor([-5.0, -0.4, 0.0, 0.2, 0.26, 3.4, 100.0])
    codes = quantize(values, 0.5, Codes.unsigned(4))
    assert codes.tolist() == [0, 7, 8, 8, 9, 15, 15]
    assert dequantize(codes, 0.5, 8).tolist() == [-4.0, -0.5, 0.0, 0.0, 0.5, 3.5, 3.5]


def test_halves_go_to_the_even_code_as_in_onnx() -> None:
    assert quantize(torch.tensor([0.5, 1.5, 2.5, -0.5]), 1.0, WEIGHT_CODES).tolist() == [0, 2, 2, 0]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_zero_is_exact_and_the_range_is_not_clipped(bits: int) -> None:
    codes = Codes.unsigned(bits)
    values = torch.linspace(-1.0, 0.7, 33)
    scale = range_scale(values.unsqueeze(0), codes)[0]
    assert quantize(torch.zeros(1), scale, codes).item() == codes.zero_point
    error = (dequantize(quantize(values, scale, codes), scale, codes.zero_point) - values).abs().max()
    assert error <= scale / 2 + 1e-6


@pytest.mark.parametrize(
    ("minimum", "maximum", "expected"),
    [
        (0.0, 255.0, (1.0, 0)),
        (-255.0, 0.0, (1.0, 255)),
        (1.0, 255.0, (1.0, 0)),
        (0.0, 0.0, (1.0, 0)),
        (-1.0, 1.0, (2 / 255, 128)),
    ],
)
def test_range_gives_scale_and_zero_point(minimum: float, maximum: float, expected: tuple[float, int]) -> None:
    scale, zero_point = affine_from_range(minimum, maximum)
    assert (pytest.approx(scale), zero_point) == expected


def test_searched_scale_is_never_worse_than_the_range() -> None:
    values = torch.cat([torch.randn(4000, generator=torch.Generator().manual_seed(0)), torch.tensor([40.0])])
    codes = Codes.unsigned(4)

    def error(scale: torch.Tensor) -> float:
        return float((dequantize(quantize(values, scale, codes), scale, codes.zero_point) - values).square().sum())

    group = values.unsqueeze(0)
    assert error(squared_error_scale(group, codes)[0]) < 0.5 * error(range_scale(group, codes)[0])


def test_all_zero_values_get_a_usable_scale() -> None:
    assert range_scale(torch.zeros(1, 5), Codes.unsigned(8)).item() == 1.0
    assert squared_error_scale(torch.zeros(1, 5), Codes.unsigned(8)).item() > 0.0


def test_fake_quantisation_equals_there_and_back() -> None:
    values = torch.randn(100, generator=torch.Generator().manual_seed(1)) * 3
    codes, scale = Codes.unsigned(4), torch.tensor(0.37)
    there_and_back = dequantize(quantize(values, scale, codes), scale, codes.zero_point)
    torch.testing.assert_close(fake_quantize(values, scale, codes), there_and_back)


def test_gradients_are_those_of_lsq() -> None:
    values = torch.tensor([0.3, -9.0, 9.0, 0.9], requires_grad=True)
    scale = torch.tensor(1.0, requires_grad=True)
    fake_quantize(values, scale, Codes.unsigned(4)).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 0.0, 0.0, 1.0]  # straight through; 0 where clipped
    assert scale.grad is not None
    # inside: round(v/s) - v/s; below: -8; above: 7
    assert scale.grad.item() == pytest.approx((0 - 0.3) + (-8) + 7 + (1 - 0.9))


def test_codes_on_one_side_of_zero_get_their_range_from_that_side() -> None:
    values = torch.tensor([[0.0, 2.0, 51.0]])
    assert range_scale(values, Codes(0, 255, 0)).item() == pytest.approx(0.2)
    assert range_scale(-values, Codes(0, 255, 255)).item() == pytest.approx(0.2)
    assert range_scale(torch.tensor([[-1.0, 51.0]]), Codes(0, 255, 0)).item() == pytest.approx(0.2)


def test_one_bit_has_two_values_of_opposite_sign() -> None:
    codes = Codes.unsigned(1, midrise=True)
    values = torch.tensor([-3.0, -0.1, 0.1, 3.0])
    assert quantize(values, 2.0, codes).tolist() == [0, 0, 1, 1]
    torch.testing.assert_close(fake_quantize(values, torch.tensor(2.0), codes), torch.tensor([-1.0, -1.0, 1.0, 1.0]))


def test_stochastic_rounding_is_unbiased() -> None:
    torch.manual_seed(0)
    values = torch.full((100_000,), 2.3)
    rounded = round_stochastic(values)
    assert set(rounded.unique().tolist()) == {2.0, 3.0}
    assert rounded.mean().item() == pytest.approx(2.3, abs=5 * (0.3 * 0.7 / 100_000) ** 0.5)


@pytest.mark.parametrize("codes", [Codes.unsigned(2), Codes.unsigned(1, midrise=True), Codes(0, 255, 3)])
def test_gradients_are_those_of_the_formula_written_out(codes: Codes) -> None:
    """torch's own gradients of clamp, round (straight through) and the products, for scales that broadcast."""
    draw = torch.Generator().manual_seed(2)
    values, weight = torch.randn(40, 6, generator=draw), torch.randn(40, 6, generator=draw)
    found = []
    for written_out in (False, True):
        x = values.clone().requires_grad_()
        scale = torch.linspace(0.1, 0.9, 40).unsqueeze(1).requires_grad_()
        if written_out:
            steps = (x / scale).clamp(-codes.negative, codes.positive) + codes.fraction
            rounded = (steps + (steps.round() - steps).detach() - codes.fraction) * scale
        else:
            rounded = fake_quantize(x, scale, codes)
        (rounded * weight).sum().backward()
        found.append((rounded, x.grad, scale.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_values_beyond_all_steps_leave_the_gradient_of_the_scale_finite() -> None:
    values = torch.tensor([1e30, -1e30, torch.inf, 0.3], requires_grad=True)
    scale = torch.tensor(1e-20, requires_grad=True)
    fake_quantize(values, scale, Codes.unsigned(4)).sum().backward()
    assert scale.grad is not None
    assert scale.grad.item() == 7 - 8 + 7 + 7  # each is clipped: its bound
    assert values.grad is not None
    assert values.grad.tolist() == [0.0] * 4
