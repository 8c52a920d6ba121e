"""The models of a run: teacher, student and compressed one, each trained once and restored from its file."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slimrank.compression.fields import field_importance, needed_fields
from slimrank.compression.steps import compress
from slimrank.config import Config, InputError
from slimrank.data.files import data_folder
from slimrank.data.vocabulary import Vocabulary
from slimrank.files import read_json, write_json
from slimrank.models.architecture import build_model
from slimrank.models.checkpoints import load_checkpoint, read_checkpoint
from slimrank.models.layers import Encoder, Network, Ranker
from slimrank.models.size import packed_bytes
from slimrank.pipeline.base import FIELDS, MODEL
from slimrank.pipeline.kept_codes import KeptCodes
from slimrank.pipeline.stages import CHECKPOINT, stage
from slimrank.pipeline.workspace import Run
from slimrank.recipe import Student
from slimrank.tables.embedding import FusedEmbedding
from slimrank.training.checkpoint import Checkpoint, load_tensors, save_tensors
from slimrank.training.examples import Examples, score
from slimrank.training.loop import Hook, KeepZeros, Training, fit
from slimrank.training.losses.loss import Objective
from slimrank.training.progress import ShowProgress
from slimrank.training.teachers import Scores, Teacher, lessons
from slimrank.training.warm_start import start_table

LOGITS = "logits.safetensors"
STEPS = "steps.json"
HISTORY = "history.json"


def train_teacher(run: Run, seed: int) -> str:
    """Train the teacher of one seed; a ranker's logits of the train rows are stored: they are the soft labels."""
    config = run.recipe.teacher

    def work(folder: Path) -> None:
        model = build_model(config.model, run.layout, seed).to(run.device)
        if config.checkpoint:
            _load(run, model, config.checkpoint)
        else:
            _fitted(run, model, config.training, folder, f"teacher, seed {seed}", seed)
        if isinstance(model, Ranker):
            save_tensors(folder / LOGITS, {"logit": torch.from_numpy(score(model, run.train))})
        _store(model, folder)

    inputs = {"data": run.dataset.fingerprint, "seed": seed, "teacher": _plain(config, exclude={"seeds"})}
    if run.base is not None:
        inputs["ids"] = run.base.ids
    return stage(run.teacher_folder(seed), inputs, work)


def train_student(run: Run, seed: int, teachers: list[str]) -> str:
    """Choose the student's fields and train it on the teachers' soft labels; without a student, nothing to do.

    Where the slim model starts from an earlier one, the student has the fields of that, and is not trained.
    """
    student, base = run.recipe.student, run.base
    if student is None:
        return teachers[0]

    def work(folder: Path) -> None:
        if base is not None:
            write_json(folder / FIELDS, {"kept": base.fields, "importance": {}})
            return
        ensemble = [_teacher(run, one) for one in run.recipe.teacher_seeds(seed)]
        write_json(folder / FIELDS, _choose_fields(run, student, ensemble, seed))
        model = _new_student(run, seed)
        if student.warm_start:
            start_table(model, ensemble, run.encoded.encoding.counts)
        _fitted(run, model, student.training, folder, f"student, seed {seed}", seed, soft=True)
        _store(model, folder)

    mix = _plain(run.recipe.distillation)
    inputs = {"teachers": teachers, "seed": seed, "student": _plain(student), "distillation": mix}
    if base is not None:
        inputs["fields"] = base.fields
    return stage(run.seed_folder(seed) / "student", inputs, work)


def _choose_fields(run: Run, student: Student, teachers: Sequence[Network], seed: int) -> dict[str, Any]:
    """The fields that the student reads, and the importance of all of them where that was asked for.

    It is a loss of AUC: where the answer is no click, all fields are read.
    """
    names = run.layout.names
    by_importance = student.min_field_importance and run.valid.answer == "click"
    if student.fields or not by_importance or not names:
        return {"kept": list(student.fields or names), "importance": {}}
    importance = field_importance(teachers, run.valid, seed)
    return {"kept": list(needed_fields(importance, student.min_field_importance)), "importance": importance}


def _new_student(run: Run, seed: int) -> Network:
    """The untrained student, over the fields that were chosen."""
    assert run.recipe.student is not None
    kept = read_json(run.seed_folder(seed) / "student" / FIELDS)["kept"]
    model = build_model(run.recipe.student.model, run.layout.only(kept), seed)
    for module in model.modules():
        if isinstance(module, FusedEmbedding):
            module.reads = run.layout.columns_of(kept)
    return model.to(run.device)


def compress_model(run: Run, seed: int, before: str, teachers: list[str]) -> str:
    """Compress the student (or the teacher) step by step, then retrain it with the quantisers in the loop."""
    recipe = run.recipe

    def work(folder: Path) -> None:
        model, records = compressed(run, seed, folder)
        write_json(folder / STEPS, records)
        _store(model, folder)

    inputs = {
        "before": before,
        "teachers": teachers if recipe.distillation else [],
        "steps": [_plain(step) for step in recipe.steps],
        "retraining": _plain(recipe.retraining),
        "distillation": _plain(recipe.distillation),
    }
    if run.base is not None:
        inputs["stability"] = {"base": run.base.weights, **(_plain(recipe.stability, exclude={"base"}) or {})}
    return stage(run.seed_folder(seed) / "slim", inputs, work)


