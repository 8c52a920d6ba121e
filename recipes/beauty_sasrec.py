"""SASRec on Amazon Beauty: the next product among 49,437; their table becomes codes, 59 times smaller."""

from slimrank import Recipe, Training

recipe = Recipe(
    name="beauty-sasrec",
    data="amazon-beauty-sequences",
    seeds=(1, 2, 3),
    teacher={
        "model": {"name": "sasrec", "embedding_dim": 64, "heads": 2, "dropout": 0.5},
        "training": Training(epochs=20, batch_size=256, learning_rate=1e-3, patience=0, precision="bfloat16"),
    },
    student=None,
    distillation={"soft_weight": 0.5},
    steps=({"name": "codebook-tables", "parts": 4, "bits": 8, "only": ("history",)}, {"name": "quantize-dense"}),
    retraining=Training(epochs=8, batch_size=256, learning_rate=1e-3, patience=0, precision="bfloat16"),
)
