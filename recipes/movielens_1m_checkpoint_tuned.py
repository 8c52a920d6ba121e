"""The SASRec of `movielens_1m_checkpoint.py` in 70 KB: fewer bits for rarer films, and fine-tuned as it is.

Fine-tuning wins back what bits and zeros lose, and more: it is against the whole catalogue, where the checkpoint was
trained against one negative a film. So the original is no bound, and its floats would gain as well.
"""

from pathlib import Path

from slimrank import Recipe, Training, read_recipe

given = read_recipe(Path(__file__).with_name("movielens_1m_checkpoint.py"))
recipe = Recipe(
    name="movielens-1m-checkpoint-tuned",
    data=given.data,
    seeds=(1, 2, 3),
    teacher=given.teacher,
    student=None,
    distillation=None,
    steps=(
        {"name": "prune-weights", "sparsity": 0.7},
        {"name": "quantize-tables", "bits": 4, "only": ("position",)},
        {"name": "quantize-dense", "rows": 512},
        {"name": "mix-bits", "only": ("history",), "budget": "69.7 KB", "widths": (1, 2, 4, 8)},
    ),
    retraining=Training(epochs=8, batch_size=128, learning_rate=2e-3, patience=0, precision="bfloat16"),
)
