"""Finding: the first items are those of brute force, whatever is asked, and what cannot be asked is refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from slimrank.artifact import SEALED_KEYS, open_artifact, write_artifact
from slimrank.config import InputError
from slimrank.indexing.codes import CodesIndex
from slimrank.indexing.exact import Exact
from slimrank.indexing.heads import first_of
from slimrank.indexing.index import build_index
from slimrank.runtime import Retriever, load, load_retriever

Made = Callable[[str], Any]
KINDS = ("vectors", "codes", "scores")


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, finder: Made) -> tuple[Any, Retriever]:
    made = finder(request.param)
    return made, load_retriever(made.path)


@pytest.fixture
def model(finder: Made) -> Retriever:
    return load_retriever(finder("vectors").path)


def by_hand(made: Any, model: Retriever, k: int, *, leave_out_met: bool = True) -> list[list[str]]:
    """The first k items of every test row by the model in torch, one sort a row."""
    ids = torch.from_numpy(made.encoded.test.inputs.ids)
    with torch.inference_mode():
        answers = made.model(ids)
        scores = (answers if "scores" in model.outputs else answers @ made.model.all_items().T)[:, 2:].double()
    names, found = model.items, []
    for row, history in zip(scores.tolist(), made.dataset.test["history"].to_list(), strict=True):
        met = set(history) if leave_out_met else set()
        order = sorted(range(len(row)), key=lambda place: (-row[place], place))
        found.append([names[place] for place in order if names[place] not in met][:k])
    return found


@pytest.mark.parametrize("leave_out_met", [True, False])
@pytest.mark.parametrize("k", [1, 7])
def test_the_first_items_are_those_of_brute_force(case: tuple[Any, Retriever], k: int, leave_out_met: bool) -> None:
    made, model = case
    found = model.top_k(made.dataset.test, k, leave_out_met=leave_out_met)
    expected = by_hand(made, model, k, leave_out_met=leave_out_met)
    alike = np.mean([one == other for one, other in zip(found.items, expected, strict=True)])
    assert alike > 0.97  # two scores that differ in their last digit may change places
    assert found.places.shape == found.scores.shape == (len(expected), k)
    assert found.places.dtype == np.int64
    assert found.scores.dtype == np.float32
    assert (np.diff(found.scores, axis=1) <= 0).all()
    scores = model.scores(model.encoding.encode(made.dataset.test))
    np.testing.assert_allclose(np.take_along_axis(scores, found.places, axis=1), found.scores, rtol=1e-4, atol=1e-5)


def test_what_the_model_no_longer_reads_is_left_out_too(case: tuple[Any, Retriever]) -> None:
    """The model reads the last 4 of 6 items."""
    _, model = case
    history = [f"item {place}" for place in (20, 30, 40, 41, 42, 43)]
    every = model.top_k([{"history": history}], k=model.count)
    assert not set(every.items[0]).intersection(history)
    assert len(every.items[0]) == model.count - 6
    assert every.shortened == {"history": 1}
    assert every.places[0, -6:].tolist() == [-1] * 6
    assert np.isneginf(every.scores[0, -6:]).all()
    short = model.top_k([{"history": history[-4:]}], k=model.count, leave_out_met=False)
    assert len(short.items[0]) == model.count
    assert short.shortened == {"history": 0}


def test_more_than_there_are(case: tuple[Any, Retriever]) -> None:
    made, model = case
    found = model.top_k({"history": [["item 3"], []]}, k=10_000)
    assert found.places.shape == (2, model.count)
    assert [len(items) for items in found.items] == [model.count - 1, model.count]
    assert sorted(found.items[1]) == sorted(model.items)
    assert len(set(model.items)) == model.count == made.encoded.encoding.sizes["history"] - 2


def test_empty_histories_and_unknown_items_are_answered(case: tuple[Any, Retriever]) -> None:
    _, model = case
    found = model.top_k({"history": [[], None, ["item 999", "item x"], ["item 3", "item 999"]]}, k=3)
    assert found.unknown == {"history": 3}
    assert [len(items) for items in found.items] == [3, 3, 3, 3]
    assert found.items[0] == found.items[1]
    finite = found.scores[np.isfinite(found.scores)]
    assert len(finite) == 12


def test_no_queries_have_no_answers(case: tuple[Any, Retriever]) -> None:
    _, model = case
    empty = pl.DataFrame({"history": []}, schema={"history": pl.List(pl.String)})
    for rows in ([], {"history": []}, empty):
        found = model.top_k(rows, k=4)
        assert found.items == []
        assert found.places.shape == found.scores.shape == (0, 4)
        assert (found.unknown, found.shortened) == ({"history": 0}, {"history": 0})


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "3"])
def test_k_is_a_number_from_1_on(k: Any, model: Retriever) -> None:
    with pytest.raises(InputError, match=f"k: got {k!r}, allowed 1 or more"):
        model.top_k([{"history": []}], k)


def test_rows_without_a_history_are_refused(model: Retriever) -> None:
    with pytest.raises(InputError, match=r"missing column 'history'\. Did you mean 'histori'"):
        model.top_k([{"histori": ["item 3"]}], 3)
    with pytest.raises(InputError, match="column 'history'"):
        model.top_k([{"history": 3}], 3)


def test_answers_do_not_depend_on_neighbours_or_threads(case: tuple[Any, Retriever]) -> None:
    made, model = case
    rows = made.dataset.test.head(40)
    together = model.top_k(rows, 5)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda place: model.top_k(rows[place : place + 1], 5), range(40)))
    assert [found.items[0] for found in alone] == together.items


def test_many_queries_are_answered_a_chunk_at_a_time(case: tuple[Any, Retriever]) -> None:
    made, model = case
    rows = made.dataset.test
    found = model.top_k(pl.concat([rows, rows]), 2)
    assert len(rows) > 256
    assert found.items[: len(rows)] == found.items[len(rows) :] == model.top_k(rows, 2).items


def test_vectors_multiply_to_scores(finder: Made) -> None:
    made = finder("vectors")
    model = load_retriever(made.path)
    vectors = model.encode(made.dataset.test.head(5))
    assert vectors.shape == (5, 8)
    assert model.item_vectors().shape == (model.count, 8)
    scores = model.scores(model.encoding.encode(made.dataset.test.head(5)))
    np.testing.assert_allclose(vectors @ model.item_vectors().T, scores, rtol=1e-5, atol=1e-6)


def test_scores_have_no_vectors(finder: Made) -> None:
    model = load_retriever(finder("scores").path)
    with pytest.raises(InputError, match="gives scores of items, not vectors"):
        model.encode([{"history": []}])
    with pytest.raises(InputError, match="has no vectors of items"):
        _ = model.index


def test_codes_are_scored_as_the_vectors_that_they_stand_for(finder: Made) -> None:
    made = finder("codes")
    model = load_retriever(made.path)
    assert isinstance(model.index, CodesIndex)
    vectors = model.encode(made.dataset.test)
    places, scores = model.index.search(vectors, 9)
    exact = build_index(Exact(), model.item_vectors()).search(vectors, 9)
    assert np.array_equal(places, exact[0])
    np.testing.assert_allclose(scores, exact[1], rtol=1e-6)


def test_one_kind_of_artifact_is_not_the_other(linear: Any, finder: Made) -> None:
    with pytest.raises(InputError, match="answers with items or vectors, not with a score for each row"):
        load(finder("vectors").path)
    with pytest.raises(InputError, match="answers with a score for each row, not with items"):
        load_retriever(linear.path)
    with pytest.raises(InputError, match="threads is 0, must be an integer of at least 1"):
        load_retriever(finder("vectors").path, threads=0)


def with_index(source: Path, target: Path, change: Callable[[dict[str, Any], dict[str, bytes]], object]) -> Path:
    """The artifact with an index of its own, after `change(record, files)`."""
    found = open_artifact(source)
    index = build_index(Exact(), load_retriever(source).item_vectors())
    record, files = index.record(), index.files()
    change(record, files)
    manifest = {key: value for key, value in found.manifest.items() if key not in SEALED_KEYS}
    write_artifact(target, {**found.files, **files}, {**manifest, "index": record})
    return target


def test_an_index_in_the_artifact_is_the_one_that_is_asked(finder: Made, tmp_path: Path) -> None:
    made = finder("vectors")
    path = with_index(made.path, tmp_path / "artifact", lambda record, files: None)
    one, other = load_retriever(path), load_retriever(made.path)
    assert one.top_k(made.dataset.test, 5).items == other.top_k(made.dataset.test, 5).items

    def backwards(record: dict[str, Any], files: dict[str, bytes]) -> None:
        (name,) = files
        files[name] = (-np.frombuffer(files[name], np.float32)).tobytes()

    path = with_index(made.path, tmp_path / "backwards", backwards)
    query = [{"history": ["item 3"]}]
    last = load_retriever(made.path).top_k(query, other.count, leave_out_met=False).items[0]
    assert load_retriever(path).top_k(query, 1, leave_out_met=False).items[0] == last[-1:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record, files: record.pop("config"), "not the record of an index"),
        (lambda record, files: record.update(items=3), "its arrays do not go together"),
        (
            lambda record, files: record["config"].update(name="exactly"),
            "unknown index 'exactly'. Did you mean 'exact'",
        ),
        (lambda record, files: files.update({name: each[:-4] for name, each in files.items()}), "its record says"),
        (lambda record, files: files.clear(), "cannot be read"),
        (
            lambda record, files: files.update({name: b"\xff" * len(each) for name, each in files.items()}),
            "NaN or infinite",
        ),
    ],
)
def test_an_index_that_is_none_is_refused(change: Any, message: str, finder: Made, tmp_path: Path) -> None:
    path = with_index(finder("vectors").path, tmp_path / "artifact", change)
    with pytest.raises(InputError, match=message):
        load_retriever(path).top_k([{"history": []}], 3)


def test_one_changed_byte_of_an_index_is_noticed(finder: Made, tmp_path: Path) -> None:
    path = with_index(finder("vectors").path, tmp_path / "artifact", lambda record, files: None)
    (file,) = path.glob("index.*.bin")
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(InputError, match=file.name):
        load_retriever(path)


def test_the_first_of_scores_by_hand() -> None:
    scores = np.array([[1, 3, 2, 3], [-np.inf, 5, -np.inf, -np.inf], [-np.inf] * 4], np.float32)
    places, best = first_of(scores, 3)
    assert places.tolist() == [[1, 3, 2], [1, -1, -1], [-1, -1, -1]]
    assert best.tolist() == [[3, 3, 2], [5, -np.inf, -np.inf], [-np.inf] * 3]
    assert first_of(scores, 9)[0].shape == (3, 4)
    assert first_of(scores[:0], 2)[0].shape == (0, 2)
    assert first_of(scores[:, :0], 2)[0].shape == (3, 0)


@pytest.mark.parametrize("levels", [2, 5, None])
def test_the_first_of_scores_are_those_of_a_sort(levels: int | None) -> None:
    scores = np.random.default_rng(0).normal(size=(30, 50)).astype(np.float32)
    scores = scores if levels is None else np.round(scores * levels) / levels
    places, best = first_of(scores, 10)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    assert np.array_equal(places, expected)
    assert np.array_equal(best, np.take_along_axis(scores, expected, axis=1))
