"""Bytes and latency of a real artifact. No time is asserted, only what is measured and how often."""

import gc
import itertools
import math
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from slimrank import runtime
from slimrank.artifact import open_artifact
from slimrank.config import InputError
from slimrank.data.encoding import Encoding, Inputs
from slimrank.data.schema import Field, Schema
from slimrank.evaluation.cost import TURN, bytes_of, compared_bytes, floor, latency, quantile_interval, throughput
from slimrank.evaluation.resident import resident_now, spread_rows
from slimrank.runtime.wire import sent


@dataclass(frozen=True)
class Recorded:
    """A model whose session notes the rows of every call before it runs the real one."""

    model: runtime.Model
    name: str
    calls: list[tuple[str, np.ndarray]] = field(default_factory=list)

    @property
    def session(self) -> Any:
        return self

    def get_inputs(self) -> Any:
        return self.model.session.get_inputs()

    def run(self, outputs: Any, feeds: dict[str, np.ndarray]) -> Any:
        self.calls.append((self.name, feeds["ids"]))
        assert not gc.isenabled()
        return self.model.session.run(outputs, feeds)


def some_inputs(encoding, rows=50):
    return spread_rows(encoding, rows)


@pytest.mark.parametrize("external", [False, True])
def test_bytes_on_disk_are_those_of_the_files(make_linear, external):
    path = make_linear(external=external).path
    found = bytes_of(path)
    graph = [path / "model.onnx", *([path / "model.onnx.data"] if external else [])]
    of_wire = ["wire", "wire_graph", "wire_vocabulary", "wire_brotli"]
    assert list(found) == ["disk", "vocabulary", *of_wire, "resident"]
    assert found["disk"] == sum(file.stat().st_size for file in graph)
    assert found["vocabulary"] == (path / "vocabulary.parquet").stat().st_size
    assert [found[name] for name in of_wire] == list(sent(open_artifact(path)).values())
    assert 0 < found["resident"] < 2**30


def test_models_compared_are_told_without_a_process_of_their_own(make_linear, tmp_path):
    path = make_linear().path
    (tmp_path / "scores.csv").write_text("logit\n0.5\n")
    found = compared_bytes({"a": path, "b": tmp_path / "scores.csv"})
    assert list(found) == ["a"]
    assert found["a"] == {key: value for key, value in bytes_of(path).items() if key != "resident"}


def test_bytes_of_a_damaged_artifact_are_refused(linear, tmp_path):
    (linear.path / "vocabulary.parquet").unlink()
    with pytest.raises(InputError, match=r"vocabulary\.parquet"):
        bytes_of(linear.path)
    with pytest.raises(InputError, match="absent"):
        bytes_of(tmp_path / "absent")


def test_the_child_hands_over_why_it_cannot_load(make_linear):
    def rename(model):
        model.graph.output[0].name = model.graph.node[-1].output[0] = "score"

    with pytest.raises(InputError, match=r"cannot measure resident memory: .*must be logit"):
        bytes_of(make_linear(rename).path)


def test_memory_in_use_is_counted():
    before = resident_now()
    held = np.ones(8_000_000, np.float64)
    assert 0.9 * held.nbytes < resident_now() - before < 1.3 * held.nbytes


def test_the_child_that_measures_imports_no_torch(linear):
    code = "import sys, slimrank.evaluation.resident; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_spread_rows_touch_every_table_from_end_to_end(linear):
    inputs = spread_rows(linear.encoding, 256)
    sizes = [linear.encoding.sizes[name] for name in linear.encoding.schema.columns]
    assert inputs.ids.min() == 0
    assert inputs.ids.max(axis=0).tolist() == [size - 1 for size in sizes]
    assert runtime.load(linear.path).score(inputs).shape == (256,)


def test_latency_is_reported_by_name_and_rows(linear):
    model = runtime.load(linear.path)
    found = latency({"a": model, "b": model}, some_inputs(linear.encoding), sizes=(1, 8), samples=368)
    assert list(found) == ["a", "b"]
    assert list(found["a"]) == ["1", "8"]
    for times in (*found["a"].values(), *found["b"].values()):
        assert list(times) == ["p50", "p99", "samples", "p50_interval", "p99_interval", "quantiles"]
        assert sorted(times["quantiles"].values()) == list(times["quantiles"].values())
        assert times["quantiles"]["50"] == times["p50"]
        assert times["samples"] == 368
        assert 0 < times["p50"] <= times["p99"] < math.inf
        assert times["p50_interval"][0] <= times["p50"] <= times["p50_interval"][1] <= times["p99"]
        assert times["p99_interval"][0] <= times["p99"] <= times["p99_interval"][1]


