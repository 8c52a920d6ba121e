"""Spaces: a user's own keys, and the one made from a first look, every choice of which is a recipe."""

import random

import optuna
import pytest

from slimrank.config import InputError
from slimrank.recipe import Recipe
from slimrank.searching.automatic import Sensitivity, automatic_space
from slimrank.searching.space import changed, named_space

FOUND = Sensitivity(
    fields={"user": 0.2, "item": 0.3, "hour": 0.002, "noise": -0.001},
    tables={
        "user": {1: 0.02, 2: 0.002, 4: 0.0, 8: 0.0},
        "item": {1: 0.3, 2: 0.02, 4: 0.0005, 8: 0.0},
        "hour": {1: 0.0, 2: 0.0, 4: 0.0, 8: 0.0},
        "noise": {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0},
    },
    layers={"mlp.0": {0.3: 0.0, 0.5: 0.004, 0.7: 0.03}, "out": {0.3: 0.001, 0.5: 0.001, 0.7: 0.001}},
    bytes=2_000_000,
)


def test_few_combinations_are_all_tried_in_order() -> None:
    space = named_space(Recipe(), {"steps.0.bits": [2, 4], "student.model.hidden": [(8,), (16, 8)]})
    assert [space.changes(start) for start in space.starts] == [
        {"steps.0.bits": bits, "student.model.hidden": hidden} for bits in (2, 4) for hidden in ([8], [16, 8])
    ]
    assert space.settings["steps.0.bits"].ordered
    assert not space.settings["student.model.hidden"].ordered
    assert space.combinations == 4


def test_many_are_left_to_the_study() -> None:
    space = named_space(
        Recipe(), {"student.training.epochs": list(range(1, 12)), "retraining.epochs": list(range(1, 12))}
    )
    assert space.starts == ()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"steps.0.bit": [2]}, "no 'bit' there. Did you mean 'bits'?"),
        ({"steps.7.bits": [2]}, "no '7' there"),
        ({"steps.0.bits": [3]}, "bits: Input should be 1, 2, 4, 8 or 32, got 3"),
        ({"studen.model": [2]}, "no 'studen' there. Did you mean 'student'?"),
        ({"steps.0.bits": []}, "'steps.0.bits' has no values"),
        ({"teacher.training.epochs": [1, 2]}, "'teacher.training.epochs' is shared by all trials"),
        ({"seeds": [[1], [2]]}, "Allowed: distillation, retraining, steps, student"),
    ],
)
def test_keys_and_values_that_are_not_the_recipes_are_refused(space: dict[str, list[object]], words: str) -> None:
    with pytest.raises(InputError) as error:
        named_space(Recipe(), space)
    assert words in str(error.value)


@pytest.mark.parametrize("student", [True, False])
def test_every_choice_is_a_recipe(student: bool) -> None:
    recipe = Recipe() if student else Recipe(student=None)
    space = automatic_space(recipe, FOUND)
    draw = random.Random(0)
    made = set()
    for _ in range(300):
        chosen = {name: draw.choice(each.values) for name, each in space.settings.items()}
        made.add(repr(changed(recipe, space.changes(chosen)).steps))
    assert len(made) > 100
    names = {part.split("name='")[1].split("'")[0] for text in made for part in text.split("), ") if "name='" in part}
    assert {"threshold-rows", "reduce-dimensions", "quantize-tables", "mix-bits", "codebook-tables"} <= names
    assert {"hash-tables", "prune-weights", "quantize-dense"} <= names


def test_what_a_kind_has_no_use_for_is_not_asked_about() -> None:
    space = automatic_space(Recipe(), FOUND)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = set()
    for _ in range(60):
        trial = study.ask()
        space.suggest(trial)
        kind = trial.params["tables"]
        asked.add((kind, *sorted({"bits", "tolerance", "times"} & set(trial.params))))
    assert asked == {
        ('"scaled"', "bits"),
        ('"by sensitivity"', "tolerance"),
        *((f'"{kind}"', "times") for kind in ("mixed", "codebook", "hashed")),
    }


def test_starts_are_different_recipes_from_large_to_small() -> None:
    space = automatic_space(Recipe(), FOUND)
    recipes = [changed(Recipe(), space.changes(start)) for start in space.starts]
    assert len({repr(recipe) for recipe in recipes}) == len(recipes) >= 5
    dims = [recipe.student.model.embedding_dim for recipe in recipes]
    assert dims == sorted(dims, reverse=True)
    for start in space.starts:
        assert space.parameters(start).keys() == space.settings.keys()


def test_fields_are_nested_by_importance_and_useless_ones_never_read() -> None:
    kept = automatic_space(Recipe(), FOUND).settings["fields"].values
    assert kept == (["user", "item"], ["user", "item", "hour"])


def test_fields_that_the_recipe_names_stay() -> None:
    recipe = changed(Recipe(), {"student.fields": ["item"]})
    assert automatic_space(recipe, FOUND).settings["fields"].values == (["item"],)


def test_bits_by_sensitivity_are_the_fewest_within_the_tolerance() -> None:
    assert FOUND.bits(0.003) == {1: ["hour"], 2: ["user"], 4: ["item"], 8: ["noise"]}


def test_sparsities_that_cost_too_much_are_not_tried() -> None:
    assert FOUND.sparsities() == (0.3, 0.5)
    assert automatic_space(Recipe(), FOUND).settings["sparsity"].values == (0.0, 0.3, 0.5)


def test_a_sensitivity_is_read_as_it_was_written() -> None:
    assert Sensitivity.of(FOUND.record()) == FOUND


def test_the_order_of_steps_is_a_setting() -> None:
    space = automatic_space(Recipe(), FOUND)
    chosen = {**space.starts[0], "min_count": 2, "rank": 4, "sparsity": 0.3}
    orders = {
        tuple(step["name"] for step in space.changes({**chosen, "order": order})["steps"])
        for order in space.settings["order"].values
    }
    assert len(orders) == 3
    assert all(order[-2:] == ("quantize-tables", "quantize-dense") for order in orders)
