"""Models of scikit-learn as its converter writes them, fitted to rows of Frappe: the same answers in fewer bytes."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas
import polars as pl
import pytest
from onnx import numpy_helper
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from slimrank.data.datasets.frappe import FIELDS
from slimrank.data.files import locate
from slimrank.graphs.compress import compress_graph
from slimrank.metrics import auc

KEEP_FLOATS: tuple[str, ...] = ()
FITTED, ROWS = 4000, 6000
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\nfrom slimrank.cli import main\nmain()"


@pytest.fixture(scope="session")
def clicks() -> tuple[np.ndarray, np.ndarray]:
    """Ids [6000, 10] of Frappe and clicks; the first 4000 rows are fitted to."""
    files = locate(None, ["frappe"], [("train.parquet",)])
    if files is None:
        pytest.skip("SLIMRANK_DATA holds no frappe/train.parquet")
    frame = pl.read_parquet(files[0]).sample(ROWS, seed=0)
    return frame.select(FIELDS).to_numpy().astype(np.int64), frame["label"].to_numpy().astype(np.int64)


def fitted(model: Any, x: Any, y: np.ndarray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rounds: what is tested is not how well it converges
        return model.fit(x, y)


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A fitted model as its converter writes it, for the columns of `x`."""

    def make(model: Any, x: Any, **options: Any) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from skl2onnx import convert_sklearn
            from skl2onnx.common.data_types import guess_data_type

            types = [("X", guess_data_type(x)[0][1])] if isinstance(x, np.ndarray) else guess_data_type(x)
            kinds = [(name, kind.__class__([None, kind.shape[1]])) for name, kind in types]
            last = model.steps[-1][1] if hasattr(model, "steps") else model
            proto = convert_sklearn(model, initial_types=kinds, options={id(last): options} if options else None)
        path = tmp_path_factory.mktemp("sklearn") / "model.onnx"
        onnx.save(proto, path)
        return path

    return make


def answers(path: Path, feeds: dict[str, np.ndarray]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, feeds)
    return found


def steps_of(path: Path, name: str) -> np.ndarray:
    """The steps of the fields of a table."""
    held = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    return held[f"{name}_steps"]


def test_a_linear_model_of_one_hot_ids_becomes_lookups_in_bytes(clicks, converted, tmp_path) -> None:
    """A score is a sum of ten weights, each rounded by half a step at most; a probability moves a quarter of that."""
    x, y = clicks
    model = fitted(make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()), x[:FITTED], y[:FITTED])
    path, out = converted(model, x), tmp_path / "small.onnx"
    with_maps = onnx.load(path).graph.output[1].type
    assert with_maps.HasField("sequence_type")
    done = compress_graph(path, out, [{"name": "quantize-tables", "range": "max"}, "quantize-dense"], {"X": x[:FITTED]})
    assert onnx.load(out).graph.output[1].type == with_maps
    onnx.checker.check_model(onnx.load(out))
    assert {"OneHotEncoder", "LinearClassifier"}.isdisjoint(node.op_type for node in onnx.load(out).graph.node)
    (label, before), (new_label, after) = (answers(each, {"X": x[FITTED:]}) for each in (path, out))
    old, new = (np.array([row[1] for row in each]) for each in (before, after))
    bound = float(steps_of(out, "LinearClassifier.coefficients.rows").sum()) / 2 / 4
    assert 0 < np.abs(old - new).max() <= bound + 1e-6
    assert (label == new_label).mean() > 0.99
    assert done["bytes_before"] > 5 * done["bytes_after"]
    assert done["agreement"] == {"output_label": {"equal": pytest.approx(1, abs=0.01)}}
    assert done["percent_touched"] > 97


def test_ids_that_were_never_met_count_nothing_as_before(clicks, converted, tmp_path) -> None:
    x, y = clicks
    model = fitted(make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()), x[:FITTED], y[:FITTED])
    path, out = converted(model, x, zipmap=False), tmp_path / "floats.onnx"
    compress_graph(path, out, KEEP_FLOATS)
    strange = x[:8].copy()
    strange[0], strange[1, 1], strange[2, 1], strange[3, 0] = -(1 << 40), 1 << 40, x[:FITTED, 1].min() - 1, -1
    strange[4, 1] = next(each for each in range(5000) if each not in set(x[:FITTED, 1]) and each > x[:, 1].min())
    for before, after in zip(*(answers(each, {"X": strange}) for each in (path, out)), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)


def test_ids_that_an_encoder_refuses_are_refused(clicks, converted, tmp_path) -> None:
    x, y = clicks
    for columns, unknown in ((x[:FITTED, :2], 7), (x[:FITTED, 2:9], x.max() + 1)):  # with gaps, and without
        model = fitted(make_pipeline(OneHotEncoder(), MLPClassifier((64,), max_iter=1)), columns, y[:FITTED])
        path, out = converted(model, columns, zipmap=False), tmp_path / "floats.onnx"
        done = compress_graph(path, out, KEEP_FLOATS)
        assert done["rewritten"], "the encoders are still there"
        for before, after in zip(*(answers(each, {"X": columns}) for each in (path, out)), strict=True):
            np.testing.assert_allclose(after, before, atol=1e-6)
        strange = columns[:4].copy()
        strange[2, 1] = unknown
        for each in (path, out):
            with pytest.raises(Exception, match=r"(?i)unknown|out of data bounds"):
                answers(each, {"X": strange})


