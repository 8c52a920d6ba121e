"""Integer operations: from arithmetic, on an edge grid, against the affine arithmetic of training."""

import pytest
import torch

from slimrank.tables.affine import dequantize, quantize
from slimrank.tables.codes import Codes
from slimrank.tables.integer import BYTE_ZERO, dequantize_linear, pack_bytes, quantize_linear, shift_left, unpack_bytes


def byte(value: int) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.uint8)


def test_quantize_rounds_halves_to_even_and_clips() -> None:
    values = torch.tensor([0.25, 0.75, -0.25, 1000.0, -1000.0, 0.0])
    expected = [128 + 0, 128 + 2, 128 - 0, 255, 0, 128]
    assert quantize_linear(values, torch.tensor(0.5), byte(128)).tolist() == expected


def test_dequantize_is_codes_less_zero_point_times_scale() -> None:
    codes = torch.tensor([[0, 128, 255]], dtype=torch.uint8)
    expected = [(0 - 128) * 0.5, 0.0, (255 - 128) * 0.5]
    assert dequantize_linear(codes, torch.tensor(0.5), byte(128))[0].tolist() == expected


def test_scales_run_along_the_axis_given() -> None:
    codes = torch.tensor([[1, 2], [3, 4]], dtype=torch.int8)
    scale = torch.tensor([10.0, 100.0])
    assert dequantize_linear(codes, scale, torch.zeros(2, dtype=torch.int8)).tolist() == [[10, 20], [300, 400]]
    assert dequantize_linear(codes, scale, axis=1).tolist() == [[10, 200], [30, 400]]


def test_both_agree_with_the_arithmetic_of_training() -> None:
    values = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    scale = torch.rand(7, generator=torch.Generator().manual_seed(1)) * 0.05 + 0.001
    zero = torch.full((7,), BYTE_ZERO, dtype=torch.uint8)
    codes = quantize_linear(values, scale, zero)
    assert torch.equal(codes.float(), quantize(values, scale, Codes(0, 255, BYTE_ZERO)))
    assert torch.equal(dequantize_linear(codes, scale, zero, axis=1), dequantize(codes, scale, BYTE_ZERO))


def test_codes_survive_the_way_through_floats() -> None:
    """(c - z) * s quantised by s and z is c, for every byte and scales of all sizes: the pass relies on it."""
    codes = torch.arange(256, dtype=torch.uint8)
    for exponent in range(-60, 60, 7):
        scale = torch.tensor(1.1 * 2.0**exponent)
        assert torch.equal(quantize_linear(dequantize_linear(codes, scale, byte(128)), scale, byte(128)), codes)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("dim", [1, 3, 8, 11])
def test_rows_of_any_dimension_come_back(bits: int, dim: int) -> None:
    codes = torch.randint(0, 2**bits, (5, dim), generator=torch.Generator().manual_seed(dim)).to(torch.uint8)
    packed = pack_bytes(codes, bits)
    assert packed.shape == (5, -(-dim * bits // 8))
    assert torch.equal(unpack_bytes(packed, bits, dim), codes << (8 - bits))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_unpacking_undoes_packing(bits: int, rows: int) -> None:
    width, parts = 3, 8 // bits
    codes = torch.randint(0, 2**bits, (rows, width * parts), generator=torch.Generator().manual_seed(bits))
    packed = sum(codes[:, p * width : (p + 1) * width] << (p * bits) for p in range(parts))
    unpacked = unpack_bytes(torch.as_tensor(packed).to(torch.uint8), bits)
    assert torch.equal(unpacked.long(), codes << (8 - bits))


def test_a_shift_drops_what_leaves_the_byte() -> None:
    assert shift_left(byte(0b1011_0001), 4).item() == 0b0001_0000
