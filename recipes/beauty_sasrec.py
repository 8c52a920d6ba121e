"""SASRec on Amazon Beauty: the next product among the 49,437 that train met, their table as codes in 1/32 of its bytes.

Products have 8 bits a number down to none by how often people met them: the rarest share one vector. Retrained on the
teacher's soft labels of drawn products. Codes of parts lose far more, before and after retraining (docs/log.md,
"Sequences").
"""

from slimrank import Distillation, Recipe, Training

recipe = Recipe(
    name="beauty-sasrec",
    data="amazon-beauty-sequences",
    seeds=(1, 2, 3),
    teacher={
        "model": {"name": "sasrec", "embedding_dim": 64, "heads": 2, "dropout": 0.5},
        "training": Training(epochs=20, batch_size=256, learning_rate=1e-3, patience=0, precision="bfloat16"),
    },
    student=None,
    distillation=Distillation(soft_weight=0.5),
    steps=(
        {"name": "quantize-tables", "bits": 8, "only": ("position",)},
        "quantize-dense",
        {"name": "mix-bits", "only": ("history",), "budget": "440 KB"},
    ),
    retraining=Training(
        epochs=10,
        batch_size=256,
        learning_rate=1e-3,
        patience=0,
        precision="bfloat16",
        loss={"name": "catalogue-softmax", "negatives": 2048},
    ),
)
