"""What every registered step promises: tell what it did, do it the same way twice, and leave a model that ships."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from slimrank import runtime
from slimrank.artifact import open_artifact
from slimrank.compression.steps import Context, compress, unsorted_fields
from slimrank.config import as_config, entries
from slimrank.exporting.artifact import export
from slimrank.exporting.pack import pack
from slimrank.models.layers import Ranker
from slimrank.models.quantized import TableQuantizer
from slimrank.training.examples import Examples, score
from slimrank.training.loop import KeepZeros, Training, fit

RANKERS = {n for n, each in entries("model").items() if issubclass(each.run, Ranker) and n != "cross-encoder"}


TEXT_STEPS: list[dict[str, Any]] = [  # they leave rows of fields alone, and say so; test_text_steps.py has the rest
    {"name": "drop-layers", "layers": 2},
    {"name": "prune-heads", "neurons": 0.5},
    {"name": "prune-vocabulary"},
    {"name": "shorten-vectors", "outputs": 8},
]
VARIANTS: list[dict[str, Any]] = [
    {"name": "threshold-rows", "min_count": 3},
    {"name": "threshold-rows", "budget": "11 KB"},
    {"name": "fold-first-layer"},
    {"name": "join-fields", "budget": "128 KB"},
    {"name": "prune-neurons", "keep": 0.5},
    {"name": "prune-neurons", "keep": 0.5, "compensate": True},
    {"name": "prune-weights", "tau": 0.05},
    {"name": "prune-weights", "sparsity": 0.9},
    {"name": "prune-weights", "max_auc_drop": 0.01},
    {"name": "quantize-dense"},
    {"name": "quantize-dense", "bits": 4},
    {"name": "round-dense"},
    {"name": "quantize-tables", "bits": 8},
    {"name": "quantize-tables", "bits": 4, "scale": "table"},
    {"name": "quantize-tables", "bits": 2, "range": "max"},
    {"name": "quantize-tables", "only": ["embedding.u*"]},
    {"name": "quantize-tables", "bits": 1},
    {"name": "quantize-tables", "bits": 4, "scale": "row", "symmetric": False},
    {"name": "quantize-tables", "budget": "20 KB"},
    {"name": "mix-bits", "budget": "12 KB"},
    {"name": "codebook-tables", "parts": 4, "bits": 4},
    {"name": "codebook-tables", "parts": 2, "bits": 4, "entry_bits": 32},
    {"name": "codebook-tables", "parts": 4, "bits": 2, "assign": "interactions", "with_field": "user"},
    {"name": "codebook-tables", "budget": "20 KB"},
    {"name": "reduce-dimensions", "rank": 4},
    {"name": "reduce-dimensions", "rank": 2, "fold": False},
    {"name": "reduce-dimensions", "energy": 0.9},
    {"name": "reduce-dimensions", "budget": "20 KB"},
    {"name": "reduce-dimensions", "energy": 0.9, "by_frequency": True},
    {"name": "hash-tables", "ratio": 4, "least_rows": 8},
    {"name": "hash-tables", "method": "clustered", "chunks": 2, "ratio": 4, "least_rows": 8},
    {"name": "hash-tables", "method": "plain", "budget": "20 KB", "least_rows": 8},
    {"name": "prune-neighbours", "per_item": 8},
    {"name": "compensate-rounding"},
    *TEXT_STEPS,
]
STACKS: list[list[dict[str, Any] | str]] = [
    [{"name": "reduce-dimensions", "rank": 4}, {"name": "quantize-tables", "bits": 4}, "quantize-dense"],
    [{"name": "reduce-dimensions", "rank": 4, "fold": False}, {"name": "quantize-tables", "bits": 2}, "quantize-dense"],
    [{"name": "threshold-rows", "min_count": 3}, {"name": "codebook-tables", "parts": 4, "bits": 4}, "quantize-dense"],
    [{"name": "codebook-tables", "only": ["item"], "parts": 4, "bits": 4}, "quantize-tables", "quantize-dense"],
    [{"name": "hash-tables", "ratio": 4, "least_rows": 8}, "quantize-tables", "quantize-dense"],
    [{"name": "hash-tables", "method": "plain", "ratio": 2, "least_rows": 8}, "quantize-tables", "quantize-dense"],
    [{"name": "threshold-rows", "keep": 0.5}, {"name": "mix-bits", "budget": "6 KB"}, "quantize-dense"],
]
ARCHITECTURES = ("dcnv2", "deepfm", "dnn", "logistic-regression")
SHAPES = ("ids", "ids, sequence and numbers")
NO_DENSE_LAYERS = {"prune-neurons", "prune-weights", "quantize-dense"}  # steps that GMF leaves idle


def decibels(signal: np.ndarray, other: np.ndarray) -> float:
    """Power of the signal over the power of the difference."""
    noise = np.square(signal.astype(np.float64) - other).mean()
    return float(10 * np.log10(np.square(signal.astype(np.float64)).mean() / max(noise, 1e-30)))


@pytest.fixture(params=VARIANTS, ids=lambda v: "-".join(str(value) for value in v.values()))
def step(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture(params=SHAPES)
def case(request: pytest.FixtureRequest, problem):
    return problem(request.param)


def pairs(architectures) -> pytest.MarkDecorator:
    """Every one of the architectures over every shape of row; GMF over two ids, which is what it multiplies."""
    shapes = {"gmf": ("two ids",)}
    each = [(name, shape) for name in sorted(architectures) for shape in shapes.get(name, SHAPES)]
    return pytest.mark.parametrize(("architecture", "shape"), each)


def context_of(case) -> Context:
    train, valid = Examples.of(case.encoded.train), Examples.of(case.encoded.valid)
    return Context(train, valid, case.encoding.counts, seed=3, unsorted=unsorted_fields(case.encoding))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_step_has_a_variant() -> None:
    assert {variant["name"] for variant in VARIANTS} == set(entries("step"))


def test_the_config_survives_json_and_says_what_it_is(step) -> None:
    """With whatever settings: a run writes its recipe down, and others read it."""
    config = as_config("step", step)
    assert config.name == step["name"]
    assert as_config("step", config.model_dump(mode="json")) == config
    assert entries("step")[step["name"]].summary.endswith(".")


@pairs({*ARCHITECTURES, "gmf"})
def test_it_tells_what_it_did_and_leaves_its_input_alone_and_does_the_same_twice(
    step, architecture, shape, problem
) -> None:
    """A run that was killed applies the steps again and expects the same model."""
    case = problem(shape)
    model = case.model(architecture)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    small, records = compress(model, [step], context_of(case))
    second, again = compress(model, [step], context_of(case))
    assert same(before, model.state_dict())
    assert same(small.state_dict(), second.state_dict())
    assert records == again
    (record,) = records
    assert record["touched"] or record["skipped"]
    assert all(each["name"] and each["reason"] for each in record["skipped"])
    # A dense layer of few inputs may grow: int8 spares 3 bytes a weight and adds 10 an output and 5 an input.
    few = step["name"] == "quantize-dense" and architecture == "logistic-regression"
    assert few or record["bytes_after"] <= record["bytes_before"]
    if not record["touched"]:
        assert record["bytes_after"] == record["bytes_before"]
        assert same(before, small.state_dict())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_a_gpu_becomes_the_same_and_trains_there(step, case) -> None:
    context = context_of(case)
    there = replace(context, train=context.train.to("cuda"), valid=context.valid.to("cuda"))
    small, records = compress(case.model("dnn"), [step], context)
    other, again = compress(case.model("dnn").to("cuda"), [step], there)
    assert records == again
    assert {tensor.device.type for tensor in (*other.parameters(), *other.buffers())} == {"cuda"}
    np.testing.assert_allclose(score(other, there.valid), score(small, context.valid), atol=1e-4)
    training = Training(epochs=1, batch_size=128, learning_rate=0.01)
    histories = [
        fit(one, *rows, training, seed=1)
        for one, rows in ((small, (context.train, context.valid)), (other, (there.train, there.valid)))
    ]
    assert histories[1][0]["loss"] == pytest.approx(histories[0][0]["loss"], rel=1e-2)


@pairs({"dnn", "gmf"})
def test_the_result_trains_packs_and_ships(step, architecture, shape, problem, tmp_path) -> None:
    case = problem(shape)
    context = context_of(case)
    small, _ = compress(case.model(architecture), [step], context)
    training = Training(epochs=1, batch_size=128, learning_rate=0.01)
    history = fit(small, context.train, context.valid, training, seed=1, hooks=[KeepZeros()])
    assert np.isfinite(history[0]["loss"])
    expected = score(small, Examples.of(case.encoded.test))
    export(small, case.encoding, tmp_path / "artifact")
    model = runtime.load(tmp_path / "artifact")
    inputs = model.encoding.encode(case.dataset.test)
    assert decibels(expected, model.score(inputs)) > 40
    packed = pack(small)(torch.from_numpy(inputs.ids), torch.from_numpy(inputs.numbers)).numpy()
    assert decibels(packed, model.score(inputs)) > 60


def test_zeros_stay_zeros_when_the_result_is_retrained(case) -> None:
    context = context_of(case)
    small, _ = compress(case.model("dnn"), [{"name": "prune-weights", "sparsity": 0.8}, "quantize-dense"], context)
    masks = {name: value == 0 for name, value in small.state_dict().items() if name.endswith("weight")}
    fit(small, context.train, context.valid, Training(epochs=1, batch_size=64), seed=1, hooks=[KeepZeros()])
    for name, mask in masks.items():
        if "linears" in name:
            assert (small.state_dict()[name][mask] == 0).all()
            assert int(mask.sum()) >= 0.5 * mask.numel()


def test_tables_of_several_kinds_feed_one_integer_layer(case, tmp_path) -> None:
    """`export` refuses a layer that does not run on integers."""
    context = context_of(case)
    steps = [{"name": "quantize-tables", "only": ["user"], "bits": 4}, "quantize-tables", "quantize-dense"]
    small, _ = compress(case.model("dnn"), steps, context)
    assert isinstance(small.mlp.linears[0].lookups.inputs, TableQuantizer)
    export(small, case.encoding, tmp_path / "artifact")
    model = runtime.load(tmp_path / "artifact")
    expected = score(small, Examples.of(case.encoded.test))
    assert decibels(expected, model.score(model.encoding.encode(case.dataset.test))) > 60
    operators = open_artifact(tmp_path / "artifact").manifest["graph"]["operators"]
    assert ("Mul" in operators) == bool(case.layout.sequences)  # without averages the codes go on as they are


@pairs(RANKERS - {"logistic-regression"})
def test_all_steps_one_after_another_ship(architecture, shape, problem, tmp_path) -> None:
    """Each kind once, in the order in which they do not stand in each other's way."""
    case = problem(shape)
    order = ["threshold-rows", "join-fields", "prune-neurons", "prune-weights", "quantize-tables", "quantize-dense"]
    others = {"fold-first-layer", "mix-bits", "codebook-tables", "reduce-dimensions", "hash-tables", "prune-neighbours"}
    others |= {"compensate-rounding"}
    others |= {"round-dense", *(step["name"] for step in TEXT_STEPS)}
    assert {*order, *others} == set(entries("step"))  # others: do the same to tables, or leave layers of integers alone
    steps = [next(variant for variant in VARIANTS if variant["name"] == name) for name in order]
    context = context_of(case)
    small, records = compress(case.model(architecture), steps, context)
    idle = NO_DENSE_LAYERS if architecture == "gmf" else set()
    quiet = {record["name"] for record in records if not record["touched"]}
    assert quiet - {"join-fields"} == idle  # which leaves a table alone whose rare ids went behind a map
    expected = score(small, Examples.of(case.encoded.test))
    export(small, case.encoding, tmp_path / "artifact")
    model = runtime.load(tmp_path / "artifact")
    assert decibels(expected, model.score(model.encoding.encode(case.dataset.test))) > 40


@pytest.mark.parametrize("steps", STACKS, ids=lambda steps: ", ".join(as_config("step", step).name for step in steps))
def test_kinds_of_tables_compose_and_ship(steps, case, tmp_path) -> None:
    """`export` refuses a lookup that touches a whole table, and a layer that does not run on integers."""
    context = context_of(case)
    small, records = compress(case.model("dnn"), steps, context)
    assert all(record["touched"] for record in records)
    expected = score(small, Examples.of(case.encoded.test))
    export(small, case.encoding, tmp_path / "artifact")
    model = runtime.load(tmp_path / "artifact")
    assert decibels(expected, model.score(model.encoding.encode(case.dataset.test))) > 40
