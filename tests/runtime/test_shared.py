"""Shared features once and N candidates: the same answers as rows that hold both, and the same faults."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from slimrank.config import InputError
from slimrank.data.encoding import Inputs
from slimrank.runtime import load, shared
from slimrank.runtime.shared import SharedScorer

SHARED = {"user": 7, "history": ["tea", "unknown", "jam"]}
ITEMS = ["tea", "jam", "rye", "who knows", None]
PRICES = [1.0, 2.5, None, -3.0, 4.0]


@pytest.fixture
def scorer(linear: Any) -> SharedScorer:
    return SharedScorer(load(linear.path))


def rows(**shared_values: Any) -> list[dict[str, Any]]:
    return [{**shared_values, "item": item, "price": price} for item, price in zip(ITEMS, PRICES, strict=True)]


@pytest.mark.parametrize(
    "candidates",
    [
        rows(),
        {"item": ITEMS, "price": PRICES},
        polars.DataFrame({"item": ITEMS, "price": PRICES}),
        [{"price": 2.0, "item": "tea"}, {"price": 1.0}],
        [{"item": "tea", "price": 0.5, "more": [1]}],
    ],
)
def test_candidates_score_as_rows_that_hold_the_shared_values(scorer: SharedScorer, candidates: Any) -> None:
    found = scorer.predict(SHARED, candidates)
    frame = polars.DataFrame(candidates, strict=False)
    whole = [{**SHARED, **row} for row in frame.to_dicts()]
    expected = scorer.model.predict(whole)
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)
    assert found.unknown == {"user": 0, "history": 1, "item": expected.unknown["item"]}
    assert expected.unknown["history"] == len(whole)
    assert scorer.prepared(frozenset(SHARED)).why_joined == ""


@pytest.mark.parametrize("names", [("user",), ("item", "price"), ("history", "price"), ("user", "item", "history")])
def test_any_fields_may_be_shared(scorer: SharedScorer, names: tuple[str, ...]) -> None:
    row = {"user": 9, "item": "jam", "price": 2.0, "history": ["tea", "tea"]}
    once = {name: value for name, value in row.items() if name in names}
    columns = {name: [value] * 6 for name, value in row.items() if name not in names}
    found = scorer.predict(once, columns)
    np.testing.assert_allclose(found.probability, scorer.model.predict([row] * 6).probability, atol=1e-6)
    assert scorer.prepared(frozenset(names)).session is not None


@pytest.mark.parametrize("candidates", ["abc", b"ab", 7, None, [1, 2], ["abc"]])
def test_what_is_no_rows_is_refused_where_all_is_shared(scorer: SharedScorer, candidates: Any) -> None:
    with pytest.raises(
        InputError, match=r"allowed: a polars frame, a mapping of columns, a list of rows|must map column"
    ):
        scorer.predict({**SHARED, "item": "tea", "price": 1.0}, candidates)


def test_all_or_nothing_may_be_shared_and_there_may_be_no_candidates(scorer: SharedScorer) -> None:
    row = {**SHARED, "item": "tea", "price": 1.0}
    (expected,) = scorer.model.predict([row]).probability
    assert scorer.predict({}, [row]).probability.tolist() == [expected]
    assert scorer.predict(row, [{}, {}, {}]).probability.tolist() == [expected] * 3
    for none in ([], {"item": [], "price": []}, polars.DataFrame({"item": [], "price": []})):
        assert scorer.predict(SHARED, none if len(none) else {"item": [], "price": []}).probability.shape == (0,)


def test_encoded_rows_are_scored_too(scorer: SharedScorer) -> None:
    kept = scorer.prepared(frozenset({"user", "price"}))
    draw = np.random.default_rng(0)
    once = Inputs(np.array([[1]], np.int32), np.array([[0.5]], np.float32))
    own = Inputs(draw.integers(0, kept.own.checks.limits, (50, 4)).astype(np.int32), np.empty((50, 0), np.float32))
    expected = scorer.model.score(kept.joined(once, own))
    np.testing.assert_allclose(scorer.score({"user", "price"}, once, own), expected, atol=1e-5)
    with pytest.raises(InputError, match="shared inputs have 2 rows, must be one"):
        scorer.score({"user", "price"}, once.take(np.array([0, 0])), own)
    own.ids[3, 0] = 99
    with pytest.raises(InputError, match=r"field 'item' .*: id 99 in row 3 is out of range"):
        scorer.score({"user", "price"}, once, own)
    with pytest.raises(InputError, match=r"unknown field 'prize'\. Did you mean 'price'"):
        scorer.score({"user", "prize"}, once, own)


@pytest.mark.parametrize(
    ("once", "candidates", "fault"),
    [
        ({**SHARED, "item": "tea"}, rows(), "column 'item' is both shared and the candidates'"),
        ({"user": 7}, rows(), "missing column 'history'"),
        ({"user": 7, "histori": []}, rows(), "missing column 'history'. Did you mean 'histori'"),
        ({"user": 7, "history": "tea"}, rows(), "column 'history'"),
        ({"user": [7], "history": []}, rows(), "user"),
        ([7], rows(), "shared is a list, must map column names to values"),
        (SHARED, [{"item": "tea", "price": 1.0}, 7], "row 1 is a int, must map column names to values"),
        (SHARED, {"item": ["tea"], "price": [1.0, 2.0]}, "columns differ in length: item 1, price 2"),
        (SHARED, {"item": ["tea"], "price": [float("nan")]}, "column 'price': 1 NaN"),
        ({**SHARED, "price": float("inf")}, {"item": ["tea"]}, "column 'price': 1 infinite of 1 values"),
        (SHARED, 7, "missing column 'item'"),
    ],
)
def test_faults_are_those_of_whole_rows(scorer: SharedScorer, once: Any, candidates: Any, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        scorer.predict(once, candidates)


def test_faults_of_both_sides_are_told_at_once(scorer: SharedScorer) -> None:
    with pytest.raises(InputError) as told:
        scorer.predict({"user": 7, "history": [], "price": float("nan")}, {"item": [object()]})
    assert "price" in str(told.value)
    assert "item" in str(told.value)


def test_the_sets_that_were_asked_for_last_have_a_graph(linear: Any) -> None:
    scorer = SharedScorer(load(linear.path), most=2)
    user, history, item = (frozenset({name}) for name in ("user", "history", "item"))
    first = scorer.prepared(user)
    assert first.session is not None
    scorer.prepared(history)
    assert scorer.prepared(user) is first  # asked for again, and later than the other
    scorer.prepared(item)
    assert scorer.known == (user, item)


def test_requests_that_are_refused_have_no_graph_made(linear: Any) -> None:
    scorer = SharedScorer(load(linear.path))
    for given, columns in (({"nonsense": 1}, {"item": ITEMS}), ({"user": 7}, {"price": PRICES})):
        with pytest.raises(InputError, match="missing column"):
            scorer.predict(given, columns)
    assert scorer.known == ()


def test_no_call_waits_for_a_graph_that_is_made_in_the_background(linear: Any) -> None:
    waiting: list[Callable[[], object]] = []
    scorer = SharedScorer(load(linear.path), background=waiting.append)
    expected = scorer.model.predict(rows(user=7, history=["jam"])).probability
    columns = {"item": ITEMS, "price": PRICES, "user": [7] * 5}
    np.testing.assert_array_equal(scorer.predict({"history": ["jam"]}, columns).probability, expected)
    assert (len(waiting), scorer.known) == (1, ())
    waiting[0]()
    assert scorer.known == (frozenset({"history"}),)
    np.testing.assert_allclose(scorer.predict({"history": ["jam"]}, columns).probability, expected, atol=1e-6)
    assert len(waiting) == 1


def test_long_values_are_not_remembered(linear: Any) -> None:
    scorer = SharedScorer(load(linear.path))
    columns = {"item": ITEMS, "price": PRICES}
    for user in ("x" * 65, "x" * 64):
        scorer.predict({"user": user, "history": []}, columns)
    assert list(scorer.model.encoder._known["user"]) == ["x" * 64]


def test_a_graph_that_answers_otherwise_is_not_used(
    scorer: SharedScorer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared, "LARGEST_DIFFERENCE", -1.0)  # nothing is that close
    with caplog.at_level(logging.WARNING, "slimrank.runtime.shared"):
        found = scorer.predict(SHARED, rows())
    kept = scorer.prepared(frozenset(SHARED))
    assert kept.session is None
    assert "scores of 1 made rows differ by" in kept.why_joined
    assert "history, user shared, rows are joined: scores of 1 made rows differ" in caplog.text
    np.testing.assert_array_equal(found.probability, scorer.model.predict(rows(**SHARED)).probability)


def test_an_artifact_that_was_replaced_is_not_split(linear: Any) -> None:
    scorer = SharedScorer(load(linear.path))
    linear.path.rename(linear.path.with_name("moved"))
    kept = scorer.prepared(frozenset(SHARED))
    assert kept.session is None
    assert "no such file" in kept.why_joined
    expected = scorer.model.predict(rows(**SHARED)).probability
    np.testing.assert_array_equal(scorer.predict(SHARED, rows()).probability, expected)


def test_weights_beside_the_graph_are_mapped_from_where_they_are(make_linear: Callable[..., Any]) -> None:
    linear = make_linear(external=True)
    assert (linear.path / "model.onnx.data").exists()
    scorer = SharedScorer(load(linear.path))
    found = scorer.predict(SHARED, rows())
    assert scorer.prepared(frozenset(SHARED)).why_joined == ""
    expected = scorer.model.predict(rows(**SHARED)).probability
    np.testing.assert_allclose(found.probability, expected, atol=1e-6)


def test_many_threads_get_the_same_answers(scorer: SharedScorer) -> None:
    expected = scorer.model.predict(rows(**SHARED)).probability
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: scorer.predict(SHARED, rows()).probability, range(200)):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert scorer.prepared(frozenset(SHARED)).session is not None


def test_without_onnx_rows_are_joined_and_it_is_said(linear: Any) -> None:
    program = (
        "import sys\n"
        "sys.modules['onnx'] = None\n"
        "from slimrank.runtime import load\n"
        "from slimrank.runtime.shared import SharedScorer\n"
        f"scorer = SharedScorer(load({str(linear.path)!r}))\n"
        "print(len(scorer.predict({'user': 7, 'history': ['tea']}, {'item': ['tea'], 'price': [1.0]}).probability))\n"
        "print(scorer.prepared(frozenset({'user', 'history'})).why_joined)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1", "onnx is not installed: pip install 'slimrank[graphs]'"]
    assert "rows are joined: onnx is not installed" in done.stderr


def test_the_split_graph_is_made_of_allowed_operators(linear: Path) -> None:
    from slimrank.artifact import OPERATORS
    from slimrank.graphs.shared import split_shared

    graph = split_shared(linear.path / "model.onnx", {0, 2}, {0}).proto.graph
    assert {node.op_type for node in graph.node} <= OPERATORS
