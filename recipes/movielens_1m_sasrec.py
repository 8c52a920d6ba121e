"""SASRec on MovieLens-1M: the next film among all 3,416, trained with cross-entropy over the whole catalogue.

The slim model is the teacher itself without any further training: films keep 4 bits a number, positions 8, and layers
become integers.
"""

from slimrank import Recipe, Training

recipe = Recipe(
    name="movielens-1m-sasrec",
    data="movielens-1m-sequences",
    seeds=(1, 2, 3),
    teacher={
        "model": {"name": "sasrec", "embedding_dim": 64, "heads": 2, "dropout": 0.2},
        "training": Training(epochs=50, batch_size=128, learning_rate=2e-3, patience=0, precision="bfloat16"),
    },
    student=None,
    distillation=None,
    steps=(
        {"name": "quantize-tables", "bits": 4, "only": ("history",)},
        "compensate-rounding",
        {"name": "quantize-tables", "bits": 8, "only": ("position",)},
        {"name": "quantize-dense", "rows": 512},
    ),
    retraining=None,
)
