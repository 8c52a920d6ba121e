"""A SASRec for MovieLens-1M that others trained (pmixer/SASRec.pytorch), compressed and fine-tuned to 70 KB.

Its weights are read from `ml-1m-sasrec/sasrec-ep1000.safetensors` where the data is. Films become 10 codes of 4 bits.
"""

from slimrank import Recipe, Training

recipe = Recipe(
    name="movielens-1m-checkpoint",
    data="movielens-1m-sequences",
    seeds=(1, 2, 3),
    teacher={
        "model": {"name": "sasrec", "embedding_dim": 50, "dropout": 0.2, "padding_keys": True},
        "checkpoint": "ml-1m-sasrec/sasrec-ep1000.safetensors",
        "seeds": (1,),
    },
    student=None,
    distillation=None,
    steps=(
        {"name": "codebook-tables", "parts": 10, "bits": 4, "only": ("history",)},
        {"name": "quantize-tables", "bits": 8, "only": ("position",)},
        {"name": "quantize-dense", "rows": 512},
    ),
    retraining=Training(epochs=12, batch_size=128, learning_rate=1e-3, patience=0, precision="bfloat16"),
)
