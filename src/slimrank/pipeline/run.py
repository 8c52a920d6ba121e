"""The run: data, teacher, student, compression, retraining, export, measurement, report.

A run is a directory. Each stage writes its own part of it and reads the parts before it:

    artifact/  result.json  report.html       what the run is for; the artifact of the seed that validation prefers
    recipe.json                               what it was asked to do
    teacher-SEED/                             a teacher and its logits, shared by the seeds that learn from it
    seed-SEED/student/  slim/                 models before and after compression, with the steps' record
    seed-SEED/artifacts/teacher/  slim/       what can be shipped
    seed-SEED/measured/                       what was measured of them
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from slimrank.config import InputError, nearest
from slimrank.exporting.artifact import export, with_metrics
from slimrank.files import only_here, read_json, write_json
from slimrank.models.layers import Network
from slimrank.pipeline.models import (
    STEPS,
    baseline,
    compress_model,
    compressed,
    slim_model,
    train_student,
    train_teacher,
    uncompressed,
)
from slimrank.pipeline.result import combined, measured_record, provenance, shipped_seed
from slimrank.pipeline.stages import clear_partial, stage
from slimrank.pipeline.workspace import Run
from slimrank.recipe import Recipe
from slimrank.report import write_report

STAGES = ("train", "compress", "export", "evaluate", "report")


def run(recipe: Recipe, out: Path, *, data: Path | None = None, until: str = "report") -> dict[str, Any]:
    """Everything that `recipe` says, in the directory `out`, up to and with the stage `until`.

    Stages that were done before with the same inputs are not done again.

    Returns:
        The content of `result.json`, or {} if the run stops before it.

    Raises:
        InputError: the recipe, the data or the directory is unfit; another run is working in the directory.
    """
    if until not in STAGES:
        raise InputError(f"unknown stage {until!r}. {nearest(until, STAGES)}")
    this = Run(recipe, out, data)
    this.check()
    with only_here(out):
        clear_partial(out)
        _start(this)
        return _run_stages(this, until)


def slim_models(run: Run) -> Iterator[tuple[int, Network, list[dict[str, Any]]]]:
    """Seed by seed the slim model as the recipe says, and the record of its steps; teachers and students stay stored.

    Raises:
        InputError: as `run` does.
    """
    run.check()
    with only_here(run.folder):
        clear_partial(run.folder)
        _start(run)
        for seed in run.recipe.seeds:
            train_student(run, seed, [train_teacher(run, one) for one in run.recipe.teacher_seeds(seed)])
            with tempfile.TemporaryDirectory() as folder:
                model, records = compressed(run, seed, Path(folder))
            yield seed, model, records


def _start(run: Run) -> None:
    """Set torch up and write the recipe down; what another recipe or other data has left for people to look at goes."""
    if run.recipe.threads:
        torch.set_num_threads(run.recipe.threads)
    if run.device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    record, written = run.recipe.model_dump(mode="json"), run.folder / "recipe.json"
    result = run.folder / "result.json"
    same_data = not result.exists() or read_json(result)["data_fingerprint"] == run.dataset.fingerprint
    if written.exists() and read_json(written) == record and same_data:
        return
    for outdated in (result, run.folder / "report.html"):
        outdated.unlink(missing_ok=True)
    if (run.folder / "artifact").exists():
        shutil.rmtree(run.folder / "artifact")
    write_json(written, record)


def _run_stages(run: Run, until: str) -> dict[str, Any]:
    """All stages up to and with `until`, for every seed."""
    keys = {seed: [train_teacher(run, one) for one in run.recipe.teacher_seeds(seed)] for seed in run.recipe.seeds}
    if until == "train":
        return {}
    slim = {seed: compress_model(run, seed, train_student(run, seed, keys[seed]), keys[seed]) for seed in keys}
    if until == "compress":
        return {}
    exported = {seed: _export(run, seed, slim[seed]) for seed in keys}
    if until == "export":
        return {}
    for seed in keys:
        _measure(run, seed, exported[seed])
    records = [read_json(run.seed_folder(seed) / "measured" / "result.json") for seed in keys]
    result = combined(run.recipe, run.dataset, records)
    write_json(run.folder / "result.json", result)
    _publish(run, records)
    if until == "report":
        write_report(run.folder / "result.json", run.folder / "report.html")
    return result


def _export(run: Run, seed: int, slim: str) -> str:
    """Write the artifacts: of the teacher, of the student before its compression, and the slim one."""

    facts = provenance(run.recipe, run.dataset, seed)

    def work(folder: Path) -> None:
        models = {"teacher": baseline(run, seed), "slim": slim_model(run, seed)}
        if run.recipe.student is not None and run.base is None:
            models["student"] = uncompressed(run, seed)
        for name, model in models.items():
            named = {**facts, "name": f"{run.recipe.name}-{name}"}
            index = run.recipe.index if name == "slim" else None
            export(model.cpu().eval(), run.encoded.encoding, folder / name, run.recipe.target, named, index)

    inputs = {"slim": slim, "facts": facts}  # the facts hold the recipe, and so the index
    return stage(run.seed_folder(seed) / "artifacts", inputs, work)


def _measure(run: Run, seed: int, exported: str) -> str:
    """Measure the artifacts on the test rows, and compare teacher and slim row by row."""

    def work(folder: Path) -> None:
        artifacts = run.seed_folder(seed) / "artifacts"
        paths = {path.name: path for path in sorted(artifacts.iterdir()) if path.is_dir()}
        steps = read_json(run.seed_folder(seed) / "slim" / STEPS)
        write_json(folder / "result.json", measured_record(seed, paths, run.dataset, run.encoded, steps))

    return stage(run.seed_folder(seed) / "measured", {"exported": exported}, work)


def _publish(run: Run, records: Sequence[dict[str, Any]]) -> None:
    """Put the slim artifact of the seed that validation prefers, with its figures, where it is easy to find."""
    best = next(record for record in records if record["seed"] == shipped_seed(records))
    measured = {
        key: value for key, value in best["models"]["slim"].items() if key in ("quality", "bytes", "latency_ms")
    }
    slim = run.seed_folder(best["seed"]) / "artifacts" / "slim"
    with_metrics(slim, run.folder / "artifact", measured, best.get("reference"))