def test_models_take_turns_on_rows_that_change(linear):
    model, calls = runtime.load(linear.path), []
    inputs = some_inputs(linear.encoding)
    latency({name: Recorded(model, name, calls) for name in "ab"}, inputs, sizes=(8,), samples=368)
    assert gc.isenabled()
    names = [name for name, _ in calls]
    turns = [list(turn) for _, turn in itertools.groupby(names)]
    assert {len(turn) for turn in turns[:-2]} == {TURN}
    assert [turn[0] for turn in turns] == ["a", "b"] * (len(turns) // 2)
    assert names.count("a") == names.count("b") > 368
    of_a, of_b = ([ids.tolist() for name, ids in calls if name == wanted] for wanted in "ab")
    assert of_a == of_b
    assert of_a[0] != of_a[1]
    stacked = np.concatenate([ids for name, ids in calls if name == "a"])
    assert {tuple(row) for row in stacked.tolist()} == {tuple(row) for row in inputs.ids.tolist()}


def test_every_model_may_have_its_own_rows(linear):
    model, calls = runtime.load(linear.path), []
    inputs = some_inputs(linear.encoding)
    zeros = Inputs(np.zeros_like(inputs.ids), inputs.numbers)
    models = {name: Recorded(model, name, calls) for name in "ab"}
    latency(models, {"a": inputs, "b": zeros}, sizes=(4,), samples=368)
    assert not any(ids.any() for name, ids in calls if name == "b")
    assert all(ids.shape == (4, inputs.ids.shape[1]) for _, ids in calls)


def test_fewer_rows_than_asked_for_go_round(linear):
    model = runtime.load(linear.path)
    assert latency({"a": model}, some_inputs(linear.encoding, 3), sizes=(32,), samples=368)["a"]["32"]["samples"] == 368


def test_what_cannot_be_timed_is_refused(linear):
    model = runtime.load(linear.path)
    with pytest.raises(InputError, match="got 367, allowed 368 or more"):
        latency({"a": model}, some_inputs(linear.encoding), samples=367)
    with pytest.raises(InputError, match="no rows to time: a"):
        latency({"a": model}, some_inputs(linear.encoding).take(slice(0, 0)))


def test_the_floor_looks_up_the_same_ids_in_a_table_of_the_same_bytes(linear):
    inputs, sizes = some_inputs(linear.encoding), linear.encoding.sizes
    rows = sum(sizes.values())
    lowest = floor(inputs, linear.encoding, table_bytes=rows * 16)
    (looked_up,) = lowest.session.run(None, {"ids": lowest.inputs.ids})
    assert looked_up.shape == (*inputs.ids.shape, 16)
    assert looked_up.dtype == np.uint8
    assert lowest.inputs.ids.max() == rows - 1
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    columns = linear.encoding.schema.columns
    assert (lowest.inputs.ids - inputs.ids == [starts[name] for name in columns]).all()
    table = np.frombuffer(np.random.default_rng(0).bytes(rows * 16), np.uint8).reshape(rows, 16)
    assert (looked_up == table[lowest.inputs.ids]).all()


def test_the_floor_is_timed_beside_the_models(linear):
    model, inputs = runtime.load(linear.path), some_inputs(linear.encoding)
    lowest = floor(inputs, linear.encoding, table_bytes=1)
    found = latency({"slim": model, "floor": lowest}, {"slim": inputs, "floor": lowest.inputs}, (1,), 368)
    assert found["floor"]["1"]["samples"] == 368


def test_a_floor_that_cannot_be_is_refused(linear):
    with pytest.raises(InputError, match="below 2 GB"):
        floor(some_inputs(linear.encoding), linear.encoding, table_bytes=3 << 30)
    schema = Schema(fields=(Field(name="price", kind="numeric"),))
    numbers = Inputs(np.zeros((2, 0), np.int32), np.zeros((2, 1), np.float32))
    with pytest.raises(InputError, match="looks nothing up"):
        floor(numbers, Encoding(schema, {}, {}), table_bytes=10)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("count", [368, 400, 1000])
def test_the_interval_of_a_quantile_is_the_binomial_one(share, count):
    low, high = quantile_interval(np.arange(1, count + 1), share)
    held = binom.cdf(high - 1, count, share) - binom.cdf(low - 1, count, share)
    assert held >= 0.95
    assert binom.cdf(low, count, share) > 0.025  # a value further in would not do
    assert binom.cdf(high - 2, count, share) < 0.975


def test_95_of_100_intervals_hold_the_quantile_of_a_skewed_distribution():
    draw = np.random.default_rng(0)
    found = [quantile_interval(draw.lognormal(size=400), 0.99) for _ in range(1000)]
    truth = float(np.exp(2.3263478740408408))
    assert sum(low <= truth <= high for low, high in found) >= 945


def test_too_few_values_bound_no_p99():
    with pytest.raises(InputError, match="367 values bound no 99% quantile at 95%"):
        quantile_interval(np.arange(367), 0.99)


def test_throughput_counts_rows_of_all_callers(linear):
    model = runtime.load(linear.path)
    rows = some_inputs(linear.encoding)
    found = throughput({"a": model, "b": model}, {"a": rows, "b": rows}, workers=2, size=8, seconds=0.02)
    assert set(found) == {"a", "b"}
    assert all(0 < rate < math.inf for rate in found.values())
    with pytest.raises(InputError, match="no rows to score: a"):
        throughput({"a": model}, {"a": rows.take(slice(0, 0))}, workers=1)
