"""Codes that remember: the arithmetic of the margin, the ends of the grid, and the pull back."""

from __future__ import annotations

import pytest
import torch

from slimrank.tables.affine import quantize
from slimrank.tables.codes import WEIGHT_CODES, Codes
from slimrank.tables.grid import Grid
from slimrank.tables.hysteresis import kept, pulled, settled

GRIDS = {
    "4 bits": Grid(bits=4).codes,
    "1 bit": Grid(bits=1).codes,
    "2 bits, around zero": Grid(bits=2, levels="midrise").codes,
    "a layer": WEIGHT_CODES,
    "a zero point between two codes": Codes(0, 15, torch.tensor(6.25)),
}


@pytest.mark.parametrize(("margin", "edge"), [(0.0, 0.5), (0.25, 0.75), (1.0, 1.5)])
def test_a_code_is_kept_within_half_a_step_and_the_margin(margin: float, edge: float) -> None:
    start = torch.full((5,), 1.2)  # 2.4 steps: code 10
    steps = torch.tensor([2.0, 2.0 + edge - 0.01, 2.0 - edge + 0.01, 2.0 + edge + 0.01, 2.0 - edge - 0.01])
    codes = Codes.unsigned(4)
    assert kept(steps * 0.5, start, torch.tensor(0.5), codes, margin).tolist() == [True, True, True, False, False]
    found = settled(steps * 0.5, start, torch.tensor(0.5), codes, margin)
    assert found[:3].tolist() == start[:3].tolist()
    assert found[3:].tolist() == (steps[3:] * 0.5).tolist()  # what moved is left where it is


@pytest.mark.parametrize("name", GRIDS)
def test_without_a_margin_it_is_rounding_to_the_nearest(name: str) -> None:
    codes, draw = GRIDS[name], torch.Generator().manual_seed(0)
    values = torch.randn(2000, generator=draw) * 4
    start = torch.randn(2000, generator=draw) * 4
    found = settled(values, start, torch.tensor(0.5), codes, 0.0)
    assert torch.equal(quantize(found, 0.5, codes), quantize(values, 0.5, codes))


@pytest.mark.parametrize("name", GRIDS)
def test_what_is_settled_keeps_the_code_of_before_or_has_another(name: str) -> None:
    codes, draw = GRIDS[name], torch.Generator().manual_seed(1)
    values = torch.randn(2000, generator=draw) * 4
    start = values + torch.randn(2000, generator=draw) / 2
    mask = kept(values, start, torch.tensor(0.5), codes, 0.3)
    after = quantize(settled(values, start, torch.tensor(0.5), codes, 0.3), 0.5, codes)
    assert torch.equal(after == quantize(start, 0.5, codes), mask)
    assert 0 < int(mask.sum()) < 2000


def test_beyond_the_last_code_there_is_none_to_change_to() -> None:
    codes = Codes.unsigned(2)  # values -2, -1, 0, 1
    values = torch.tensor([90.0, 90.0, -90.0, -90.0])
    start = torch.tensor([1.0, 0.0, -2.0, -1.0])
    assert kept(values, start, torch.tensor(1.0), codes, 0.25).tolist() == [True, False, True, False]


def test_every_row_has_its_own_scale() -> None:
    codes = Codes.unsigned(4)
    values = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    start = torch.tensor([[1.4, 0.6], [0.7, 0.4]])
    assert kept(values, start, torch.tensor([[1.0], [0.5]]), codes, 0.0).tolist() == [[True, True], [False, False]]


def test_no_rows_are_no_fault() -> None:
    empty = torch.zeros(0, 4)
    assert settled(empty, empty, torch.tensor(1.0), Codes.unsigned(4), 0.1).shape == (0, 4)


def test_a_pull_stops_where_it_is_going() -> None:
    start = torch.tensor([1.0, 1.0, 1.0, 1.0])
    values = torch.tensor([1.5, 0.5, 1.05, 1.0])
    assert pulled(values, start, 0.1).tolist() == pytest.approx([1.4, 0.6, 1.0, 1.0])
