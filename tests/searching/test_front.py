"""Ranks, fronts and hypervolumes against counting and an independent implementation."""

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume

from slimrank.searching.front import dominates, front, hypervolume, ranks


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


@pytest.mark.parametrize("seed", range(5))
def test_the_hypervolume_is_that_of_a_reference(seed: int) -> None:
    points = np.random.default_rng(seed).random((20, 2)) * 2
    reference = np.array([1.5, 1.2])
    inside = points[(points < reference).all(axis=1)]
    expected = compute_hypervolume(inside, reference)
    assert hypervolume([tuple(point) for point in points], tuple(reference)) == pytest.approx(expected)
