"""EASE on MovieLens-1M: a linear model of films in closed form, and its few weights that matter.

Pruning is the right compression here: the table of 3,416 x 3,416 weights keeps those that validation cannot do without,
and finds them again. There is no loop, so there is nothing to distil or to retrain.
"""

from slimrank import Recipe

recipe = Recipe(
    name="movielens-1m-ease",
    data={"name": "movielens-1m-sequences", "max_length": 2304},  # no history is longer
    teacher={"model": {"name": "ease", "l2": 100.0}},
    student=None,
    distillation=None,
    steps=({"name": "prune-neighbours", "max_drop": 0.01},),
    retraining=None,
)
