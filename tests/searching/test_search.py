"""The search: on figures that are known, and on real trials."""

from pathlib import Path

import pytest

import slimrank
from slimrank.config import InputError
from slimrank.recipe import Recipe, Student, Teacher
from slimrank.searching.goal import read_goal
from slimrank.searching.search import changed, search
from slimrank.training.loop import Training

SPACE = {"steps.0.bits": [2, 4, 8], "student.model.hidden": [[8], [16]]}


def size_and_loss(recipe: Recipe) -> dict[str, float]:
    """More bits and wider layers cost bytes and save AUC."""
    bits, width = recipe.steps[0].bits, recipe.student.model.hidden[0]
    return {"bytes": bits * 100.0 + width, "auc_drop": 0.01 / bits - width * 1e-5}


def test_the_smallest_that_meets_the_goal_is_found(tmp_path: Path) -> None:
    found = search(Recipe(), read_goal("auc_drop <= 0.0024"), SPACE, size_and_loss, tmp_path / "s.db")
    assert len(found.trials) == 6
    assert found.met
    assert found.best.changes == {"steps.0.bits": 4, "student.model.hidden": [16]}
    assert found.recipe.steps[0].bits == 4


def test_if_none_meets_it_the_nearest_is_found(tmp_path: Path) -> None:
    found = search(Recipe(), read_goal("auc_drop <= 0.0001"), SPACE, size_and_loss, tmp_path / "s.db")
    assert not found.met
    assert found.best.changes == {"steps.0.bits": 8, "student.model.hidden": [16]}


def test_a_killed_search_goes_on_with_the_trials_it_had(tmp_path: Path) -> None:
    tried: list[int] = []

    def dies_at_the_third(recipe: Recipe) -> dict[str, float]:
        if len(tried) == 2:
            raise KeyboardInterrupt
        tried.append(recipe.steps[0].bits)
        return size_and_loss(recipe)

    goal = read_goal("auc_drop <= 0.0024")
    with pytest.raises(KeyboardInterrupt):
        search(Recipe(), goal, SPACE, dies_at_the_third, tmp_path / "s.db")
    again: list[int] = []
    found = search(Recipe(), goal, SPACE, lambda recipe: again.append(1) or size_and_loss(recipe), tmp_path / "s.db")
    assert len(tried) == 2
    assert len(found.trials) == 6
    assert len(again) == 4
    assert found.best.changes == {"steps.0.bits": 4, "student.model.hidden": [16]}


def test_other_data_is_another_study_and_tuples_are_lists(tmp_path: Path) -> None:
    attempts: list[int] = []

    def counting(recipe: Recipe) -> dict[str, float]:
        attempts.append(1)
        return size_and_loss(recipe)

    space = {"student.model.hidden": [(8,), (16,)]}
    goal = read_goal("auc_drop <= 0.9")
    for fingerprint in ("a", "a", "b"):
        search(Recipe(), goal, space, counting, tmp_path / "s.db", fingerprint)
    assert len(attempts) == 2 + 0 + 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps.0.bit": 2}, "no 'bit' there. Did you mean 'bits'?"),
        ({"steps.7.bits": 2}, "no '7' there"),
        ({"steps.0.bits": 3}, "bits: Input should be 1, 2, 4, 8 or 32, got 3"),
        ({"studen.model": 2}, "no 'studen' there. Did you mean 'student'?"),
    ],
)
def test_keys_and_values_that_are_not_the_recipes_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as error:
        changed(Recipe(), changes)
    assert words in str(error.value)


@pytest.mark.long
def test_real_trials_share_their_teacher(tmp_path: Path) -> None:
    once = Training(epochs=1, batch_size=256)
    recipe = Recipe(
        name="small",
        data={"name": "synthetic", "rows": 3000, "fields": 3, "ids": 50},
        teacher=Teacher(model={"name": "dcnv2", "embedding_dim": 8, "hidden": (16,)}, training=once),
        student=Student(model={"name": "dnn", "embedding_dim": 8, "hidden": (8,)}, training=once),
        retraining=None,
    )
    found = slimrank.search(recipe, "bytes <= 1 MB, auc_drop <= 0.9", {"steps.0.bits": [2, 8]}, tmp_path / "run")
    assert found.met
    assert found.recipe.steps[0].bits == 2
    assert [path.name for path in (tmp_path / "run").glob("teacher-*")] == ["teacher-1"]
