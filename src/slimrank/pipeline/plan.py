"""What a run would do, without doing it."""

from __future__ import annotations

from pathlib import Path

from slimrank.config import find, name_of
from slimrank.models.architecture import build_model
from slimrank.models.size import packed_bytes
from slimrank.pipeline.workspace import Run
from slimrank.recipe import Recipe


def plan(recipe: Recipe, out: Path, data: Path | None = None) -> str:
    """The plan as lines: data, models with their bytes, steps, and where the results go. Writes nothing.

    Raises:
        InputError: the recipe or the data is unfit.
    """
    run = Run(recipe, out, data)
    run.check()
    rows = ", ".join(f"{split} {len(frame):,}" for split, frame in run.dataset.splits.items())
    teacher = build_model(recipe.teacher.model, run.layout, 0)
    seeds = sorted({one for seed in recipe.seeds for one in recipe.teacher_seeds(seed)})
    lines = [
        f"data      {run.dataset.name}: {rows} rows; {run.layout.num_rows:,} ids in {len(run.layout.names)} fields, "
        f"{run.layout.numbers} numbers",
        f"teacher   {name_of(recipe.teacher.model)}, {packed_bytes(teacher):,} bytes, seeds {seeds}",
    ]
    if run.base is not None:
        lines.append(
            f"base      {run.base.folder}, seed {run.base.seed}: its codes are kept, and no student is trained"
        )
    elif recipe.student is not None:
        student = build_model(recipe.student.model, run.layout, 0)
        lines.append(
            f"student   {name_of(recipe.student.model)}, {packed_bytes(student):,} bytes, seeds {list(recipe.seeds)}"
        )
    for number, step in enumerate(recipe.steps, 1):
        lines.append(f"step {number}    {name_of(step)}: {find('step', name_of(step)).summary}")
    if recipe.retraining is not None:
        lines.append(f"retrain   {recipe.retraining.epochs} epochs")
    lines.append(f"export    {name_of(recipe.target)}")
    lines.append(f"out       {out}")
    return "\n".join(lines)
