"""Histograms of probabilities and their stability index: from arithmetic, at the edges, and in its statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import entropy

from slimrank.config import InputError
from slimrank.metrics.drift import BINS, COUNT, histogram, population_stability_index


def test_every_edge_begins_its_bin() -> None:
    assert histogram(BINS).tolist() == [1] * COUNT
    assert histogram([1.0]).tolist() == [0] * (COUNT - 1) + [1]
    below = np.nextafter(np.array(BINS[1:]), 0)
    assert histogram(below).tolist() == [1] * (COUNT - 1) + [0]
    edges = np.array(BINS[1:])
    np.testing.assert_allclose(np.log(edges / (1 - edges)), np.linspace(-9.5, 9.5, 39), atol=1e-10)


def test_counts_are_those_of_numpy() -> None:
    drawn = np.random.default_rng(0).beta(1, 5, 10_000).astype(np.float32)
    assert histogram(drawn).tolist() == np.histogram(drawn.astype(np.float64), [*BINS, 1.0])[0].tolist()
    assert histogram([]).tolist() == [0] * COUNT


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan, math.inf])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(InputError, match=rf"probability: got {wrong:g} \(1 of 2 are wrong\), allowed 0..1"):
        histogram([0.5, wrong])


def test_the_index_is_that_of_the_formula() -> None:
    """Shares with 1/2 more in each bin: 1.5/5, 3.5/5 now, and 3/5, 2/5 then."""
    p, q = (1.5 / 5, 3.5 / 5), (2.5 / 4, 1.5 / 4)
    expected = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert population_stability_index([2, 1], [1, 3]) == pytest.approx(expected)


def test_it_is_the_sum_of_both_divergences() -> None:
    draw = np.random.default_rng(1)
    one, other = draw.integers(0, 50, COUNT), draw.integers(0, 50, COUNT)
    expected = entropy(one + 0.5, other + 0.5) + entropy(other + 0.5, one + 0.5)
    assert population_stability_index(one, other) == pytest.approx(expected)
    assert population_stability_index(other, one) == pytest.approx(expected)


def test_the_same_shares_have_none_and_empty_bins_are_no_infinity() -> None:
    assert population_stability_index([3, 0, 5], [3, 0, 5]) == 0
    assert 1 < population_stability_index([100, 0], [0, 100]) < 20
    assert population_stability_index([0, 0], [0, 0]) == 0
    assert population_stability_index([1e9, 3e9], [0, 0]) > 0


def test_without_a_drift_its_mean_is_that_of_chance() -> None:
    """(B - 1) (1 / n + 1 / m) of scores from one distribution that fills all bins."""
    draw = np.random.default_rng(2)
    n, m = 4_000, 2_000
    found = [
        population_stability_index(*(histogram(expit(draw.uniform(-10, 10, size))) for size in (n, m)))
        for _ in range(300)
    ]
    assert np.mean(found) == pytest.approx((COUNT - 1) * (1 / n + 1 / m), rel=0.06)


SHIFTS = {
    "of a third": ((2, 8), (3, 7)),
    "of rare clicks, three times as many": ((4, 602), (4, 199)),  # their means: 0.66% and 1.97%
    "of one in ten thousand, three times as many": ((2, 20_000), (2, 6_700)),
    "around one half": ((10, 12), (12, 10)),
    "of near certainty": ((196, 1.3), (64.7, 1.3)),
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_is_seen(shift: str) -> None:
    """Above 0.25, which is a shift; and what does not move is not one."""
    draw = np.random.default_rng(3)
    before, after = SHIFTS[shift]
    then, still, now = (histogram(draw.beta(*shape, 20_000)) for shape in (before, before, after))
    assert population_stability_index(then, now) > 0.25
    assert population_stability_index(then, still) < 0.01


BAD = {
    "lengths": ([1, 2], [1, 2, 3], "histograms of 2 and 3 bins cannot be compared"),
    "empty": ([], [1], r"expected: got an array \[0\], a histogram is counts \[bins\]"),
    "a table": ([[1, 2]], [1, 2], r"expected: got an array \[1, 2\]"),
    "negative": ([1, 2], [1, -2], r"found: got \[1.0, -2.0\], counts are at least 0"),
    "no number": ([1, math.nan], [1, 2], r"expected: got \[1.0, nan\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_histogram_is_refused(case: str) -> None:
    expected, found, message = BAD[case]
    with pytest.raises(InputError, match=message):
        population_stability_index(expected, found)
