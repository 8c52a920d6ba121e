"""Batches: every row once, and queries whole where rows are documents of queries."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimrank.config import as_config
from slimrank.models.architecture import build_model
from slimrank.tables.embedding import Layout
from slimrank.training import examples
from slimrank.training.examples import Examples, score


def documents(group: list[int]) -> Examples:
    """Rows of queries, the row's number as its only feature."""
    size = len(group)
    numbers = torch.arange(size, dtype=torch.float32).unsqueeze(1)
    return Examples(torch.zeros(size, 0), numbers, torch.zeros(size), None, torch.tensor(group), "relevance")


def rows(batch: Examples) -> list[int]:
    return [int(row) for row in batch.numbers[:, 0]]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_queries_stay_whole_and_fill_batches(size: int) -> None:
    group = [3, 1, 3, 7, 7, 7, 3, 1, 0, 7, 7]
    batches = list(documents(group).batches(size, seed=1, epoch=0))
    assert sorted(row for batch in batches for row in rows(batch)) == list(range(len(group)))
    for batch in batches:
        assert batch.group is not None
        for query in batch.group.unique().tolist():
            own = [row for row in rows(batch) if group[row] == query]
            assert own == [row for row, other in enumerate(group) if other == query]
    assert all(len(batch) >= size for batch in batches[:-1])
    last = [batch.group[-1] for batch in batches if batch.group is not None]
    assert all(int((b.group != q).sum()) < size for b, q in zip(batches, last, strict=True) if b.group is not None)


def test_the_order_of_queries_is_that_of_seed_and_epoch() -> None:
    examples = documents([row // 2 for row in range(40)])
    orders = [[row for b in examples.batches(4, *key) for row in rows(b)] for key in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3


def test_a_query_alone_is_a_batch() -> None:
    assert [rows(batch) for batch in documents([4]).batches(10, 0, 0)] == [[0]]


def test_confidence_goes_with_the_rows() -> None:
    examples = documents([1, 1, 2]).with_teacher(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 3.0]))
    taken = examples.take(torch.tensor([2, 0]))
    assert taken.confidence is not None
    assert taken.confidence.tolist() == [3.0, 1.0]
    assert examples.with_teacher(None).confidence is None


def test_histories_are_answered_in_their_order_whatever_their_length(monkeypatch) -> None:
    """They are run with others of like length; each alone gives the same."""
    layout = Layout(("history",), (30,), (7,), 0, ("history",))
    model = build_model(as_config("model", {"name": "sasrec", "embedding_dim": 8}), layout, seed=0)
    ids = torch.randint(2, 30, (23, 7), dtype=torch.int32)
    ids[torch.arange(7) >= torch.arange(23).unsqueeze(1) * 5 % 8] = 0
    asked = Examples(ids, torch.zeros(23, 0), torch.zeros(23, dtype=torch.int64), answer="item")
    monkeypatch.setattr(examples, "SEQUENCES_AT_ONCE", 4)
    alone = np.concatenate([score(model, asked.take(torch.tensor([place]))) for place in range(23)])
    np.testing.assert_allclose(score(model, asked), alone, atol=1e-5)
    assert score(model, asked.take(torch.zeros(0, dtype=torch.int64))).shape == (0,)
    assert model.training
