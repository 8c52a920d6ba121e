"""Encoders in two towers behind the runtime: unknown users, items never in training, and whatever a history holds."""

import numpy as np
import polars as pl
import pytest

from slimrank import Training, compress, export, train
from slimrank.config import as_config
from slimrank.data.queries import Queries, queries
from slimrank.data.rows import Dataset, encode_dataset
from slimrank.data.schema import Field
from slimrank.evaluation.finding import find_items
from slimrank.runtime import Retriever, load_retriever

MODELS = {
    "mf": {"name": "mf", "embedding_dim": 8, "embedding_std": 0.2},
    "two-tower": {"name": "two-tower", "embedding_dim": 8, "hidden": (16,), "item_hidden": (16,), "vector_dim": 8},
}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Users of either of two kinds, who keep to the films of their kind; film 99 comes last and once."""
    draw = np.random.default_rng(0)
    rows = [(user, int(film) * 2 + user % 2) for user in range(60) for film in draw.permutation(10)]
    frame = pl.DataFrame(rows, schema=["user", "item"], orient="row")
    frame = pl.concat([frame, pl.DataFrame({"user": [5], "item": [99]})])
    users = pl.DataFrame({"user": list(range(60)), "kind": [["even", "odd"][user % 2] for user in range(60)]})
    config = Queries(name="kinds", max_length=4)
    return queries(config, frame, users, (Field(name="kind", kind="categorical"),))


@pytest.fixture(scope="module", params=MODELS)
def retriever(request: pytest.FixtureRequest, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    data = encode_dataset(dataset)
    loss = as_config("loss", {"name": "in-batch-softmax", "negatives": 4, "temperature": 0.2})
    model = train(MODELS[request.param], data, Training(epochs=4, batch_size=32, learning_rate=0.03, loss=loss), seed=1)
    small, _ = compress(model, [{"name": "quantize-tables", "bits": 8}], data)
    path = tmp_path_factory.mktemp(request.param) / "artifact"
    export(small, data.encoding, path)
    return load_retriever(path)


def test_films_of_the_own_kind_are_found(retriever: Retriever, dataset: Dataset) -> None:
    """Of those that are left to a user of ten films who met eight or nine, among twenty."""
    assert find_items(retriever, dataset.test, dataset.schema).metrics["ndcg@10"].mean > 0.4
    found = retriever.top_k({"user": [0, 1], "kind": ["even", "odd"], "history": [[0, 2], [1, 3]]}, k=3)
    for user, items in enumerate(found.items):
        assert {item % 2 for item in items} == {user}


def test_an_item_never_in_training_is_missed_and_counted(retriever: Retriever, dataset: Dataset) -> None:
    assert 99 in dataset.test["item"].to_list()
    assert find_items(retriever, dataset.test, dataset.schema).unknown == 1
    assert 99 not in retriever.items


def test_unknown_users_and_items_and_empty_histories_have_answers(retriever: Retriever) -> None:
    rows = {"user": [12345, None, 3], "kind": ["even", None, "none"], "history": [[], [99, 98], None]}
    found = retriever.top_k(rows, k=5)
    assert [len(items) for items in found.items] == [5, 5, 5]
    assert np.isfinite(found.scores).all()
    assert found.unknown == {"user": 1, "kind": 1, "history": 2}


def test_more_than_the_catalogue_and_a_user_who_met_all_of_it(retriever: Retriever) -> None:
    all_items = list(range(20))
    found = retriever.top_k({"user": [1, 1], "kind": ["odd", "odd"], "history": [[], all_items]}, k=500)
    assert sorted(found.items[0]) == all_items
    assert found.items[1] == []
    assert found.shortened == {"history": 1}
