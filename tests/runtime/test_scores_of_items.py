"""A linear model of items behind the runtime: the first k of raw histories, whatever these hold."""

import numpy as np
import polars as pl
import pytest

from slimrank.compression.steps import Context, compress
from slimrank.config import InputError
from slimrank.data.rows import encode_dataset, make_dataset
from slimrank.data.schema import Field, Schema
from slimrank.exporting.artifact import export
from slimrank.models.architecture import build_model
from slimrank.models.ease import EASE
from slimrank.runtime import Retriever, load_retriever
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples
from slimrank.training.loop import Training, fit

ITEMS = [f"film {n}" for n in range(12)]


def frame(users: int, seed: int) -> pl.DataFrame:
    """Users who stay with even films, or with odd ones."""
    draw = np.random.default_rng(seed)
    own = [[ITEMS[n] for n in draw.permutation(6)[: draw.integers(2, 6)] * 2 + user % 2] for user in range(users)]
    rows = {"history": [each[:-1] for each in own], "item": [each[-1] for each in own], "user": list(range(users))}
    return pl.DataFrame(rows)


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    field = Field(name="history", kind="sequence", max_length=8)
    schema = Schema(fields=(field,), label="item", group="user", answer="item", catalogue="history")
    data = encode_dataset(make_dataset("films", schema, tuple(frame(count, count) for count in (300, 40, 40))))
    train = Examples.of(data.train, "cpu", "item")
    model = build_model(EASE(l2=5.0), Layout.of(data.encoding), seed=0)
    fit(model, train, train, Training(), seed=0)
    small, _ = compress(model, [{"name": "prune-neighbours", "per_item": 8}], Context(train, train))
    path = tmp_path_factory.mktemp("films") / "artifact"
    export(small, data.encoding, path)
    return load_retriever(path)


def test_those_who_like_one_kind_get_the_rest_of_it(retriever: Retriever) -> None:
    found = retriever.top_k({"history": [[ITEMS[0], ITEMS[4]], [ITEMS[3], ITEMS[1], ITEMS[7]]]}, k=3)
    assert set(found.items[0]) < {ITEMS[2], ITEMS[6], ITEMS[8], ITEMS[10]}
    assert set(found.items[1]) == {ITEMS[5], ITEMS[9], ITEMS[11]}
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_more_than_the_catalogue_holds(retriever: Retriever) -> None:
    found = retriever.top_k({"history": [[ITEMS[0]]]}, k=100)
    assert sorted(found.items[0]) == sorted(ITEMS[1:])
    assert found.places.shape == (1, 12)
    assert found.places[0, -1] == -1


def test_a_user_who_met_every_item_is_left_with_none(retriever: Retriever) -> None:
    found = retriever.top_k({"history": [ITEMS]}, k=5)
    assert found.items == [[]]
    assert (found.scores == -np.inf).all()
    assert found.shortened == {"history": 1}
    assert len(retriever.top_k({"history": [ITEMS]}, k=5, leave_out_met=False).items[0]) == 5


def test_empty_histories_and_unknown_items_score_nothing(retriever: Retriever) -> None:
    found = retriever.top_k({"history": [[], ["no film", "none"], ["no film", ITEMS[0], "none"]]}, k=12)
    assert not found.scores[:2].any()
    assert found.unknown == {"history": 4}
    plain = retriever.top_k({"history": [[ITEMS[0]]]}, k=12)
    assert np.array_equal(found.places[2], plain.places[0])
    assert np.array_equal(found.scores[2], plain.scores[0])


def test_a_request_does_not_change_its_neighbours(retriever: Retriever) -> None:
    histories = [[ITEMS[n], ITEMS[n + 2]] for n in range(10)]
    together = retriever.top_k({"history": histories}, k=4)
    for n, history in enumerate(histories):
        alone = retriever.top_k({"history": [history]}, k=4)
        assert np.array_equal(alone.scores[0], together.scores[n])
        assert alone.items[0] == together.items[n]


def test_it_has_no_vectors(retriever: Retriever) -> None:
    with pytest.raises(InputError, match="gives scores of items, not vectors"):
        retriever.encode({"history": [[ITEMS[0]]]})
