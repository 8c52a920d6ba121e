"""MovieLens-100K as of a day: the main job with smaller teachers, trained anew every day on one day of rows more.

    slimrank run recipes/movielens_100k_daily.py --out runs/day-1

The next day's recipe is the same with a later `train_until`, and starts from this run, so that a delta is small:

    recipe.model_copy(update={"data": until(DAY + 1), "stability": Stability(base="runs/day-1")})

Rows of `valid` and `test` are those of the main job, whatever the day. Chosen on the validation rows.
"""

from slimrank.data.datasets.movielens_100k import MovieLens100K
from slimrank.data.splits import Split
from slimrank.recipe import Recipe, Student, Teacher
from slimrank.training.loop import Training

DAY = 10_289  # since 1970: train has what was rated before 3 March 1998


def until(day: int) -> MovieLens100K:
    """The data whose train rows end where `day` begins."""
    return MovieLens100K(split=Split(kind="time", train_until=86_400 * day))


recipe = Recipe(
    name="movielens-100k-daily",
    data=until(DAY),
    teacher=Teacher(
        model={"name": "dcnv2", "hidden": (128, 128), "cross_layers": 2, "dropout": 0.3},
        training=Training(epochs=3, batch_size=1024, learning_rate=1e-3, l2=0.05, patience=0),
        seeds=(1, 2),
    ),
    student=Student(training=Training(epochs=4, batch_size=1024, learning_rate=2e-3, l2=0.05)),
)
