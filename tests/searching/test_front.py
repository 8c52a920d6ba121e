"""Ranks and fronts against counting."""

import numpy as np
import pytest

from slimrank.searching.front import dominates, front, ranks


def test_a_point_does_not_dominate_itself_nor_what_is_better_somewhere() -> None:
    assert not dominates((1.0, 2.0), (1.0, 2.0))
    assert not dominates((1.0, 2.0), (2.0, 1.0))
    assert dominates((1.0, 2.0), (1.0, 3.0))


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_the_layers_of_the_front(seed: int) -> None:
    points = [tuple(map(float, point)) for point in np.random.default_rng(seed).integers(0, 6, (30, 2))]
    found = ranks(points)
    for one, rank in zip(points, found, strict=True):
        above = [other for other, r in zip(points, found, strict=True) if dominates(other, one) and r == rank - 1]
        same = [other for other, r in zip(points, found, strict=True) if dominates(other, one) and r == rank]
        assert not same
        assert rank == 0 or above


def test_equal_points_are_on_the_front_once_and_none_is_left_out() -> None:
    assert front([(1.0, 1.0), (1.0, 1.0), (2.0, 0.0)]) == [0, 2]
    assert front([]) == []
