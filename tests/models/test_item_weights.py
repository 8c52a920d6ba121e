"""Weights between items: known answers, and every item's ridge regression on all others by brute force."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from slimrank.config import InputError
from slimrank.models.item_weights import least_loss, met_together, weights_of_all, weights_of_some


@pytest.fixture
def met() -> np.ndarray:
    """Users by items; item 4 goes with items 0 and 1, and nobody met item 7."""
    draw = np.random.default_rng(0)
    found = (draw.random((60, 8)) < 0.3).astype(float)
    found[:, 4] = np.maximum(found[:, 0], found[:, 1])
    found[:, 7] = 0
    return found


def test_users_who_met_both_items_are_counted_once(met: np.ndarray) -> None:
    user, item = (np.tile(each, 2) for each in np.nonzero(met))
    assert np.array_equal(met_together(user * 1000 - 7, item, 8), met.T @ met)


def test_more_users_than_stand_side_by_side() -> None:
    draw = np.random.default_rng(1)
    found = (draw.random((5000, 3)) < 0.4).astype(float)
    assert np.array_equal(met_together(*np.nonzero(found), 3), found.T @ found)


def test_no_user_met_anything() -> None:
    nothing = np.zeros(0, np.int64)
    assert np.array_equal(met_together(nothing, nothing, 3), np.zeros((3, 3)))
    assert np.array_equal(weights_of_all(np.zeros((3, 3)), 1.0), np.zeros((3, 3)))


def test_two_items_by_hand() -> None:
    """Three users met both, one only the first: the ridge regression of one on the other is 3 / (n + l2)."""
    weights = weights_of_all(np.array([[4.0, 3.0], [3.0, 3.0]]), 2.0)
    np.testing.assert_allclose(weights, [[0.0, 3 / (4 + 2)], [3 / (3 + 2), 0.0]])


@pytest.mark.parametrize("l2", [0.01, 1.0, 50.0])
def test_every_item_is_a_ridge_regression_on_the_others(met: np.ndarray, l2: float) -> None:
    weights = weights_of_all(met.T @ met, l2)
    assert (np.diag(weights) == 0).all()
    for item in range(8):
        others = np.delete(np.arange(8), item)
        fitted = Ridge(alpha=l2, fit_intercept=False, solver="cholesky").fit(met[:, others], met[:, item])
        np.testing.assert_allclose(weights[others, item], fitted.coef_, atol=1e-8)


def test_an_item_that_nobody_met_has_no_weights(met: np.ndarray) -> None:
    weights = weights_of_all(met.T @ met, 1.0)
    assert (weights[7] == 0).all()
    assert (weights[:, 7] == 0).all()


def test_a_large_penalty_leaves_the_counts(met: np.ndarray) -> None:
    together = met.T @ met
    expected = together / 1e9
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(weights_of_all(together, 1e9), expected, atol=1e-14)


def test_items_met_by_the_same_users_alone_need_a_penalty() -> None:
    with pytest.raises(InputError, match="l2 is 1e-300: too small for these rows"):
        weights_of_all(np.full((2, 2), 3.0), 1e-300)
    with pytest.raises(InputError, match="raise it"):
        weights_of_some(np.full((3, 3), 3.0), 1e-300, np.ones((3, 3), bool))


@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_kept_weights_are_the_best_for_their_places(met: np.ndarray, l2: float) -> None:
    kept = np.random.default_rng(2).random((8, 8)) < 0.4
    weights = weights_of_some(met.T @ met, l2, kept)
    assert (weights[~kept] == 0).all()
    assert (np.diag(weights) == 0).all()
    for item in range(8):
        own = [each for each in np.flatnonzero(kept[:, item]) if each != item]
        if own:
            fitted = Ridge(alpha=l2, fit_intercept=False, solver="cholesky").fit(met[:, own], met[:, item])
            np.testing.assert_allclose(weights[own, item], fitted.coef_, atol=1e-8)


def test_all_weights_kept_are_all_weights(met: np.ndarray) -> None:
    together = met.T @ met
    kept = np.ones((8, 8), bool)
    np.testing.assert_allclose(weights_of_some(together, 3.0, kept), weights_of_all(together, 3.0), atol=1e-12)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_loss_is_what_its_definition_gives(met: np.ndarray, share: float) -> None:
    together = met.T @ met
    kept = np.random.default_rng(3).random((8, 8)) < share
    weights = weights_of_some(together, 2.0, kept)
    expected = np.square(met - met @ weights).sum() + 2.0 * np.square(weights).sum()
    assert least_loss(together, weights) == pytest.approx(expected)
