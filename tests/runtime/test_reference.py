"""What an artifact says of the rows that it was measured on: scores in bins, and shares of unknown ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from slimrank.data.encoding import Inputs
from slimrank.runtime import load
from slimrank.runtime.reference import reference_of


def test_counts_are_by_row(linear: Any) -> None:
    """Of 4 rows 2 users are unknown, a missing one is not; 4 ids of histories are, one of which is cut to 3."""
    model = load(linear.path)
    frame = pl.DataFrame(
        {
            "user": [7, 99, None, 98],
            "item": ["tea", "jam", "tea", "tea"],
            "price": [1.0, 2.0, 3.0, 4.0],
            "history": [["tea"], [], ["x", "jam"], ["x", "x", "x", "x"]],
        }
    )
    inputs, unknown, shortened = model.encoding.encode_telling(frame)
    logit = model.score(inputs)
    found = reference_of(inputs, unknown, shortened, logit)
    assert found["rows"] == 4
    assert found["unknown"] == {"user": 0.5, "item": 0.0, "history": 1.0}
    assert found["shortened"] == {"history": 0.25}
    bins = np.clip(np.floor(logit.astype(np.float64) * 2) + 20, 0, 39).astype(int)
    assert found["scores"] == np.bincount(bins, minlength=40).tolist()
    assert "scores" not in reference_of(inputs, unknown, shortened)


def test_no_rows_have_no_shares(linear: Any) -> None:
    schema = load(linear.path).encoding.schema
    none = Inputs(np.zeros((0, len(schema.columns)), np.int32), np.zeros((0, 1), np.float32))
    found = reference_of(none, {"user": 0, "history": 0}, {"history": 0}, np.empty(0, np.float32))
    by_row = {"unknown": {"user": 0.0, "history": 0.0}, "shortened": {"history": 0.0}}
    assert found == {"rows": 0, "scores": [0] * 40, **by_row}
