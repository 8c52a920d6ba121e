"""What an artifact says of the rows that it was measured on: scores in bins, and shares of unknown ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from slimrank.data.encoding import Inputs
from slimrank.runtime import load
from slimrank.runtime.reference import reference_of


def test_shares_are_of_the_values_there_are(linear: Any) -> None:
    """Of 4 rows 2 users are unknown, a missing one is not; of the 1 + 2 + 3 ids read of histories 4 are."""
    model = load(linear.path)
    frame = pl.DataFrame(
        {
            "user": [7, 99, None, 98],
            "item": ["tea", "jam", "tea", "tea"],
            "price": [1.0, 2.0, 3.0, 4.0],
            "history": [["tea"], [], ["x", "jam"], ["x", "x", "x", "x"]],
        }
    )
    inputs, unknown = model.encoding.encode_counting(frame)
    logit = model.score(inputs)
    found = reference_of(model.encoding.schema, inputs, unknown, logit)
    assert found["rows"] == 4
    assert found["unknown"] == {"user": 0.5, "item": 0.0, "history": round(4 / 6, 6)}
    bins = np.minimum((20 / (1 + np.exp(-logit.astype(np.float64)))).astype(int), 19)
    assert found["scores"] == np.bincount(bins, minlength=20).tolist()
    assert "scores" not in reference_of(model.encoding.schema, inputs, unknown)


def test_no_rows_have_no_shares(linear: Any) -> None:
    schema = load(linear.path).encoding.schema
    none = Inputs(np.zeros((0, len(schema.columns)), np.int32), np.zeros((0, 1), np.float32))
    found = reference_of(schema, none, {"user": 0, "history": 0}, np.empty(0, np.float32))
    assert found == {"rows": 0, "scores": [0] * 20, "unknown": {"user": 0.0, "history": 0.0}}
