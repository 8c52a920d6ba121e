"""The verbs in Python, on objects: train, compress, export, evaluate; from a recipe, `run` and `search`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from slimrank.adaptors import adaptor_of
from slimrank.compression.modules import Forward, Metric, compress_module
from slimrank.compression.steps import Context
from slimrank.compression.steps import compress as apply_steps
from slimrank.config import Config, InputError, as_config
from slimrank.data.encoding import Encoding
from slimrank.data.rows import Dataset, EncodedDataset
from slimrank.evaluation.measure import measure
from slimrank.exporting.artifact import export as export_network
from slimrank.exporting.modules import Axes, export_module
from slimrank.models.architecture import build_model
from slimrank.models.layers import Network
from slimrank.pipeline.run import run
from slimrank.pipeline.search import search as find
from slimrank.recipe import Recipe
from slimrank.searching.goal import Goal
from slimrank.searching.search import Search
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples, training_device
from slimrank.training.loop import KeepZeros, Training, fit
from slimrank.training.losses.loss import Distillation
from slimrank.training.teachers import Teacher, lessons

Model = TypeVar("Model")
__all__ = ["compress", "evaluate", "export", "run", "search", "train"]


def train(
    model: Config | Mapping[str, Any] | str | Network,
    data: EncodedDataset,
    training: Training | None = None,
    *,
    seed: int = 0,
    teachers: Sequence[Teacher] = (),
    distillation: Distillation | None = None,
) -> Network:
    """Fit a model to the train rows; it keeps the weights that were best on the validation rows.

    Args:
        model: a model to go on with (it is changed; weights that are 0 stay 0), or the config or name of a new one.
        data: encoded rows.
        training: epochs, batch size, learning rate and the like.
        seed: of a new model's weights and of the order of rows.
        teachers: what the mean score of serves as soft labels: models, functions of the encoded columns [N, K + M]
            such as `predict` of a boosted model, and `Scores` that were made elsewhere (`slimrank.read_scores`).
        distillation: how soft and hard labels are mixed.

    Raises:
        InputError: the model is unknown, a teacher does not fit the rows, or training diverged.
    """
    if not isinstance(model, Network):
        model = build_model(as_config("model", model), Layout.of(data.encoding), seed)
    device = training_device()
    model.to(device)
    rows, valid = (Examples.of(each, device, data.encoding.schema.answer) for each in (data.train, data.valid))
    objective = None
    training = training or Training()
    if teachers:
        rows, objective = lessons(model, rows, teachers, distillation or Distillation(), training.loss)
    fit(model, rows, valid, training, seed=seed, objective=objective, hooks=[KeepZeros()])
    return model


def compress(
    model: Model,
    steps: Sequence[Config | Mapping[str, Any] | str],
    data: EncodedDataset | Iterable[Any],
    *,
    forward: Forward | None = None,
    metric: Metric | None = None,
    seed: int = 0,
) -> tuple[Model, list[dict[str, Any]]]:
    """Apply `steps` in order to a copy of `model`; with the copy comes what each step touched, skipped and saved.

    Args:
        model: one of slimrank's, any module of torch, or one of a library that has an adaptor. The copy of a module is
            called as the module is, trains in the loop that it trained in, and its `state_dict` loads into a module
            that was compressed alike.
        steps: configs, names, or mappings of a name and settings.
        data: encoded rows for a model of slimrank; for any other module its batches, in something that can be read
            more than once. All are run once, to see how often each id is met.
        forward: how the module is called with a batch; by default as its library does, else a mapping is its keywords,
            a tuple or list its arguments, and all else the one argument.
        metric: how good a module is, higher is better, on rows that are not test rows; for steps that choose by it.
        seed: of what is drawn.

    Raises:
        InputError: a step or a setting is unknown or not allowed, or the module fails on a batch.
    """
    if isinstance(model, Network) and isinstance(data, EncodedDataset):
        return apply_steps(model, steps, Context.of(data, seed))
    if isinstance(data, EncodedDataset):
        raise InputError(f"a {type(model).__name__} is no model of slimrank: give batches that it can be called with")
    adaptor = adaptor_of(model)
    prepared = adaptor.prepare(model)
    small, records = compress_module(prepared, steps, data, forward or adaptor.forward, metric, seed)
    return adaptor.finish(small), records


def export(
    model: nn.Module | Any,
    data: Encoding | Any,
    path: Path | str,
    *,
    target: Config | None = None,
    index: Config | None = None,
    forward: Forward | None = None,
    axes: Axes | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the artifact of a model to the directory `path`; an artifact that is there is replaced in one step.

    Args:
        model: one of slimrank's, any module of torch, or one of a library that has an adaptor, as it is or compressed;
            it is not changed.
        data: the encoding of the rows of a model of slimrank; for any other module an example of a batch, of two rows
            or more.
        path: the artifact's directory.
        target: a registered target for a model of slimrank; ONNX by default.
        index: a registered index over the items of an encoder of slimrank.
        forward: how any other module is called with a batch.
        axes: its dimensions of any size beside the rows, by input: {"items": {1: "length"}}.
        provenance: what the manifest says beside the graph.

    Raises:
        InputError: the artifact cannot be written, or the model cannot be traced.
        GraphError: a layer would not run on integers, or a lookup would touch a whole table.
    """
    if isinstance(model, Network):
        if not isinstance(data, Encoding):
            raise InputError(f"a model of slimrank is exported with its encoding, and data is a {type(data).__name__}")
        export_network(model, data, Path(path), target, provenance, index)
        return
    if target is not None or index is not None:
        raise InputError("target and index are for models of slimrank; a module becomes an ONNX graph of its own")
    adaptor = adaptor_of(model)
    called = forward or adaptor.forward
    export_module(adaptor.prepare(model), data, Path(path), forward=called, axes=axes, provenance=provenance)


def evaluate(artifacts: Mapping[str, Path | str], dataset: Dataset, split: str = "test") -> dict[str, dict[str, Any]]:
    """Quality, bytes and latency of artifacts, side by side on the rows of one split.

    Raises:
        InputError: an artifact is not sound, or the rows do not fit it.
    """
    paths = {name: Path(path) for name, path in artifacts.items()}
    return {name: found.record for name, found in measure(paths, dataset, split).items()}


def search(
    recipe: Recipe,
    goal: Goal | str | Search,
    out: Path | str,
    *,
    data: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    **settings: Any,
) -> dict[str, Any]:
    """Find the smallest model within a goal, and prove on test rows what is said of it.

    `result["search"]["met"]` says whether the goal was met; the artifact is in `out` either way.

    Args:
        recipe: data, teachers and training; its student and steps are what changes.
        goal: such as "auc_drop <= 0.001, bytes <= 64 KB", or a whole `Search`.
        out: the directory; a search that was stopped there goes on.
        data: where the recipe's data is.
        say: takes a line a trial, such as `print`.
        settings: others of `Search`, such as minutes, workers, or a space of one's own.

    Raises:
        InputError: goal, recipe, data or study are unfit, or every trial failed.
    """
    asked = goal if isinstance(goal, Search) else Search.parse({"goal": goal, **settings}, "search")
    return find(recipe, asked, Path(out), data=data, say=say)
