"""Loading and scoring: equal to the arithmetic, row by row, for every way that rows come in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars
import pytest
from onnx import TensorProto, helper

from slimrank.artifact import MANIFEST, manifest_digest, render_manifest
from slimrank.config import InputError
from slimrank.data.encoding import Inputs
from slimrank.runtime import Model, load, sigmoid


def many_inputs(model: Model, rows: int) -> Inputs:
    generator = np.random.default_rng(1)
    ids = generator.integers(0, model.checks.limits, (rows, len(model.checks.limits))).astype(np.int32)
    return Inputs(ids, generator.normal(size=(rows, 1)).astype(np.float32))


@pytest.mark.parametrize("external", [False, True])
def test_scores_are_those_of_arithmetic(make_linear: Callable[..., Any], external: bool) -> None:
    linear = make_linear(external=external)
    assert (linear.path / "model.onnx.data").exists() == external
    model = load(linear.path)
    inputs = many_inputs(model, 300)
    scores = model.score(inputs)
    assert scores.dtype == np.float32
    assert scores.shape == (300,)
    np.testing.assert_allclose(scores, linear.logits(inputs), rtol=1e-5, atol=1e-6)


def test_a_row_scores_the_same_alone_in_a_batch_and_in_any_memory_layout(linear: Any) -> None:
    model = load(linear.path)
    inputs = many_inputs(model, 64)
    together = model.score(inputs)
    alone = [model.score(inputs.take(slice(row, row + 1)))[0] for row in range(64)]
    np.testing.assert_array_equal(together, np.array(alone))
    order = np.random.default_rng(2).permutation(64)
    np.testing.assert_array_equal(model.score(inputs.take(order)), together[order])
    strided = Inputs(np.asfortranarray(inputs.ids)[::-1], inputs.numbers[::-1])
    strided.ids.flags.writeable = False
    np.testing.assert_array_equal(model.score(strided), together[::-1])


def test_threads_share_a_model(linear: Any) -> None:
    model = load(linear.path, threads=2)
    batches = [many_inputs(model, rows) for rows in range(1, 65)]
    expected = [model.score(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for score, wanted in zip(pool.map(model.score, batches), expected, strict=True):
                np.testing.assert_array_equal(score, wanted)


def test_no_rows_give_no_scores(linear: Any, linear_rows: polars.DataFrame) -> None:
    model = load(linear.path)
    assert model.score(many_inputs(model, 0)).shape == (0,)
    columns: dict[str, list[Any]] = {"user": [], "item": [], "price": [], "history": []}
    for rows in ([], columns, linear_rows.head(0)):
        empty = model.predict(rows)
        assert empty.probability.shape == (0,)
        assert empty.probability.dtype == np.float32
        assert empty.unknown == {"user": 0, "item": 0, "history": 0}


def test_every_way_to_give_rows_gives_the_same(linear: Any, linear_rows: polars.DataFrame) -> None:
    model = load(linear.path)
    expected = 1 / (1 + np.exp(-linear.logits(linear.encoding.encode(linear_rows)).astype(np.float64)))
    columns = linear_rows.to_dict(as_series=False)
    arrays = {**columns, "user": np.array(columns["user"]), "price": np.array(columns["price"])}
    for rows in (
        linear_rows,
        columns,
        arrays,
        linear_rows.to_dict(),
        linear_rows.to_dicts(),
        tuple(linear_rows.to_dicts()),
    ):
        predictions = model.predict(rows)
        np.testing.assert_allclose(predictions.probability, expected, rtol=1e-6)
        assert predictions.unknown == {"user": 0, "item": 0, "history": 0}


def test_unknown_ids_are_counted_and_missing_ones_are_not(linear: Any) -> None:
    model = load(linear.path)
    rows = [
        {"user": 7, "item": "tea", "price": 1, "history": ["tea", "ale"]},
        {"user": 8, "item": "ale", "price": 1, "history": []},
        {"user": None, "price": 1, "history": None},
        {"user": 12, "item": None, "price": 1, "history": ["gin", "ale"]},
    ]
    predictions = model.predict(rows)
    assert predictions.unknown == {"user": 2, "item": 1, "history": 3}
    assert np.isfinite(predictions.probability).all()


def test_what_a_row_means_never_hangs_on_its_neighbours(linear: Any) -> None:
    model = load(linear.path)
    base = {"user": 7, "item": "tea", "price": 1.0, "history": ["tea"]}
    users = [7, 7.0, "7", 7.5, True, None, "x", 2**70, -(2**63), float("nan")]
    prices = [1, 2.5, True, None]
    histories = [["tea"], [], None, [1], [1.0, "tea"], [None, "jam"]]
    rows = [{**base, "user": user} for user in users]
    rows += [{**base, "price": price} for price in prices]
    rows += [{**base, "history": history} for history in histories]
    together = model.predict(rows)
    alone = [model.predict([row]) for row in rows]
    np.testing.assert_array_equal(together.probability, np.concatenate([each.probability for each in alone]))
    assert together.unknown == {name: sum(each.unknown[name] for each in alone) for name in together.unknown}
    np.testing.assert_array_equal(together.probability[:3], together.probability[0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"usr": 7, "item": "tea", "price": 1, "history": []}], "missing column 'user'. Did you mean 'usr'?"),
        ({"user": [7], "item": ["tea"], "price": [1]}, "missing column 'history'"),
        ({"user": [7, 9], "item": ["tea"], "price": [1], "history": [[]]}, "columns differ in length: user 2, item 1"),
        ([1], "row 0 is a int, must map column names to values"),
        ("rows", "rows are a str; allowed: a polars frame"),
        (7, "rows are a int; allowed: a polars frame"),
        ({"user": "7", "item": ["tea"], "price": [1], "history": [[]]}, "column 'user' is a str, must hold a value"),
        ([{"user": [7], "item": "tea", "price": 1, "history": []}], "row 0 holds a list; an id is an integer or text"),
        ([{"user": {}, "item": "tea", "price": 1, "history": []}], "row 0 holds a dict; an id is an integer or text"),
        ([{"user": 7, "item": "tea", "price": "dear", "history": []}], "column 'price' (numeric): unexpected value"),
        ([{"user": 7, "item": "tea", "price": 1, "history": 7}], "row 0 holds a int, must be a list"),
        ([{"user": 7, "item": "tea", "price": 1, "history": [[7]]}], "id 0 holds a list; an id is an integer or text"),
        ([{"user": 7, "item": "tea", "price": float("inf"), "history": []}], "1 infinite of 1 values"),
        ([{"user": 7, "item": "tea", "price": float("nan"), "history": []}], "1 NaN of 1 values"),
        ([{"user": 7, "item": "\ud800", "price": 1, "history": []}], "column 'item' (categorical): 'utf-8' codec"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(linear: Any, rows: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(linear.path).predict(rows)
    assert message in str(caught.value)


def test_sigmoid_from_arithmetic_and_at_the_edges() -> None:
    x = np.array([-np.inf, -1e4, -88, -1, -0.0, 0, 1, 88, 1e4, np.inf], np.float32)
    wide = x.astype(np.longdouble)
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-wide))
    np.testing.assert_allclose(sigmoid(x), expected.astype(np.float32), rtol=1e-7)
    assert sigmoid(x).dtype == np.float32
    assert np.isnan(sigmoid(np.array([np.nan], np.float32))).all()
    assert sigmoid(np.empty(0, np.float32)).shape == (0,)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_threads_must_be_a_number_of_threads(linear: Any, threads: Any) -> None:
    with pytest.raises(InputError, match=r"threads is .*, must be an integer of at least 1"):
        load(linear.path, threads=threads)


def reseal(folder: Path, **changes: object) -> None:
    manifest = {**json.loads((folder / MANIFEST).read_bytes()), **changes}
    (folder / MANIFEST).write_bytes(render_manifest({**manifest, "digest": manifest_digest(manifest)}))


@pytest.mark.parametrize("graph", [None, {}, {"operators": {}}, {"operators": ["Add"]}, [], "x"])
def test_a_manifest_without_operators_is_refused(linear: Any, graph: object) -> None:
    reseal(linear.path, graph=graph)
    with pytest.raises(InputError, match="does not list the graph's operators"):
        load(linear.path)


@pytest.mark.parametrize(
    "name", ["Loop", "RandomNormal", "com.microsoft.Attention", "ai.onnx.ml.SVMClassifier", "Mine"]
)
def test_operators_that_are_not_on_the_list_are_refused(linear: Any, name: str) -> None:
    reseal(linear.path, graph={"operators": {"Add": 1, name: 1}})
    with pytest.raises(InputError, match=f"operators not allowed: '{name}'"):
        load(linear.path)


def replace_input(
    place: int, kind: int, shape: list[Any], name: str | None = None
) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        old = model.graph.input[place]
        new = helper.make_tensor_value_info(name or old.name, kind, shape)
        if name:
            for node in model.graph.node:
                node.input[:] = [name if each == old.name else each for each in node.input]
        old.CopyFrom(new)

    return change


def add_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["N"]))


def break_graph(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Gemm"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace_input(0, TensorProto.INT32, ["N", 5], "idz"), "unknown input 'idz'. Did you mean 'ids'?"),
        (replace_input(0, TensorProto.INT32, ["N", 5], "idz"), "no input 'ids', the schema has 5 columns for it"),
        (
            replace_input(0, TensorProto.INT32, ["N", 1]),
            "input 'ids' is tensor(int32) ['N', 1], must be tensor(int32) [N, 5]",
        ),
        (
            replace_input(1, TensorProto.FLOAT, [3, 1]),
            "input 'numbers' is tensor(float) [3, 1], must be tensor(float) [N, 1]",
        ),
        (add_output, "must be logit, tensor(float) with a row for each of N"),
        (break_graph, "cannot load it"),
    ],
)
def test_a_graph_that_does_not_fit_its_schema_is_refused(
    make_linear: Callable[..., Any], change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        load(make_linear(change).path)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "schema.json", "vocabulary.parquet", MANIFEST])
def test_one_changed_byte_is_found_before_anything_is_loaded(make_linear: Callable[..., Any], name: str) -> None:
    path = make_linear(external=True).path
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: damaged"):
        load(path)


def test_the_runtime_needs_neither_torch_nor_polars_to_import() -> None:
    foreign = ["torch", "polars", "onnx", "sklearn", "pyarrow", "pandas", "starlette"]
    script = f"import sys, slimrank.runtime; sys.exit(str([m for m in {foreign} if m in sys.modules] or ''))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_scoring_needs_no_torch(linear: Any) -> None:
    script = (
        "import sys; from slimrank.runtime import load; "
        "load(sys.argv[1]).predict([{'user': 7, 'item': 'tea', 'price': 1, 'history': []}]); "
        "sys.exit(str([m for m in ('torch', 'onnx', 'sklearn', 'pyarrow', 'pandas') if m in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(linear.path)], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
