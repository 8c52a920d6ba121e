"""Scores for a file of rows, and what is in an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from slimrank.artifact import MANIFEST
from slimrank.config import InputError
from slimrank.data.encoding import Encoding
from slimrank.data.schema import Field, Schema
from slimrank.runtime import files, load, load_graph
from slimrank.runtime.files import answer_file, answer_pieces, predict_file, predict_pieces
from slimrank.runtime.inspect import inspect


def test_a_file_gets_its_scores_in_the_order_of_its_rows(
    linear: Any, linear_rows: polars.DataFrame, tmp_path: Path
) -> None:
    linear_rows.write_parquet(tmp_path / "rows.parquet")
    model, out = load(linear.path), tmp_path / "scores.parquet"
    predictions = predict_file(model, tmp_path / "rows.parquet", out)
    written = polars.read_parquet(out)
    assert written.columns == [*linear_rows.columns, "probability"]
    np.testing.assert_array_equal(written["probability"], predictions.probability)
    np.testing.assert_array_equal(predictions.probability, model.predict(linear_rows).probability)
    assert [path.name for path in tmp_path.glob("scores*")] == ["scores.parquet"]


def test_lists_have_no_place_in_a_csv_file(linear: Any, linear_rows: polars.DataFrame, tmp_path: Path) -> None:
    linear_rows.write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"scores\.csv: could not be written: .*nested data"):
        predict_file(load(linear.path), tmp_path / "rows.parquet", tmp_path / "scores.csv")
    assert not (tmp_path / "scores.csv").exists()


def test_pieces_give_what_the_whole_gives(linear: Any, linear_rows: polars.DataFrame) -> None:
    model = load(linear.path)
    rows = polars.concat([linear_rows.with_columns(item=polars.lit("ale")), linear_rows] * (files.PIECE // 10))
    assert len(rows) > files.PIECE
    whole, pieces = model.predict(rows), predict_pieces(model, rows)
    np.testing.assert_array_equal(whole.probability, pieces.probability)
    assert whole.unknown == pieces.unknown
    assert pieces.unknown["item"] == len(rows) // 2
    assert predict_pieces(model, rows.head(0)).probability.shape == (0,)


def test_a_graph_answers_a_file_by_the_columns_of_its_inputs(
    asked_by_tensors: Path, tmp_path: Path, monkeypatch
) -> None:
    graph = load_graph(asked_by_tensors)
    frame = polars.DataFrame({"user": [3, 19, 3], "numbers_0": [1.0, -2.0, 0.5], "numbers_1": [0.0, 1.0, 2.0]})
    frame.write_csv(tmp_path / "rows.csv")
    expected = graph.run({"user": frame["user"].to_numpy(), "numbers": frame[:, 1:].to_numpy().astype(np.float32)})
    monkeypatch.setattr(files, "PIECE", 2)
    found = answer_file(graph, tmp_path / "rows.csv", tmp_path / "out.parquet")
    np.testing.assert_allclose(found["score"], expected["score"].ravel(), rtol=1e-6)  # a number a row, and no list
    np.testing.assert_allclose(found["pair"], expected["pair"], rtol=1e-6)
    written = polars.read_parquet(tmp_path / "out.parquet")
    assert written.columns == [*frame.columns, "score", "pair"]
    np.testing.assert_allclose(written["pair"].to_list(), expected["pair"], rtol=1e-6)
    with pytest.raises(InputError, match=r"out\.csv: could not be written: .*CSV"):
        answer_file(graph, tmp_path / "rows.csv", tmp_path / "out.csv")
    with pytest.raises(InputError, match="already has a column 'score'"):
        answer_file(graph, tmp_path / "out.parquet", tmp_path / "again.parquet")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"usr": [1], "age": [1], "numbers_0": [1.0], "numbers_1": [1.0]},
            "no column for input 'user'.* Did you mean 'usr'",
        ),
        ({"user": [20], "numbers_0": [1.0], "numbers_1": [1.0]}, r"id 20 in row 0 is out of range, allowed 0\.\.19"),
        ({"user": [1], "numbers_0": ["dear"], "numbers_1": [1.0]}, "column 'numbers_0' is of type String"),
        ({"user": [], "numbers_0": [], "numbers_1": []}, "0 rows"),
    ],
)
def test_rows_that_a_graph_does_not_take(columns: dict[str, Any], said: str, asked_by_tensors: Path) -> None:
    types = {"user": polars.Int64} if columns.get("user") == [] else None
    frame = polars.DataFrame(columns, schema_overrides=types)
    if types:
        frame = frame.with_columns(polars.col("numbers_0", "numbers_1").cast(polars.Float32))
    with pytest.raises(InputError, match=said):
        answer_pieces(load_graph(asked_by_tensors), frame)


def test_files_that_cannot_be_scored_are_named(linear: Any, linear_rows: polars.DataFrame, tmp_path: Path) -> None:
    model, good = load(linear.path), tmp_path / "good.parquet"
    linear_rows.write_parquet(good)
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:-50])
    (tmp_path / "empty.csv").write_bytes(b"")
    linear_rows.with_columns(probability=0.5).write_parquet(tmp_path / "scored.parquet")
    for name, out, message in [
        ("none.parquet", None, "none.parquet: no such file"),
        ("cut.parquet", None, "cut.parquet: truncated, or not a Parquet file"),
        ("empty.csv", None, "empty.csv is empty: 0 bytes"),
        ("rows.parquett", None, "unknown kind of file '.parquett'. Did you mean '.parquet'?"),
        ("good.parquet", "out.json", "unknown kind of file '.json'"),
        ("good.parquet", "none/out.parquet", "none is no directory"),
        ("scored.parquet", "out.parquet", "already has a column 'probability'"),
    ]:
        with pytest.raises(InputError) as caught:
            predict_file(model, tmp_path / name, out and tmp_path / out)
        assert message in str(caught.value)
    assert not list(tmp_path.glob("out*"))


def test_an_output_that_cannot_be_put_in_place_leaves_nothing(
    linear: Any, linear_rows: polars.DataFrame, tmp_path: Path
) -> None:
    linear_rows.write_parquet(tmp_path / "rows.parquet")
    out = tmp_path / "out.parquet"
    out.mkdir()
    (out / "in the way").touch()
    with pytest.raises(InputError, match="could not be written: Is a directory"):
        predict_file(load(linear.path), tmp_path / "rows.parquet", out)
    assert not list(tmp_path.glob("*partial*"))


def test_inspect_says_what_is_in_an_artifact(linear: Any) -> None:
    found = inspect(linear.path)
    assert json.loads(json.dumps(found)) == found
    assert found["schema"]["fields"][0] == {"name": "user", "kind": "categorical"}
    assert found["sizes"] == linear.encoding.sizes
    assert found["operators"] == {"Add": 2, "Gather": 1, "MatMul": 1, "ReduceSum": 1, "Squeeze": 1}
    assert next(iter(found["operators"])) == "Add"
    assert found["tensors"][0]["name"] == "weights"
    assert found["tensors"][0]["bytes"] == linear.weights.nbytes
    assert sum(tensor["share"] for tensor in found["tensors"]) == pytest.approx(1)
    assert found["metrics"] == {"auc": 0.75}
    on_disk = {path.name: path.stat().st_size for path in linear.path.iterdir() if path.name != MANIFEST}
    assert {name: record["bytes"] for name, record in found["files"].items()} == on_disk
    assert found["bytes"] == sum(on_disk.values())
    (linear.path / "README.md").unlink()
    with pytest.raises(InputError, match=r"README\.md: missing"):
        inspect(linear.path)


ADDRESSES = Encoding.fit(
    Schema(fields=(Field(name="zip", kind="categorical"), Field(name="age", kind="categorical"))),
    polars.DataFrame({"zip": ["05001", "05002", "V3N4P"], "age": [7, 8, 9]}),
)


@pytest.mark.parametrize(("name", "separator"), [("rows.csv", ","), ("rows.tsv", "\t")])
def test_text_of_the_vocabulary_is_read_as_text(tmp_path: Path, name: str, separator: str) -> None:
    (tmp_path / name).write_text("zip,age,other\n05001,7,1\n05002,9,2\n".replace(",", separator))
    frame = files.read_rows(tmp_path / name, [ADDRESSES])
    inputs, unknown = ADDRESSES.encode_counting(frame)
    assert frame["zip"].to_list() == ["05001", "05002"]
    assert inputs.ids.tolist() == [[1, 1], [2, 3]]
    assert unknown == {"zip": 0, "age": 0}


def test_a_column_that_turns_to_text_late_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("zip,age\n" + "1,7\n" * 12_000 + "V3N4P,7\n")
    assert files.read_rows(path, [ADDRESSES])["zip"][-1] == "V3N4P"


def test_damaged_parquet_is_an_error_and_no_panic(tmp_path: Path) -> None:
    polars.DataFrame({"zip": [str(n) for n in range(3000)], "age": range(3000)}).write_parquet(
        tmp_path / "good.parquet"
    )
    content, draw = (tmp_path / "good.parquet").read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(300):
        damaged = bytearray(content)
        for place in draw.integers(4, len(content), 3):
            damaged[place] = int(draw.integers(256))
        (tmp_path / "bad.parquet").write_bytes(bytes(damaged))
        try:
            files.read_rows(tmp_path / "bad.parquet", [ADDRESSES])
        except InputError as error:
            messages.append(str(error))
    assert messages
    assert all("bad.parquet" in message for message in messages)
