"""A SASRec for MovieLens-1M that others trained (pmixer/SASRec.pytorch), and a student of 70 KB in its place.

The teacher's weights are read from `ml-1m-sasrec/sasrec-ep1000.safetensors` where the data is. It was trained with one
negative for each item; the student learns from the whole catalogue, and with a table of half the width it ranks better.
"""

from slimrank import Recipe, Training

recipe = Recipe(
    name="movielens-1m-checkpoint-student",
    data="movielens-1m-sequences",
    seeds=(1, 2, 3),
    teacher={
        "model": {"name": "sasrec", "embedding_dim": 50, "dropout": 0.2, "padding_keys": True},
        "checkpoint": "ml-1m-sasrec/sasrec-ep1000.safetensors",
        "seeds": (1,),
    },
    student={
        "model": {"name": "sasrec", "embedding_dim": 28, "dropout": 0.1},
        "training": Training(epochs=12, batch_size=64, learning_rate=3e-3, patience=0),
        "warm_start": False,
        "min_field_importance": 0,
    },
    distillation=None,
    steps=(
        {"name": "quantize-tables", "bits": 4, "only": ("history",)},
        {"name": "quantize-tables", "bits": 8, "only": ("position",)},
        {"name": "quantize-dense", "rows": 512},
    ),
    retraining=Training(epochs=2, batch_size=64, learning_rate=5e-4, patience=0),
)
