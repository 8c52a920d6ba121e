"""MovieLens-1M as implicit feedback: a matrix factorisation, its vectors in 16 numbers of 4 bits.

    slimrank run recipes/movielens_1m.py --data DIRECTORY      (the directory that holds ml-1m-sasrec/)

The last film of a user is the test, the one before it the validation. Chosen on the validation split alone.
"""

from slimrank.compression.quantize_tables import QuantizeTables
from slimrank.compression.reduce_dimensions import ReduceDimensions
from slimrank.data.datasets.movielens_1m import MovieLens1M
from slimrank.models.gmf import GMF
from slimrank.recipe import Distillation, Recipe, Teacher
from slimrank.training.loop import Training

recipe = Recipe(
    name="movielens-1m",
    data=MovieLens1M(),
    seeds=(1, 2, 3),
    teacher=Teacher(
        model=GMF(embedding_dim=32),
        training=Training(epochs=5, batch_size=8192, learning_rate=1e-2, l2=0.02, warm_up=0.3, patience=0),
    ),
    student=None,
    distillation=Distillation(soft_weight=0.5),
    steps=(ReduceDimensions(rank=16), QuantizeTables(bits=4)),
    retraining=Training(epochs=1, batch_size=8192, learning_rate=5e-3, l2=0.005, patience=0),
)

if __name__ == "__main__":
    from pathlib import Path

    from slimrank.pipeline.run import run
    from slimrank.report import print_result

    print_result(run(recipe, Path("runs/movielens-1m")))
