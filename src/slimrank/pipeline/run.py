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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimrank.compression.fields import field_importance, needed_fields
from slimrank.compression.steps import Context, compress, unsorted_fields
from slimrank.config import Config, InputError, nearest
from slimrank.data import load_dataset
from slimrank.data.rows import Dataset, EncodedDataset, encode_dataset
from slimrank.evaluation.measure import measure, split_auc
from slimrank.exporting.artifact import export, with_metrics
from slimrank.files import only_here, read_json, write_json
from slimrank.models.architecture import build_model
from slimrank.models.layers import Ranker
from slimrank.models.size import packed_bytes
from slimrank.pipeline.result import combined, compared, provenance, seed_record, shipped_seed
from slimrank.pipeline.stages import CHECKPOINT, clear_partial, stage
from slimrank.recipe import Recipe, Student
from slimrank.report import write_report
from slimrank.tables.embedding import FusedEmbedding, Layout
from slimrank.training.checkpoint import Checkpoint, load_tensors, save_tensors
from slimrank.training.examples import Examples, score, training_device
from slimrank.training.loop import Hook, KeepZeros, Training, distilled, fit, hard_labels
from slimrank.training.losses import Distillation
from slimrank.training.progress import ShowProgress
from slimrank.training.warm_start import start_table

STAGES = ("train", "compress", "export", "evaluate", "report")
MODEL = "model.safetensors"
LOGITS = "logits.safetensors"
STEPS = "steps.json"
FIELDS = "fields.json"
HISTORY = "history.json"


@dataclass
class Run:
    """One recipe in one directory, and its data, read when first needed."""

    recipe: Recipe
    folder: Path
    data: Path | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """The recipe's dataset."""
        return load_dataset(self.recipe.data, self.data)

    @cached_property
    def encoded(self) -> EncodedDataset:
        """The dataset as arrays."""
        return encode_dataset(self.dataset)

    @cached_property
    def layout(self) -> Layout:
        """The models' columns."""
        return Layout.of(self.encoded.encoding)

    @cached_property
    def device(self) -> torch.device:
        """Where models are trained."""
        return training_device()

    def check(self) -> None:
        """Raises `InputError` where the data is unfit or does not have what the recipe names; writes nothing."""
        layout = self.layout
        if not layout.names and not layout.numbers:
            raise InputError(f"{self.dataset.name}: no input columns beside label, group and time")
        for name in self.recipe.student.fields if self.recipe.student is not None else ():
            if name not in layout.names:
                raise InputError(f"student.fields: unknown field {name!r}. {nearest(name, layout.names)}")

    def with_recipe(self, recipe: Recipe) -> Run:
        """The same directory and data, which is not read again, with another recipe on that data."""
        other = Run(recipe, self.folder, self.data)
        shared = ("dataset", "encoded", "layout", "device", "train", "valid")
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name in shared})
        return other

    @cached_property
    def train(self) -> Examples:
        """Rows to fit on."""
        return Examples.of(self.encoded.train, self.device)

    @cached_property
    def valid(self) -> Examples:
        """Rows to choose on."""
        return Examples.of(self.encoded.valid, self.device)

    def context(self, seed: int) -> Context:
        """What the steps of one seed may look at."""
        encoding = self.encoded.encoding
        return Context(self.train, self.valid, encoding.counts, seed, unsorted_fields(encoding))

    def teacher_folder(self, seed: int) -> Path:
        """Where the teacher of that seed is."""
        return self.folder / f"teacher-{seed}"

    def seed_folder(self, seed: int) -> Path:
        """Where what belongs to one seed of the recipe is."""
        return self.folder / f"seed-{seed}"


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
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        if this.device.type == "cuda":
            torch.use_deterministic_algorithms(True, warn_only=True)
        _start(this)
        return _run_stages(this, until)


def slim_models(run: Run) -> dict[int, Ranker]:
    """Train, distil, compress and retrain as the recipe says: the slim model of every seed, its artifact not written.

    Raises:
        InputError: as `run` does.
    """
    run.check()
    with only_here(run.folder):
        clear_partial(run.folder)
        _start(run)
        _run_stages(run, "compress")
        return {seed: _slim(run, seed) for seed in run.recipe.seeds}


def _start(run: Run) -> None:
    """Write the recipe down; what another recipe or other data has left for people to look at goes."""
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
    keys = {seed: [_train_teacher(run, one) for one in run.recipe.teacher_seeds(seed)] for seed in run.recipe.seeds}
    if until == "train":
        return {}
    slim = {seed: _compress(run, seed, _train_student(run, seed, keys[seed]), keys[seed]) for seed in keys}
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


