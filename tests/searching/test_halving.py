"""Successive halving: shares of epochs, and who goes on."""

import pytest

from slimrank.recipe import Recipe
from slimrank.searching.halving import SHARES, at_share, promoted, shares


def test_a_share_is_of_the_student_and_of_the_retraining_and_at_least_one_epoch() -> None:
    recipe = Recipe()
    small = at_share(recipe, 1 / 9)
    assert small.student.training.epochs == 1
    assert small.retraining.epochs == 1
    assert at_share(recipe, 1.0) == recipe
    assert small.teacher == recipe.teacher


def test_shares_that_train_the_same_are_one() -> None:
    assert shares(Recipe()) == SHARES
    short = Recipe(student={**Recipe().student.model_dump(), "training": {"epochs": 1}}, retraining={"epochs": 1})
    assert shares(short) == (1.0,)
    assert shares(Recipe(student=None, retraining=None)) == (1.0,)


def test_the_first_go_on_and_then_those_on_the_front() -> None:
    assert promoted((9.0, 9.0), [(1.0, 1.0), (2.0, 2.0)])
    crowd = [(float(n), float(n)) for n in range(1, 9)]
    assert promoted((0.0, 99.0), crowd)
    assert not promoted((9.0, 9.0), crowd)


@pytest.mark.parametrize(("own", "goes_on"), [(1.5, True), (2.5, True), (3.5, False)])
def test_a_third_goes_on(own: float, goes_on: bool) -> None:
    crowd = [(float(n), float(n)) for n in range(1, 7)]
    assert promoted((own, own), crowd) is goes_on
