"""A SASRec for MovieLens-1M that others trained (pmixer/SASRec.pytorch), compressed to 130 KB without any training.

Its weights are read from `ml-1m-sasrec/sasrec-ep1000.safetensors` where the data is. Films keep 4 bits a number, but
positions 8: in 4 they cost a tenth of NDCG@10. Films are rounded so that their
errors cancel in scores.
"""

from slimrank import Recipe

recipe = Recipe(
    name="movielens-1m-checkpoint",
    data="movielens-1m-sequences",
    seeds=(1,),
    teacher={
        "model": {"name": "sasrec", "embedding_dim": 50, "dropout": 0.2, "padding_keys": True},
        "checkpoint": "ml-1m-sasrec/sasrec-ep1000.safetensors",
    },
    student=None,
    distillation=None,
    steps=(
        {"name": "quantize-tables", "bits": 4, "only": ("history",)},
        "compensate-rounding",
        {"name": "quantize-tables", "bits": 8, "only": ("position",)},
        {"name": "prune-weights", "sparsity": 0.25},
        {"name": "quantize-dense", "rows": 512},
    ),
    retraining=None,
)
