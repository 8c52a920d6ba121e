"""The arithmetic of quantisation in numpy is that in torch, scale for scale and code for code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimrank.graphs.ranges import dequantized, pack_bytes, quantize, range_scale, squared_error_scale
from slimrank.tables import affine, integer, ranges
from slimrank.tables.codes import Codes


def test_scale_and_codes_from_arithmetic() -> None:
    values = np.array([[-1.0, 0.25, 0.5, 3.5]], np.float32)
    codes = Codes.unsigned(4)
    assert range_scale(values, codes).tolist() == [0.5]  # 3.5 over 7 steps above zero; 1 over 8 below is less
    assert quantize(values, 0.5, codes).tolist() == [[6.0, 8.0, 9.0, 15.0]]  # halves go to the even code
    assert dequantized(values, 0.5, codes).tolist() == [[-1.0, 0.0, 0.5, 3.5]]


@pytest.mark.parametrize("codes", [*map(Codes.unsigned, (2, 4, 8)), Codes.unsigned(1, midrise=True), Codes(0, 255, 7)])
@pytest.mark.parametrize("weighted", [False, True])
def test_scales_are_those_of_the_trainable_form(codes: Codes, weighted: bool) -> None:
    draw = np.random.default_rng(3)
    values = (draw.normal(size=(5, 400)) * draw.lognormal(size=(5, 1))).astype(np.float32)
    weights = draw.random((5, 400)).astype(np.float32) if weighted else None
    found = squared_error_scale(values, codes, weights)
    other = None if weights is None else torch.from_numpy(weights)
    expected = ranges.squared_error_scale(torch.from_numpy(values), codes, other).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    np.testing.assert_array_equal(
        range_scale(values, codes), ranges.range_scale(torch.from_numpy(values), codes).numpy()
    )
    same = affine.quantize(torch.from_numpy(values), torch.from_numpy(found[:, None]), codes).numpy()
    np.testing.assert_array_equal(quantize(values, found[:, None], codes), same)


def test_of_nothing_but_zeros_the_scale_is_one() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert squared_error_scale(zeros, Codes.unsigned(8)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("dim", [1, 5, 16])
def test_bytes_are_packed_as_tables_pack_them(bits: int, dim: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, (7, dim)).astype(np.uint8)
    np.testing.assert_array_equal(pack_bytes(codes, bits), integer.pack_bytes(torch.from_numpy(codes), bits).numpy())
