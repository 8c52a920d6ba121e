"""Amazon Beauty as implicit feedback: a matrix factorisation of 40,226 users and 54,542 products, most of them rare.

    slimrank run recipes/beauty.py --data DIRECTORY      (the directory that holds amazon-beauty/)

The last product of a user is the test, the one before it the validation. Chosen on the validation split alone.
"""

from slimrank.compression.mix_bits import MixBits
from slimrank.data.datasets.amazon_beauty import AmazonBeauty
from slimrank.models.gmf import GMF
from slimrank.recipe import Distillation, Recipe, Teacher
from slimrank.training.loop import Training

recipe = Recipe(
    name="beauty",
    data=AmazonBeauty(),
    seeds=(1, 2, 3),
    teacher=Teacher(
        model=GMF(embedding_dim=32),
        training=Training(epochs=4, batch_size=8192, learning_rate=5e-3, l2=0.1, warm_up=0.3, patience=0),
    ),
    student=None,
    distillation=Distillation(soft_weight=0.5),
    steps=(MixBits(budget=700_000),),
    retraining=Training(epochs=2, batch_size=8192, learning_rate=2e-3, l2=0.1, patience=0),
)

if __name__ == "__main__":
    from pathlib import Path

    from slimrank.pipeline.run import run
    from slimrank.report import print_result

    print_result(run(recipe, Path("runs/beauty")))
