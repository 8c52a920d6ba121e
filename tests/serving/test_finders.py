"""Ranking requests of models that find items or read texts: answers equal the runtime's; the rest is a 4xx."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimrank.runtime import Model, Retriever, load, load_retriever
from slimrank.serving import Limits

HISTORY = ["item 1", "item 2", "item 3"]


@pytest.fixture(scope="module", params=["vectors", "scores"])
def found(request: pytest.FixtureRequest, finder: Callable[[str], Any], serve_once: Any) -> tuple[Any, Retriever]:
    """A finder behind a service, and the same in the runtime."""
    path = finder(request.param).path
    return serve_once({"finder": path}), load_retriever(path)


def items_and_scores(finder: Retriever, k: int) -> tuple[list[str], list[float]]:
    first = finder.top_k([{"history": HISTORY}], k)
    return first.items[0], first.scores[0].tolist()


def test_the_first_items_of_the_catalogue(found: Any) -> None:
    service, finder = found
    for k in (None, 1, 10, 20):
        asked = {"shared": {"history": HISTORY}} | ({} if k is None else {"k": k})
        answer = service.rank("finder", **asked, id="me").json()
        items, scores = items_and_scores(finder, k or 10)
        assert answer == {
            "model_name": "finder",
            "model_version": finder.artifact.digest[:12],
            "id": "me",
            "items": items,
            "score": scores,
            "unknown": {"history": 0},
            "shortened": {"history": 0},
        }


def test_more_items_than_there_are(found: Any) -> None:
    service, finder = found
    answer = service.rank("finder", shared={"history": HISTORY}, k=10**30)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["items"]) == finder.count - len(HISTORY)  # without those that were met


def test_unknown_and_older_items_of_a_history_are_told(found: Any) -> None:
    service, _ = found
    answer = service.rank("finder", shared={"history": ["?", *HISTORY, "item 4"]}, k=1).json()
    assert answer["shortened"] == {"history": 1}
    assert service.rank("finder", shared={"history": ["?", "!"]}, k=1).json()["unknown"] == {"history": 2}
    assert service.metric("unknown_values_total", model="finder", field="history") >= 2
    assert service.metric("shortened_values_total", model="finder", field="history") >= 1


@pytest.mark.parametrize("as_columns", [False, True])
def test_candidates_are_scored_by_the_query(found: Any, as_columns: bool) -> None:
    service, finder = found
    items = ["item 7", "item 4", "nothing", "item 5"]
    candidates = {"item": items} if as_columns else [{"item": each} for each in items]
    inputs = finder.encoding.encode(_frame(finder))
    expected = finder.scores(inputs)[0][finder.places(items)]
    answer = service.rank("finder", shared={"history": HISTORY}, candidates=candidates).json()
    assert answer["score"][2] is None
    np.testing.assert_allclose([answer["score"][at] for at in (0, 1, 3)], expected[[0, 1, 3]], rtol=1e-6)
    assert (answer["unknown"], answer["shortened"]) == ({"history": 0, "candidates": 1}, {"history": 0})
    best = service.rank("finder", shared={"history": HISTORY}, candidates=candidates, k=4).json()
    order = sorted((0, 1, 3), key=lambda at: -expected[at])
    assert best["top"] == order
    np.testing.assert_allclose(best["score"], expected[order], rtol=1e-6)


def _frame(finder: Retriever) -> Any:
    from slimrank.runtime.rows import as_table

    return as_table([{"history": HISTORY}], finder.encoding.schema)


def test_no_candidates_have_no_scores(found: Any) -> None:
    service, _ = found
    for candidates in ([], {}, {"item": []}):
        answer = service.rank("finder", shared={"history": HISTORY}, candidates=candidates)
        assert answer.status_code == 200, answer.text
        assert answer.json()["score"] == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "missing column 'history'"),
        ({"shared": {"histori": HISTORY}}, "missing column 'history'. Did you mean 'histori'?"),
        ({"shared": {"history": 7}}, "column 'history' (sequence): row 0 holds a int, must be a list"),
        ({"shared": {"history": [[7]]}}, "column 'history' (sequence): id 0 holds a list; an id is an integer or text"),
        ({"shared": {"history": HISTORY}, "candidates": [7]}, "is {'item': item}, got 7"),
        ({"shared": {"history": HISTORY}, "candidates": [{"items": 7}]}, "is {'item': item}, got {'items': 7}"),
        ({"shared": {"history": HISTORY}, "candidates": {"items": [7]}}, "is {'item': item}, got {'items': [7]}"),
        ({"shared": {"history": HISTORY}, "candidates": [{"item": "item 1", "price": 1}]}, "is {'item': item}, got"),
    ],
)
def test_requests_that_are_wrong(found: Any, request_: dict[str, Any], message: str) -> None:
    answer = found[0].rank("finder", **request_)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]


@pytest.mark.parametrize("value", [None, True, 1.5, 7, 10**30, {"a": 1}, [1], [[]], "", "\x00", "x" * 5000])
def test_candidates_of_any_type_are_unknown_or_refused(found: Any, value: Any) -> None:
    for items in ([value], ["item 1", value], [value, "item 1"]):
        answer = found[0].rank("finder", shared={"history": HISTORY}, candidates={"item": items})
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 200:
            assert answer.json()["unknown"]["candidates"] >= 1


def test_a_finder_answers_tensors_too(found: Any) -> None:
    service, finder = found
    inputs = finder.encoding.encode(_frame(finder))
    name = "vector" if "vector" in finder.outputs else "scores"
    asked = [{"name": "ids", "shape": list(inputs.ids.shape), "datatype": "INT32", "data": inputs.ids.ravel().tolist()}]
    answer = service.infer("finder", inputs=asked).json()
    expected = finder.vectors(inputs) if name == "vector" else finder.scores(inputs)
    assert (answer["outputs"][0]["name"], answer["outputs"][0]["shape"]) == (name, list(expected.shape))
    np.testing.assert_allclose(answer["outputs"][0]["data"], expected.ravel(), rtol=1e-6)


@pytest.fixture(scope="module")
def texts(tokenizer: bytes, tmp_path_factory: pytest.TempPathFactory, serve_once: Any) -> tuple[Any, Model]:
    """A model that reads pairs of texts, as it was drawn, behind a service."""
    path = tmp_path_factory.mktemp("texts") / "texts"
    export_pairs(tokenizer, path)
    return serve_once(path, limits=Limits(max_text=100)), load(path)


def export_pairs(tokenizer: bytes, path: Path) -> None:
    from slimrank.data.encoding import Encoding
    from slimrank.data.text import TextCodec
    from slimrank.exporting.artifact import export
    from slimrank.models.architecture import build_model
    from slimrank.models.cross_encoder import CrossEncoder
    from slimrank.models.text_encoder import TextModel
    from slimrank.tables.embedding import Layout

    codec = TextCodec(tokenizer, 16)
    small = {"embedding_dim": 16, "layers": 1, "heads": 2, "hidden": 24, "embedding_std": 0.5, "separator": 4}
    model = build_model(CrossEncoder.parse(small), Layout(("claim",), (codec.size,), (16,), 0, ("claim",)), seed=1)
    assert isinstance(model, TextModel)
    model.codec = codec
    export(model, Encoding.of_text(codec, "claim", "document"), path)


def test_a_query_is_said_once_for_all_its_texts(texts: Any) -> None:
    service, model = texts
    documents = ["the dog", "cats sat on the mat", "", "unwell"]
    expected = model.predict([{"claim": "the cat", "document": each} for each in documents]).probability
    for request in (
        {"shared": {"claim": "the cat"}, "candidates": {"document": documents}},
        {"shared": {"claim": "the cat"}, "candidates": [{"document": each} for each in documents]},
        {"candidates": {"document": documents, "claim": ["the cat"] * 4}},
    ):
        answer = service.rank("texts", **request)
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["probability"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "request_",
    [
        {"shared": {"claim": "x" * 101}, "candidates": [{"document": ""}]},
        {"shared": {"claim": ""}, "candidates": [{"document": ""}, {"document": "x" * 101}]},
        {"shared": {"claim": ""}, "candidates": {"document": ["x" * 101]}},
        {"candidates": {"document": [""], "claim": ["x" * 101]}},
        {"candidates": [{"document": "", "claim": "x" * 101}]},
    ],
)
def test_texts_that_are_too_long(texts: Any, request_: dict[str, Any]) -> None:
    answer = texts[0].rank("texts", **request_)
    assert answer.status_code == 413, answer.text
    assert "a text of 101 characters, at most 100 are allowed" in answer.json()["error"]


@pytest.mark.parametrize("value", [7, None, ["the"], {"a": 1}, True, 1.5])
def test_what_is_no_text_is_refused(texts: Any, value: Any) -> None:
    for request in (
        {"shared": {"claim": value}, "candidates": [{"document": ""}]},
        {"shared": {"claim": ""}, "candidates": [{"document": value}]},
    ):
        answer = texts[0].rank("texts", **request)
        assert answer.status_code in (200, 400), answer.text
        if value is not None:
            assert "must be text" in answer.json()["error"]
