"""SASRec on MovieLens-1M: the next film among all 3,416, trained with cross-entropy over the whole catalogue.

The slim model is the teacher itself: films become codes of codebooks, positions 4 bits, layers integers of which half
are 0; then it is retrained on the teacher's soft labels over the catalogue.
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
    distillation={"soft_weight": 0.9},
    steps=(
        {"name": "codebook-tables", "parts": 16, "bits": 8, "only": ("history",)},
        {"name": "quantize-tables", "bits": 4, "only": ("position",)},
        {"name": "prune-weights", "sparsity": 0.5},
        {"name": "quantize-dense", "rows": 512},
    ),
    retraining=Training(epochs=12, batch_size=128, learning_rate=1e-3, patience=0, precision="bfloat16"),
)
