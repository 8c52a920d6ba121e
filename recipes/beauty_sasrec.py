"""SASRec on Amazon Beauty: the next product among the 49,437 that train met, their table in 4 bits without retraining.

Codes of parts lose far more here, before and after retraining (docs/log.md, "Sequences").
"""

from slimrank import Recipe, Training

recipe = Recipe(
    name="beauty-sasrec",
    data="amazon-beauty-sequences",
    seeds=(1, 2, 3),
    teacher={
        "model": {"name": "sasrec", "embedding_dim": 64, "heads": 2, "dropout": 0.5},
        "training": Training(
            epochs=20,
            batch_size=256,
            learning_rate=1e-3,
            patience=0,
            precision="bfloat16",
            loss={"name": "catalogue-softmax", "negatives": 2048},
        ),
    },
    student=None,
    distillation=None,
    steps=({"name": "quantize-tables", "bits": 4, "only": ("history",)}, "compensate-rounding", "quantize-dense"),
    retraining=None,
)
