"""Two towers on MovieLens-100K: a user, their attributes and last films in one, a film in the other, all films ranked.

Trained against the other films of a batch and evenly drawn ones, with the correction for popularity; the slim model is
the same with tables in 4 bits and layers in integers, trained on for an epoch.
"""

from slimrank import Recipe, Training

LOSS = {"name": "in-batch-softmax", "negatives": 256, "temperature": 0.1}

recipe = Recipe(
    name="movielens-100k-two-tower",
    data={"name": "movielens-100k-queries", "split": "leave-one-out"},
    seeds=(1, 2, 3),
    teacher={
        "model": {"name": "two-tower", "embedding_dim": 32, "hidden": (64,), "item_hidden": (64,), "vector_dim": 32},
        "training": Training(epochs=6, batch_size=512, learning_rate=3e-3, patience=0, loss=LOSS),
    },
    student=None,
    distillation=None,
    steps=({"name": "quantize-tables", "bits": 4}, "quantize-dense"),
    retraining=Training(epochs=1, batch_size=512, learning_rate=5e-4, patience=0, loss=LOSS),
)
