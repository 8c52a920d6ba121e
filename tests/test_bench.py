"""The arithmetic of the benchmarks, against an independent implementation."""

import numpy as np
import pytest
from bench.mq2008 import letor
from bench.search_front import hypervolume
from optuna._hypervolume import compute_hypervolume

from slimrank.data.encoding import Inputs
from slimrank.data.rows import Rows


@pytest.mark.parametrize("seed", range(5))
def test_the_hypervolume_is_that_of_a_reference(seed: int) -> None:
    points = np.random.default_rng(seed).random((20, 2)) * 2
    reference = np.array([1.5, 1.2])
    inside = points[(points < reference).all(axis=1)]
    expected = compute_hypervolume(inside, reference)
    assert hypervolume([tuple(point) for point in points], tuple(reference)) == pytest.approx(expected)


def test_letor_counts_as_its_script_does() -> None:
    """Query 1 has 11 documents, a 2 at rank 2 and a 1 at rank 11; query 2 has 3, the second relevant; query 3 none."""
    grade = [0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0]
    query = np.array([1] * 11 + [2] * 3 + [3])
    score = -np.arange(15.0)
    rows = Rows(Inputs(np.zeros((15, 0), np.int32), np.zeros((15, 0), np.float32)), np.array(grade, np.float32), query)
    found = letor(rows, score)
    assert found["ndcg@10"] == pytest.approx((3 / (3 + 1) + 0 + 0) / 3)
    assert found["map"] == pytest.approx(((1 / 2 + 2 / 11) / 2 + 1 / 2 + 0) / 3)
