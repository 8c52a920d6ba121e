"""The paired comparison: from arithmetic, against brute-force DeLong, and coverage by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from slimrank.config import InputError
from slimrank.evaluation.paired import Z_95, band_of_ids, compare, compare_slices, placements
from slimrank.metrics import auc


def two_models(generator, size, noise=0.5, levels=None):
    label = (np.arange(size) % 4 == 0).astype(np.float32)
    scores = generator.normal(size=(3, size)) * [[1.0], [noise], [noise]] + label * [[1.0], [0.2], [0.2]]
    a, b = scores[0] + scores[1], scores[0] + scores[2]
    return (label, a, b) if levels is None else (label, np.round(a * levels), np.round(b * levels))


def brute_force_variance(label, a, b):
    """DeLong's variance of AUC_b - AUC_a from the full matrix of pairs."""
    kernels = []
    for score in (a, b):
        gap = score[label == 1][:, None] - score[label == 0][None, :]
        kernels.append((gap > 0) + (gap == 0) / 2)
    change = kernels[1] - kernels[0]
    m, n = change.shape
    return change.mean(axis=1).var(ddof=1) / m + change.mean(axis=0).var(ddof=1) / n


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("size", [8, 60, 400])
def test_agrees_with_brute_force(size, levels):
    label, a, b = two_models(np.random.default_rng(size), size, levels=levels)
    found = compare(label, a, b)
    assert found.auc_a == pytest.approx(auc(label, a), abs=1e-14)
    assert found.auc_b == pytest.approx(auc(label, b), abs=1e-14)
    assert found.standard_error**2 == pytest.approx(brute_force_variance(label, a, b), rel=1e-9)


def test_interval_and_p_from_arithmetic():
    label, a, b = two_models(np.random.default_rng(0), 500)
    found = compare(label, a, b)
    assert found.difference == found.auc_b - found.auc_a
    assert norm.ppf(0.975) == pytest.approx(Z_95, rel=1e-14)
    assert found.high - found.low == pytest.approx(2 * Z_95 * found.standard_error)
    assert found.low + found.high == pytest.approx(2 * found.difference)
    assert found.p == pytest.approx(2 * norm.sf(abs(found.difference) / found.standard_error))


def test_a_worse_candidate_has_a_negative_difference():
    label, a, _ = two_models(np.random.default_rng(1), 2000)
    found = compare(label, a, np.random.default_rng(2).normal(size=2000))
    assert found.high < 0
    assert found.p < 1e-6
    mirrored = compare(label, np.random.default_rng(2).normal(size=2000), a)
    assert (mirrored.difference, mirrored.low) == (-found.difference, -found.high)


def test_the_same_ranking_has_no_difference_and_no_error():
    label, a, _ = two_models(np.random.default_rng(3), 200)
    found = compare(label, a, 2 * a + 1)
    assert (found.difference, found.standard_error, found.low, found.high, found.p) == (0, 0, 0, 0, 1)


def test_pairing_makes_the_interval_narrow():
    label, a, b = two_models(np.random.default_rng(4), 4000, noise=0.05)
    paired = compare(label, a, b).standard_error
    alone = compare(label, np.zeros(4000), a).standard_error
    assert paired < alone / 5


@pytest.mark.parametrize(("size", "noise"), [(120, 1.0), (400, 0.3)])
def test_95_of_100_intervals_hold_the_truth(size, noise):
    """Two models of equal quality, drawn 2000 times: 93% to 97% of the intervals hold 0."""
    generator = np.random.default_rng(size)
    found = [compare(*two_models(generator, size, noise)) for _ in range(2000)]
    held = sum(one.low <= 0 <= one.high for one in found) / len(found)
    assert 0.93 <= held <= 0.97
    spread = np.std([one.difference for one in found])
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.05)


def test_the_interval_holds_a_difference_that_is_known():
    """AUC of normals d apart is Phi(d / sqrt 2): the truth is Phi(1 / 2) - Phi(sqrt(1 / 2))."""
    generator, truth, held = np.random.default_rng(5), norm.cdf(0.5) - norm.cdf(math.sqrt(0.5)), 0
    label = np.arange(200) % 2
    for _ in range(1000):
        a = generator.normal(size=200) + label
        b = a + generator.normal(size=200)
        found = compare(label, a, b)
        held += found.low <= truth <= found.high
    assert 930 <= held <= 970


