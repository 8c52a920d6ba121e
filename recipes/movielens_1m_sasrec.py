"""SASRec on MovieLens-1M: the next film among all 3,416, trained with cross-entropy over the whole catalogue.

The slim model is the teacher itself, its films and positions in 4 bits and its layers in integers, retrained on the
teacher's list-wise soft labels.
"""

from slimrank import Recipe, Training

recipe = Recipe(
    name="movielens-1m-sasrec",
    data="movielens-1m-sequences",
    seeds=(1, 2, 3),
    teacher={
        "model": {"name": "sasrec", "embedding_dim": 64, "heads": 2, "dropout": 0.2},
        "training": Training(epochs=60, batch_size=128, learning_rate=2e-3, patience=10),
    },
    student=None,
    distillation={"soft_weight": 0.7},
    steps=({"name": "quantize-tables", "bits": 4}, "quantize-dense"),
    retraining=Training(epochs=6, batch_size=128, learning_rate=5e-4, patience=0),
)
