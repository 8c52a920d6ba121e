"""Calibration: from arithmetic, and against scikit-learn and a loop."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve as theirs

from slimrank.config import InputError
from slimrank.evaluation.calibration import calibration_curve, ece, field_ece
from slimrank.metrics import sigmoid


def rows(size=5000, shift=0.5):
    draw = np.random.default_rng(size)
    logit = draw.normal(-1, 1.5, size)
    return (draw.random(size) < sigmoid(logit + shift)).astype(int), logit


def test_equally_wide_bins_agree_with_scikit_learn():
    label, logit = rows()
    found = calibration_curve(label, logit, 10, equal_rows=False)
    observed, predicted = theirs(label, sigmoid(logit), n_bins=10)
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)


def test_bins_of_equal_rows_agree_with_scikit_learn():
    label, logit = rows()
    found = calibration_curve(label, logit, 10)
    observed, predicted = theirs(label, sigmoid(logit), n_bins=10, strategy="quantile")
    np.testing.assert_allclose(found.predicted, predicted, atol=2e-3)  # the edges lie between rows, theirs on one
    np.testing.assert_allclose(found.observed, observed, atol=5e-3)
    assert found.rows.tolist() == [500] * 10


def test_rows_of_one_score_stay_together():
    assert calibration_curve([1, 0, 1, 0], [0.0] * 4, 3).rows.tolist() == [4]


@pytest.mark.parametrize("equal_rows", [False, True])
def test_ece_is_the_mean_gap_of_a_rows_bin(equal_rows):
    label, logit = rows()
    curve = calibration_curve(label, logit, equal_rows=equal_rows)
    expected = sum(
        count * abs(p - y) for p, y, count in zip(curve.predicted, curve.observed, curve.rows, strict=True)
    ) / len(label)
    assert ece(label, logit, equal_rows=equal_rows) == pytest.approx(expected)


def test_ece_finds_a_shift_and_not_the_truth():
    label, logit = rows(100_000)
    assert ece(label, logit + 0.5) < 0.01
    assert ece(label, logit) > 0.05


def test_field_ece_agrees_with_a_loop():
    label, logit = rows()
    field = np.random.default_rng(1).integers(0, 30, len(label)).astype(str)
    gaps = [abs((label - sigmoid(logit))[field == name].sum()) for name in np.unique(field)]
    assert field_ece(label, logit, field) == pytest.approx(sum(gaps) / len(label))


def test_errors_that_cancel_overall_show_within_a_field():
    label = np.array([1, 1, 0, 0])
    assert ece(label, np.zeros(4)) == 0
    assert field_ece(label, np.zeros(4), [0, 0, 1, 1]) == 0.5


def test_a_weight_of_two_is_the_row_twice():
    label, logit = rows(200)
    weight = np.arange(200) % 3
    twice = np.repeat(label, weight), np.repeat(logit, weight)
    field = np.arange(200) % 7
    assert ece(label, logit, weight=weight) == pytest.approx(ece(*twice))
    assert ece(label, logit, weight=weight, equal_rows=True) == pytest.approx(ece(*twice, equal_rows=True))
    assert field_ece(label, logit, field, weight) == pytest.approx(field_ece(*twice, np.repeat(field, weight)))


def test_extreme_logits_are_certain():
    curve = calibration_curve([1, 0], [float("inf"), -float("inf")], 4, equal_rows=False)
    assert curve.predicted.tolist() == [0, 1]
    assert ece([1, 0], [float("inf"), -float("inf")]) == 0


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="bins: got 0"):
        ece([1, 0], [0.0, 1.0], 0)
    with pytest.raises(InputError, match="one group"):
        field_ece([1, 0], [0.0, 1.0], [1])
    with pytest.raises(InputError, match="NaN"):
        ece([1, 0], [0.0, float("nan")])
