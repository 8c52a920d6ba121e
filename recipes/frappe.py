"""Frappe: three DCNv2 teachers, one student a tenth of a percent of their arithmetic, 4-bit tables and int8 layers.

    slimrank run recipes/frappe.py --data DIRECTORY      (the directory that holds frappe/)

Chosen on the validation split alone; docs/log.md says what was tried. Three seeds: each student is compared with the
teacher of its own seed, and all three learn from the mean logit of all three teachers.
"""

from slimrank.compression.quantize_dense import QuantizeDense
from slimrank.compression.quantize_tables import QuantizeTables
from slimrank.data.datasets.frappe import Frappe
from slimrank.models.dcnv2 import DCNv2
from slimrank.models.dnn import DNN
from slimrank.recipe import Distillation, Recipe, Student, Teacher
from slimrank.training.loop import Training

recipe = Recipe(
    name="frappe",
    data=Frappe(),
    seeds=(1, 2, 3),
    teacher=Teacher(
        model=DCNv2(embedding_dim=10, cross_layers=3, hidden=(400, 400, 400), dropout=0.2, batch_norm=True),
        training=Training(
            epochs=14, batch_size=4096, learning_rate=3e-3, l2=0.05, l2_of="rows", patience=0, precision="auto"
        ),
        seeds=(1, 2, 3),
    ),
    student=Student(
        model=DNN(embedding_dim=16, hidden=(64, 32)),
        training=Training(epochs=15, batch_size=1024, learning_rate=3e-3, l2=0.05, patience=0),
        min_field_importance=0.001,
    ),
    distillation=Distillation(soft_weight=0.9, temperature=1.0),
    steps=(QuantizeTables(bits=4), QuantizeDense()),
    retraining=Training(epochs=6, batch_size=1024, learning_rate=2e-3, l2=0.05, patience=0),
)

if __name__ == "__main__":
    from pathlib import Path

    from slimrank.pipeline.run import run
    from slimrank.report import print_result

    print_result(run(recipe, Path("runs/frappe")))