def test_the_mean_placement_of_either_class_is_the_auc():
    label, a, _ = two_models(np.random.default_rng(6), 300, levels=2)
    place = placements(label, a)
    assert place[label == 1].mean() == pytest.approx(auc(label, a), abs=1e-14)
    assert place[label == 0].mean() == pytest.approx(auc(label, a), abs=1e-14)


def test_infinite_scores_are_ordered():
    inf = float("inf")
    assert compare([1, 1, 0, 0], [inf, 0.0, -inf, 0.0], [inf, inf, -inf, inf]).auc_b == 3 / 4


@pytest.mark.parametrize(
    ("label", "a", "b", "message"),
    [
        ([], [], [], "no rows"),
        ([1, 0, 0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "got 1 positive, 2 negative"),
        ([1, 1], [1.0, 2.0], [1.0, 2.0], "got 2 positive, 0 negative"),
        ([1, 0], [1.0, 2.0], [1.0, float("nan")], "1 of 2 values are NaN"),
        ([1, 0], [1.0, 2.0], [1.0], "shapes"),
    ],
)
def test_bad_rows_are_refused(label, a, b, message):
    with pytest.raises(InputError, match=message):
        compare(label, a, b)


def test_bands_hold_their_share_of_the_training_rows():
    counts = np.array([9, 40, 20, 15, 10, 8, 4, 3, 0])
    band = band_of_ids(counts)
    assert band.tolist() == [2, 0, 0, 1, 1, 1, 2, 2, 2]
    assert counts[band == 0].sum() == 60  # of 100 known rows, and 40 alone would be less than half
    assert counts[1:][band[1:] <= 1].sum() == 93


def test_bands_do_not_depend_on_the_order_of_ids():
    counts = np.random.default_rng(8).zipf(1.5, 500)
    shuffled = np.concatenate([[0], 1 + np.random.default_rng(9).permutation(499)])
    for band in range(3):
        of = sorted(counts[1:][band_of_ids(counts)[1:] == band])
        assert of == sorted(counts[shuffled][1:][band_of_ids(counts[shuffled])[1:] == band])


def test_a_loss_that_hides_in_the_tail_is_found():
    generator = np.random.default_rng(10)
    counts = np.array([0, 1200, 900, *([2] * 100)])
    ids = np.concatenate([generator.integers(1, 3, 9000), generator.integers(3, 103, 1000)])
    label = generator.integers(0, 2, 10_000)
    a = generator.normal(size=10_000) + label
    b = np.where(ids > 2, generator.normal(size=10_000), a)
    head, torso, tail = compare_slices(label, a, b, ids, counts)
    assert [one.name for one in (head, torso, tail)] == ["head", "torso", "tail"]
    assert (head.rows, tail.rows, head.ids, torso.ids, tail.ids) == (9000 - (ids == 2).sum(), 1000, 1, 1, 101)
    assert head.comparison.difference == 0
    assert tail.comparison.high < -0.1
    assert head.positives + torso.positives + tail.positives == label.sum()


def test_a_slice_too_small_for_an_interval_is_kept_without_one():
    label, scores = [1, 0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0, 5.0]
    head, torso, tail = compare_slices(label, scores, scores, [1, 1, 1, 1, 2], [0, 10, 2])
    assert head.comparison is not None
    assert (torso.rows, torso.positives, torso.comparison) == (1, 1, None)
    assert (tail.rows, tail.comparison) == (0, None)


def test_bad_slices_are_refused():
    rows = [1, 0], [1.0, 2.0], [1.0, 2.0]
    with pytest.raises(InputError, match="0 to 2, got"):
        compare_slices(*rows, [0, 3], [1, 1, 1])
    with pytest.raises(InputError, match="0 < head <= torso"):
        band_of_ids([1, 2], (0.9, 0.5))
    with pytest.raises(InputError, match="negative count"):
        band_of_ids([1, -2])
