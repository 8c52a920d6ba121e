"""SASRec on MovieLens-1M: the next film among all 3,416, trained with cross-entropy over the whole catalogue.

The slim model is the teacher in an eighth of its bytes: frequent films in 4 bits a number, rare ones in 2, positions in
8, and the weights of its layers in 4. It is retrained without dropout on the teacher's softmax over all films: a model
of so few bits has no capacity to spare, and soft labels do not let it learn by heart.
"""

from slimrank import Distillation, Recipe, Training

recipe = Recipe(
    name="movielens-1m-sasrec",
    data="movielens-1m-sequences",
    seeds=(1, 2, 3),
    teacher={
        "model": {"name": "sasrec", "embedding_dim": 64, "heads": 2, "dropout": 0.2},
        "training": Training(epochs=50, batch_size=128, learning_rate=2e-3, patience=0, precision="bfloat16"),
    },
    student=None,
    distillation=Distillation(soft_weight=0.9),
    steps=(
        {"name": "quantize-tables", "bits": 8, "only": ("position",)},
        {"name": "quantize-dense", "rows": 512, "bits": 4},
        {"name": "mix-bits", "only": ("history",), "widths": (2, 4), "budget": 133_600},
    ),
    retraining=Training(epochs=16, batch_size=128, learning_rate=1e-3, patience=0, precision="bfloat16", dropout=False),
)