def test_a_perceptron_of_one_hot_ids_in_four_bits(clicks, converted, tmp_path, over_noise) -> None:
    """Rounding moves each unit of the first layer by ten half steps at most, and later layers add that up."""
    x, y = clicks
    network = MLPClassifier((32, 16), max_iter=4, random_state=0)
    model = fitted(make_pipeline(OneHotEncoder(handle_unknown="ignore"), network), x[:FITTED], y[:FITTED])
    path, out = converted(model, x, zipmap=False), tmp_path / "small.onnx"
    compress_graph(path, out, [{"name": "quantize-tables", "bits": 4, "range": "max"}], {"X": x[:FITTED]})
    before, after = (answers(each, {"X": x[FITTED:]})[1] for each in (path, out))
    moved = np.full(32, float(steps_of(out, "coefficient.rows").sum()) / 2)
    for weight in network.coefs_[1:]:
        moved = moved @ np.abs(weight)
    assert 0 < np.abs(before - after).max() <= float(moved[0]) / 4 + 1e-6
    done = compress_graph(path, out, [{"name": "quantize-tables", "bits": 4}, "quantize-dense"], {"X": x[:FITTED]})
    after = answers(out, {"X": x[FITTED:]})[1]
    assert over_noise(before, after) > 35
    assert done["bytes_before"] > 6 * done["bytes_after"]
    assert done["percent_touched"] > 97
    scores = [float(auc(y[FITTED:], each[:, 1])) for each in (before, after)]
    assert scores[0] > 0.7
    assert abs(scores[0] - scores[1]) < 0.002


def test_numbers_beside_one_hot_ids_are_multiplied_as_they_were(clicks, converted, tmp_path) -> None:
    x, y = clicks
    frame = pandas.DataFrame({"user": x[:, 0], "item": x[:, 1], "cost": x[:, 6].astype(np.float32)})
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["user", "item"]), (StandardScaler(), ["cost"])
    )
    model = fitted(make_pipeline(columns, MLPClassifier((16,), max_iter=2)), frame[:FITTED], y[:FITTED])
    path, out = converted(model, frame, zipmap=False), tmp_path / "floats.onnx"
    done = compress_graph(path, out, KEEP_FLOATS)
    assert len(done["rewritten"]) == 1
    feeds = {name: frame[[name]].to_numpy()[FITTED:] for name in frame}
    for before, after in zip(*(answers(each, feeds) for each in (path, out)), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_perceptron_of_numbers_is_int8(clicks, converted, tmp_path, over_noise) -> None:
    x, y = clicks
    numbers = x.astype(np.float32)
    network = MLPClassifier((64, 32), max_iter=4, random_state=0)
    model = fitted(make_pipeline(StandardScaler(), network), numbers[:FITTED], y[:FITTED])
    path, out = converted(model, numbers, zipmap=False), tmp_path / "small.onnx"
    done = compress_graph(path, out, data={"X": numbers[:FITTED]})
    before, after = (answers(each, {"X": numbers[FITTED:]})[1] for each in (path, out))
    assert over_noise(before, after) > 35
    assert [each.split(":")[0] for each in done["steps"][1]["touched"]] == [
        "coefficient",
        "coefficient1",
        "coefficient2",
    ]
    assert done["bytes_after"] < done["bytes_before"]


@pytest.mark.parametrize("labels", [[0, 1, 2], ["buy", "click", "pass"]])
def test_several_classes_keep_their_names(labels, converted, tmp_path) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 2000)).astype(np.float32)
    y = np.array(labels)[(x[:, :3]).argmax(axis=1)]
    path, out = converted(fitted(LogisticRegression(max_iter=20), x, y), x, zipmap=False), tmp_path / "small.onnx"
    done = compress_graph(path, out, KEEP_FLOATS)
    (label, scores), (new_label, new_scores) = (answers(each, {"X": x}) for each in (path, out))
    assert list(label) == list(new_label)
    np.testing.assert_allclose(new_scores, scores, atol=1e-6)
    small = compress_graph(path, out, data={"X": x})
    assert done["bytes_before"] > done["bytes_after"] > 2 * small["bytes_after"]
    np.testing.assert_allclose(answers(out, {"X": x})[1], scores, atol=0.02)


def test_a_regression_of_many_numbers_is_a_product_and_one_of_few_stays(converted, tmp_path) -> None:
    draw = np.random.default_rng(0)
    for width, told in ((2000, "rewritten"), (10, "left")):
        x = draw.normal(size=(50, width)).astype(np.float32)
        path, out = converted(Ridge().fit(x, draw.normal(size=50)), x), tmp_path / "small.onnx"
        done = compress_graph(path, out, KEEP_FLOATS)
        assert len(done["rewritten"]) == (told == "rewritten")
        assert bool(done["left"]) == (told == "left")
        before, after = (answers(each, {"X": x})[0] for each in (path, out))
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    assert "a product would take no fewer" in done["left"]["ai.onnx.ml::LinearRegressor LinearRegressor"]


def test_the_command_line_says_what_became_of_it_without_torch(clicks, converted, tmp_path) -> None:
    x, y = clicks
    model = fitted(make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()), x[:FITTED], y[:FITTED])
    path = converted(model, x, zipmap=False)
    np.savez(tmp_path / "rows.npz", X=x)
    words = ["compress", path, "--data", tmp_path / "rows.npz", "--out", tmp_path / "small.onnx"]
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rewritten LinearClassifier LinearClassifier: a product with " in done.stdout
    assert "output probabilities: " in done.stdout