def compressed(run: Run, seed: int, folder: Path) -> tuple[Network, list[dict[str, Any]]]:
    """The compressed and retrained model, and the record of its steps; `folder` is for checkpoints and history."""
    recipe, hooks = run.recipe, list[Hook]([KeepZeros()])
    model, records = compress(uncompressed(run, seed), recipe.steps, run.context(seed), in_place=True)
    kept = None if run.base is None else KeptCodes.of(run.base, model, recipe)
    if kept is not None:
        hooks.append(kept.hook)
    if recipe.retraining is not None:
        _fitted(run, model, recipe.retraining, folder, f"retraining, seed {seed}", seed, soft=True, hooks=hooks)
    if kept is not None:
        return model, [*kept.shaped(records), kept.told()]
    return model, _student_record(run, seed) + records


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
            "touched_bytes": packed_bytes(baseline(run, seed)),
            "bytes_before": packed_bytes(baseline(run, seed)),
            "bytes_after": packed_bytes(uncompressed(run, seed)),
            "facts": {},
            "note": "",
        }
    ]


def _fitted(
    run: Run,
    model: Network,
    training: Training,
    folder: Path,
    name: str,
    seed: int,
    soft: bool = False,
    hooks: Sequence[Hook] = (),
) -> None:
    """Fit `model`, to `soft` labels where there are some, with progress shown and a checkpoint an epoch."""
    train, objective = _lessons(run, model, training, seed) if soft else (run.train, None)
    steps = training.epochs * ceil(len(run.train) / training.batch_size)
    history = fit(
        model,
        train,
        run.valid,
        training,
        seed=seed,
        objective=objective,
        hooks=[Checkpoint(folder / CHECKPOINT), *hooks, ShowProgress(name, training.epochs, steps)],
    )
    write_json(folder / HISTORY, history)


def _lessons(run: Run, model: Network, training: Training, seed: int) -> tuple[Examples, Objective | None]:
    """What a model learns from its teachers: train rows, and the objective; None where nothing is distilled."""
    mix, seeds = run.recipe.distillation, run.recipe.teacher_seeds(seed)
    if mix is None:
        return run.train, None
    teachers: list[Teacher]
    if isinstance(model, Encoder):
        teachers = [_teacher(run, one) for one in seeds]
    else:
        teachers = [Scores(load_tensors(run.teacher_folder(one) / LOGITS)[0]["logit"].numpy()) for one in seeds]
    return lessons(model, run.train, teachers, mix, training.loss)


def _load(run: Run, model: Network, checkpoint: Path) -> None:
    """Weights that were trained elsewhere; a path that is not here is looked for where the data is."""
    root = data_folder(run.data)
    path = checkpoint if checkpoint.exists() or root is None else root / checkpoint
    codec = run.encoded.encoding.codecs.get(run.dataset.schema.catalogue or "")
    if not isinstance(codec, Vocabulary) or not codec.values.dtype.is_integer():
        raise InputError(f"{path}: a checkpoint has a row for each item's number, and these rows have no such items")
    load_checkpoint(model, read_checkpoint(path), codec.values.to_numpy().astype(np.int64))


def _store(model: Network, folder: Path) -> None:
    """Write the finished model."""
    save_tensors(folder / MODEL, model.state_dict())


def _teacher(run: Run, seed: int) -> Network:
    """The trained teacher with that seed."""
    return _restored(build_model(run.recipe.teacher.model, run.layout, seed), run.teacher_folder(seed), run)


def baseline(run: Run, seed: int) -> Network:
    """The teacher that the slim model of that seed is compared with."""
    return _teacher(run, run.recipe.teacher_seeds(seed)[0])


def uncompressed(run: Run, seed: int) -> Network:
    """The trained student, or the teacher where there is no student.

    Where the slim model starts from an earlier one, it is the student untrained: its shape is all that is asked for.
    """
    if run.recipe.student is None:
        return baseline(run, seed)
    if run.base is not None:
        return _new_student(run, seed)
    return _restored(_new_student(run, seed), run.seed_folder(seed) / "student", run)


def slim_model(run: Run, seed: int) -> Network:
    """The compressed and retrained model: the steps give its shape (they are deterministic), the file its numbers."""
    model, _ = compress(uncompressed(run, seed), run.recipe.steps, run.context(seed), in_place=True)
    return _restored(model, run.seed_folder(seed) / "slim", run)


def _restored(model: Network, folder: Path, run: Run) -> Network:
    model.load_state_dict(load_tensors(folder / MODEL)[0])
    return model.to(run.device)


def _plain(config: Config | None, exclude: set[str] | None = None) -> dict[str, Any] | None:
    """A config as plain data, for the key of a stage."""
    return None if config is None else config.model_dump(mode="json", exclude=exclude)
