"""Frappe for a browser or a phone: 32 KB on the wire.

    slimrank run recipes/frappe_edge.py --data DIRECTORY      (the directory that holds frappe/)

The student that `python -m bench frappe-goal` found on validation rows: three of the ten fields, eight dimensions, ids
that train met five times, tables in 4 bits. It had three teachers there and has one here, which takes a third as long.
"""

from slimrank.compression.prune_weights import PruneWeights
from slimrank.compression.quantize_dense import QuantizeDense
from slimrank.compression.quantize_tables import QuantizeTables
from slimrank.compression.reduce_dimensions import ReduceDimensions
from slimrank.compression.threshold_rows import ThresholdRows
from slimrank.data.datasets.frappe import Frappe
from slimrank.models.dcnv2 import DCNv2
from slimrank.models.dnn import DNN
from slimrank.recipe import Distillation, Recipe, Student, Teacher
from slimrank.training.loop import Training

recipe = Recipe(
    name="frappe-edge",
    data=Frappe(),
    seeds=(1,),
    teacher=Teacher(
        model=DCNv2(embedding_dim=10, cross_layers=3, hidden=(400, 400, 400), dropout=0.2, batch_norm=True),
        training=Training(
            epochs=14, batch_size=4096, learning_rate=3e-3, l2=0.05, l2_of="rows", patience=0, precision="auto"
        ),
        seeds=(1,),
    ),
    student=Student(
        model=DNN(embedding_dim=16, hidden=(64, 32)),
        training=Training(epochs=15, batch_size=1024, learning_rate=3e-3, l2=0.05, patience=0),
        fields=("user", "item", "cost"),
    ),
    distillation=Distillation(soft_weight=0.9, temperature=2.0),
    steps=(
        ThresholdRows(min_count=5),
        ReduceDimensions(rank=8),
        PruneWeights(sparsity=0.3),
        QuantizeTables(bits=4, learned=True),
        QuantizeDense(),
    ),
    retraining=Training(epochs=6, batch_size=1024, learning_rate=2e-3, l2=0.05, patience=0),
)

if __name__ == "__main__":
    from pathlib import Path

    from slimrank.pipeline.run import run
    from slimrank.report import print_result

    print_result(run(recipe, Path("runs/frappe-edge")))
