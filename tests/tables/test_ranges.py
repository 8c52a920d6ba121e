"""Scales and zero points that are searched: against arithmetic, and against every candidate by brute force."""

import pytest
import torch

from slimrank.tables.codes import Codes
from slimrank.tables.ranges import affine_grid, squared_error, squared_error_range, squared_error_scale


def values(groups: int = 5, count: int = 400) -> torch.Tensor:
    sizes = torch.tensor([[1.0], [9.0], [0.1], [3.0], [2.0]])
    return torch.randn(groups, count, generator=torch.Generator().manual_seed(2)) * sizes


def test_with_one_bit_the_scale_is_twice_the_mean_size() -> None:
    rows = values()
    scale = squared_error_scale(rows, Codes.unsigned(1, midrise=True))
    torch.testing.assert_close(scale, 2 * rows.abs().mean(dim=1))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_no_scale_of_a_fine_grid_is_better_by_more_than_a_little(bits: int) -> None:
    rows, codes = values(), Codes.unsigned(bits)
    found = squared_error(rows, squared_error_scale(rows, codes), codes)
    widest = rows.abs().amax(dim=1) / codes.negative
    tried = [squared_error(rows, widest * fraction, codes) for fraction in torch.linspace(0.05, 1.2, 800).tolist()]
    assert (found <= torch.stack(tried).amin(dim=0) * 1.08).all()


def test_weights_decide_whose_error_counts() -> None:
    rows = torch.tensor([[1.0, -1.0, 1.0, 8.0]])
    codes = Codes.unsigned(2)
    heavy = squared_error_scale(rows, codes, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    assert heavy.item() == pytest.approx(1.0, rel=1e-3)
    assert squared_error_scale(rows, codes).item() > 4


def test_an_affine_grid_reaches_from_the_smallest_to_the_largest() -> None:
    scale, zero = affine_grid(torch.tensor([2.0]), torch.tensor([17.0]), 4, whole=False)
    assert scale.item() == 1.0
    assert zero.item() == -2.0
    scale, zero = affine_grid(torch.tensor([2.0]), torch.tensor([15.0]), 4, whole=True)
    assert (scale.item(), zero.item()) == (1.0, 0.0)


@pytest.mark.parametrize("whole", [True, False])
def test_the_greedy_range_is_no_worse_than_the_whole_range(whole: bool) -> None:
    rows = values() + 1.0
    rows[:, 0] = 60.0

    def error(scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
        return squared_error(rows, scale, Codes(0, 15, zero.unsqueeze(1)))

    found = error(*squared_error_range(rows, 4, whole=whole))
    plain = error(*affine_grid(rows.amin(dim=1), rows.amax(dim=1), 4, whole=whole))
    assert (found <= plain * 1.0001).all()
    assert (found < 0.99 * plain).any()
