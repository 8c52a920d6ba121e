"""What a step makes of a table trains with sparse gradients where that table did, in all of its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from slimrank.compression.steps import Context, compress
from slimrank.models.dnn import DNN
from slimrank.models.layers import Ranker
from slimrank.tables.dense import DenseTable
from slimrank.tables.embedding import Layout
from slimrank.tables.hashed import HashedTable
from slimrank.tables.mixed import MixedTable
from slimrank.tables.scaled import ScaledTable
from slimrank.training.examples import Examples

LAYOUT = Layout(("user", "item"), (200, 300), (1, 1))
HASHING = {"name": "hash-tables", "ratio": 4, "least_rows": 8}
STEPS: list[dict[str, Any]] = [
    {"name": "quantize-tables", "bits": 4, "scale": "row"},
    {"name": "mix-bits", "budget": 9000},
    HASHING | {"method": "plain"},
    HASHING | {"method": "weighted"},
    HASHING | {"method": "clustered"},
    HASHING | {"inner": {"name": "scaled", "bits": 8}},
    {"name": "threshold-rows", "keep": 0.5},
    {"name": "reduce-dimensions", "rank": 3, "fold": False},
]


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("step", STEPS, ids=str)
def test_gradients_stay_as_sparse_as_they_were(
    step: dict[str, Any], sparse: bool, make_model: Callable[..., Ranker], make_rows: Callable[..., Examples]
) -> None:
    model, rows = make_model(DNN(embedding_dim=8, hidden=(6, 5)), LAYOUT), make_rows(LAYOUT, 200)
    model.embedding.table.with_sparse(sparse)
    counts = {name: np.arange(size, 0, -1) for name, size in zip(LAYOUT.names, LAYOUT.sizes, strict=True)}
    slim, _ = compress(model, [step], Context(rows, rows, counts, unsorted=frozenset({"item"})))
    slim(rows.ids, rows.numbers).sum().backward()
    tables = [each for each in slim.modules() if isinstance(each, (DenseTable, ScaledTable, MixedTable, HashedTable))]
    assert {table.sparse for table in tables} == {sparse}
    parameters = [each for table in tables for each in table.sparse_parameters()]
    assert bool(parameters) == sparse
    assert all(each.grad is None or each.grad.is_sparse for each in parameters)