def _train_teacher(run: Run, seed: int) -> str:
    """Train the teacher of one seed, and store its logits of the train rows: they are the soft labels."""
    config = run.recipe.teacher

    def work(folder: Path) -> None:
        model = build_model(config.model, run.layout, seed).to(run.device)
        fitted(run, model, config.training, folder, f"teacher, seed {seed}", seed)
        save_tensors(folder / LOGITS, {"logit": torch.from_numpy(score(model, run.train))})
        store(model, folder)

    inputs = {"data": run.dataset.fingerprint, "seed": seed, "teacher": _plain(config, exclude={"seeds"})}
    return stage(run.teacher_folder(seed), inputs, work)


def _train_student(run: Run, seed: int, teachers: list[str]) -> str:
    """Choose the student's fields and train it on the teachers' soft labels; without a student, nothing to do."""
    student = run.recipe.student
    if student is None:
        return teachers[0]

    def work(folder: Path) -> None:
        ensemble = [_teacher(run, one) for one in run.recipe.teacher_seeds(seed)]
        write_json(folder / FIELDS, _choose_fields(run, student, ensemble, seed))
        model = _new_student(run, seed)
        if student.warm_start:
            start_table(model, ensemble, run.encoded.encoding.counts)
        fitted(run, model, student.training, folder, f"student, seed {seed}", seed, _soft_labels(run, seed))
        store(model, folder)

    distilled = _plain(run.recipe.distillation)
    inputs = {"teachers": teachers, "seed": seed, "student": _plain(student), "distillation": distilled}
    return stage(run.seed_folder(seed) / "student", inputs, work)


def _choose_fields(run: Run, student: Student, teachers: Sequence[Ranker], seed: int) -> dict[str, Any]:
    """The fields that the student reads, and the importance of all of them where that was asked for."""
    names = run.layout.names
    if student.fields or not student.min_field_importance or not names:
        return {"kept": list(student.fields or names), "importance": {}}
    importance = field_importance(teachers, run.valid, seed)
    return {"kept": list(needed_fields(importance, student.min_field_importance)), "importance": importance}


def _new_student(run: Run, seed: int) -> Ranker:
    """The untrained student, over the fields that were chosen."""
    assert run.recipe.student is not None
    kept = read_json(run.seed_folder(seed) / "student" / FIELDS)["kept"]
    model = build_model(run.recipe.student.model, run.layout.only(kept), seed)
    for module in model.modules():
        if isinstance(module, FusedEmbedding):
            module.reads = run.layout.columns_of(kept)
    return model.to(run.device)


def _compress(run: Run, seed: int, before: str, teachers: list[str]) -> str:
    """Compress the student (or the teacher) step by step, then retrain it with the quantisers in the loop."""
    recipe = run.recipe

    def work(folder: Path) -> None:
        model, records = compress(_uncompressed(run, seed), recipe.steps, run.context(seed), in_place=True)
        write_json(folder / STEPS, _student_record(run, seed) + records)
        if recipe.retraining is not None:
            name, soft = f"retraining, seed {seed}", _soft_labels(run, seed)
            fitted(run, model, recipe.retraining, folder, name, seed, soft, hooks=[KeepZeros()])
        store(model, folder)

    inputs = {
        "before": before,
        "teachers": teachers if recipe.distillation else [],
        "steps": [_plain(step) for step in recipe.steps],
        "retraining": _plain(recipe.retraining),
        "distillation": _plain(recipe.distillation),
    }
    return stage(run.seed_folder(seed) / "slim", inputs, work)


def _student_record(run: Run, seed: int) -> list[dict[str, Any]]:
    """How the student itself came about, in the form of a step's record: what it reads and what it does without."""
    if run.recipe.student is None:
        return []
    chosen = read_json(run.seed_folder(seed) / "student" / FIELDS)
    importance = {name: f"; shuffled it costs {drop:.4f} of AUC" for name, drop in chosen["importance"].items()}
    return [
        {
            "name": "distil",
            "settings": _plain(run.recipe.student),
            "touched": [f"{name}{importance.get(name, '')}" for name in chosen["kept"]],
            "skipped": [
                {"name": name, "reason": f"not read{importance.get(name, '')}"}
                for name in run.layout.names
                if name not in chosen["kept"]
            ],
            "bytes_before": packed_bytes(_baseline(run, seed)),
            "bytes_after": packed_bytes(_uncompressed(run, seed)),
            "facts": {},
            "note": "",
        }
    ]


