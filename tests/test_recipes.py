"""Recipes: TOML, JSON and Python say the same, and every one that ships can be planned."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from slimrank.config import InputError
from slimrank.pipeline.plan import plan
from slimrank.recipe import Recipe, read_recipe

FOLDER = Path(__file__).parent.parent / "recipes"
RECIPES = sorted(path for path in FOLDER.glob("*.*") if path.suffix == ".toml" or "\nrecipe = " in path.read_text())
FRAPPE = """
name = "frappe"
seeds = [1, 2, 3]
data = "frappe"
steps = [{ name = "quantize-tables", bits = 4 }, "quantize-dense"]

[teacher]
seeds = [1, 2, 3]
[teacher.model]
name = "dcnv2"
embedding_dim = 10
cross_layers = 3
hidden = [400, 400, 400]
dropout = 0.2
batch_norm = true
[teacher.training]
epochs = 14
batch_size = 4096
learning_rate = 3e-3
l2 = 0.05
l2_of = "rows"
patience = 0
precision = "auto"

[student]
min_field_importance = 0.001
[student.model]
name = "dnn"
embedding_dim = 16
hidden = [64, 32]
[student.training]
epochs = 15
batch_size = 1024
learning_rate = 3e-3
l2 = 0.05
patience = 0

[distillation]
soft_weight = 0.9
temperature = 1.0

[retraining]
epochs = 6
batch_size = 1024
learning_rate = 2e-3
l2 = 0.05
patience = 0
"""


def test_toml_and_python_say_the_same() -> None:
    assert Recipe.parse(tomllib.loads(FRAPPE)) == read_recipe(FOLDER / "frappe.py")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes_survive_json(path: Path) -> None:
    recipe = read_recipe(path)
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe
    assert Recipe.parse(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize("path", [*RECIPES, None], ids=lambda path: path.name if path else "the main job")
def test_recipes_can_be_planned(path: Path | None, tmp_path: Path) -> None:
    recipe = read_recipe(path)
    try:
        lines = plan(recipe, tmp_path / "run")
    except InputError as error:
        if "not found" not in str(error):
            raise
        pytest.skip(f"the data is not here: {error}")
    assert f"{recipe.data.name}" in lines
    assert not (tmp_path / "run").exists()


def test_no_recipe_is_the_main_job() -> None:
    assert read_recipe(None) == Recipe()
    assert Recipe().data.name == "movielens-100k"
    assert Recipe().teacher.model.name == "dcnv2"


def test_changes_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('name = "a"\nseeds = [4]')
    assert read_recipe(tmp_path / "r.toml", seeds=(7, 8)).seeds == (7, 8)
    assert read_recipe(tmp_path / "r.toml", seeds=(7, 8)).name == "a"
    changed = read_recipe(FOLDER / "frappe.py", seeds=(9,))
    assert changed == read_recipe(FOLDER / "frappe.py").model_copy(update={"seeds": (9,)})


@pytest.mark.parametrize(
    ("seed", "of", "teachers"),
    [(1, (), (1,)), (5, (), (5,)), (2, (1, 2, 3), (2, 1, 3)), (7, (1, 2), (1, 2)), (1, (1,), (1,))],
)
def test_the_first_teacher_is_the_one_of_the_own_seed(seed, of, teachers) -> None:
    assert Recipe.parse({"teacher": {"seeds": of}}).teacher_seeds(seed) == teachers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nme = 'x'", "recipe.toml: unknown key 'nme'. Did you mean 'name'? Allowed: data, distillation, index, "),
        ("[student]\nmodle = 'dnn'", "unknown key 'student.modle'. Did you mean 'model'? Allowed: fields, "),
        ("[retraining]\nepoch = 3", "unknown key 'retraining.epoch'. Did you mean 'epochs'? Allowed: batch_size"),
        ("[teacher.training]\npatince = 3", "unknown key 'teacher.training.patince'. Did you mean 'patience'?"),
        (
            "steps = ['quantise-tables']",
            "unknown step 'quantise-tables'. Did you mean 'quantize-tables'? Allowed: ",
        ),
        (
            "steps = [{bits = 3, name = 'quantize-tables'}]",
            "quantize-tables: bits: Input should be 1, 2, 4, 8 or 32, got 3",
        ),
        ("[teacher]\nmodel = 'dcnv3'", "unknown model 'dcnv3'. Did you mean 'dcnv2'? Allowed: cross-encoder, dcnv2"),
        (
            "data = 'frapp'",
            "unknown dataset 'frapp'. Did you mean 'frappe'? Allowed: amazon-beauty, amazon-beauty-sequences, avazu, ",
        ),
        ("target = 'onx'", "unknown target 'onx'. Did you mean 'onnx'? Allowed: onnx."),
        ("seeds = [1, 1]", "seeds must differ, got [1, 1]"),
        ("seeds = []", "seeds: Tuple should have at least 1 item"),
        ("seeds = [1.5]", "seeds.0: Input should be a valid integer"),
        ("name = '../up'", "name: String should match pattern"),
        ("[distillation]\ntemperature = 0", "distillation.temperature: Input should be greater than 0, got 0"),
        ("[retraining]\nlearning_rate = inf", "retraining.learning_rate: Input should be a finite number, got inf"),
        ("name = ", "not a TOML file: "),
    ],
)
def test_what_is_wrong_and_what_is_allowed(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_all_faults_at_once(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("nme = 'x'\nthreads = -1\n[student]\nwarm = true")
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.py", "import slimrank.recipe as r\nrecipe = r.Recipe(nme='x')", "unknown key 'nme'. Did you mean 'name'?"),
        (
            "r.py",
            "from slimrank.compression.quantize_tables import QuantizeTables\nQuantizeTables(bit=4)",
            "unknown key 'bit'. Did you mean 'bits'? Allowed: bits, budget, learned, levels, name",
        ),
        ("r.py", "recipe = {}", "has no variable `recipe` that is a slimrank.Recipe"),
        ("r.py", None, "no such file"),
        ("r.toml", None, "no such file"),
        ("r.yaml", "name: x", "a recipe is a .toml, .json or .py file"),
    ],
)
def test_files_that_are_no_recipe(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        read_recipe(tmp_path / name)
    assert message in str(caught.value)
    assert name in str(caught.value)
