"""The arithmetic of the benchmarks, against an independent implementation."""

import numpy as np
import pytest
from bench.search_front import hypervolume
from optuna._hypervolume import compute_hypervolume


@pytest.mark.parametrize("seed", range(5))
def test_the_hypervolume_is_that_of_a_reference(seed: int) -> None:
    points = np.random.default_rng(seed).random((20, 2)) * 2
    reference = np.array([1.5, 1.2])
    inside = points[(points < reference).all(axis=1)]
    expected = compute_hypervolume(inside, reference)
    assert hypervolume([tuple(point) for point in points], tuple(reference)) == pytest.approx(expected)