def _export(run: Run, seed: int, slim: str) -> str:
    """Write the artifacts: of the teacher, of the student before its compression, and the slim one."""

    facts = provenance(run.recipe, run.dataset, seed)

    def work(folder: Path) -> None:
        models = {"teacher": _baseline(run, seed), "slim": _slim(run, seed)}
        if run.recipe.student is not None:
            models["student"] = _uncompressed(run, seed)
        for name, model in models.items():
            named = {**facts, "name": f"{run.recipe.name}-{name}"}
            export(model.cpu().eval(), run.encoded.encoding, folder / name, run.recipe.target, named)

    inputs = {"slim": slim, "facts": facts}
    return stage(run.seed_folder(seed) / "artifacts", inputs, work)


def _measure(run: Run, seed: int, exported: str) -> str:
    """Measure the artifacts on the test rows, and compare teacher and slim row by row."""

    def work(folder: Path) -> None:
        artifacts = run.seed_folder(seed) / "artifacts"
        paths = {path.name: path for path in sorted(artifacts.iterdir()) if path.is_dir()}
        measured = measure(paths, run.dataset)
        record = seed_record(seed, measured, read_json(run.seed_folder(seed) / "slim" / STEPS))
        record |= compared(run.encoded, measured["teacher"].logits, measured["slim"].logits)
        record["slim_valid_auc"] = split_auc(paths["slim"], run.dataset, "valid")
        record["unknown_ids"] = run.encoded.unknown["test"]
        write_json(folder / "result.json", record)

    return stage(run.seed_folder(seed) / "measured", {"exported": exported}, work)


def _publish(run: Run, records: Sequence[dict[str, Any]]) -> None:
    """Put the slim artifact of the seed that validation prefers, with its figures, where it is easy to find."""
    best = next(record for record in records if record["seed"] == shipped_seed(records))
    measured = {
        key: value for key, value in best["models"]["slim"].items() if key in ("quality", "bytes", "latency_ms")
    }
    with_metrics(run.seed_folder(best["seed"]) / "artifacts" / "slim", run.folder / "artifact", measured)


def fitted(
    run: Run,
    model: Ranker,
    training: Training,
    folder: Path,
    name: str,
    seed: int,
    soft: Tensor | None = None,
    hooks: Sequence[Hook] = (),
) -> None:
    """Fit `model`, to soft labels where there are some, with progress shown and a checkpoint an epoch."""
    objective = hard_labels
    if soft is not None:
        mix = run.recipe.distillation or Distillation()
        objective = partial(distilled, mix=mix)
    steps = training.epochs * ceil(len(run.train) / training.batch_size)
    history = fit(
        model,
        run.train.with_teacher(soft),
        run.valid,
        training,
        seed=seed,
        objective=objective,
        hooks=[Checkpoint(folder / CHECKPOINT), *hooks, ShowProgress(name, training.epochs, steps)],
    )
    write_json(folder / HISTORY, history)


def _soft_labels(run: Run, seed: int) -> Tensor | None:
    """The mean of the teachers' logits for every train row, or None where nothing is distilled."""
    if run.recipe.distillation is None:
        return None
    folders = [run.teacher_folder(one) for one in run.recipe.teacher_seeds(seed)]
    return torch.stack([load_tensors(folder / LOGITS)[0]["logit"] for folder in folders]).mean(dim=0)


def store(model: Ranker, folder: Path) -> None:
    """Write the finished model."""
    save_tensors(folder / MODEL, model.state_dict())


def _teacher(run: Run, seed: int) -> Ranker:
    """The trained teacher with that seed."""
    return _restored(build_model(run.recipe.teacher.model, run.layout, seed), run.teacher_folder(seed), run)


def _baseline(run: Run, seed: int) -> Ranker:
    """The teacher that the slim model of that seed is compared with."""
    return _teacher(run, run.recipe.teacher_seeds(seed)[0])


def _uncompressed(run: Run, seed: int) -> Ranker:
    """The trained student, or the teacher where there is no student."""
    if run.recipe.student is None:
        return _baseline(run, seed)
    return _restored(_new_student(run, seed), run.seed_folder(seed) / "student", run)


def _slim(run: Run, seed: int) -> Ranker:
    """The compressed and retrained model: the steps give its shape (they are deterministic), the file its numbers."""
    model, _ = compress(_uncompressed(run, seed), run.recipe.steps, run.context(seed), in_place=True)
    return _restored(model, run.seed_folder(seed) / "slim", run)


def _restored(model: Ranker, folder: Path, run: Run) -> Ranker:
    model.load_state_dict(load_tensors(folder / MODEL)[0])
    return model.to(run.device)


def _plain(config: Config | None, exclude: set[str] | None = None) -> dict[str, Any] | None:
    """A config as plain data, for the key of a stage."""
    return None if config is None else config.model_dump(mode="json", exclude=exclude)
