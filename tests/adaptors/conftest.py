"""Rows of Frappe as other libraries take them: one tensor of ids a field, and the label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from slimrank.config import InputError
from slimrank.data import load_dataset
from slimrank.data.rows import encode_dataset
from slimrank.metrics import auc

ROWS = {"train": 40_000, "test": 10_000}


@dataclass(frozen=True)
class FrappeRows:
    """Ids by field, and for each part of the data some rows, a column a field, and their labels."""

    sizes: dict[str, int]
    parts: dict[str, tuple[dict[str, Tensor], Tensor]]

    def batches(self, part: str, size: int = 2048) -> list[tuple[dict[str, Tensor], Tensor]]:
        """The rows in batches of columns and labels."""
        columns, label = self.parts[part]
        cuts = [slice(start, start + size) for start in range(0, len(label), size)]
        return [({name: column[cut] for name, column in columns.items()}, label[cut]) for cut in cuts]

    def columns(self, part: str) -> list[dict[str, Tensor]]:
        """The rows in batches without labels."""
        return [columns for columns, _ in self.batches(part)]

    def auc(self, score: np.ndarray) -> float:
        """AUC of the test rows."""
        return float(auc(self.parts["test"][1].numpy(), score.ravel()))


@pytest.fixture(scope="session")
def frappe() -> FrappeRows:
    """Some of Frappe's rows; skips where the data is not there."""
    try:
        encoded = encode_dataset(load_dataset("frappe"))
    except InputError as error:
        pytest.skip(str(error))
    sizes = dict(encoded.encoding.sizes)
    parts = {}
    for name, count in ROWS.items():
        rows = getattr(encoded, name)
        chosen = np.random.default_rng(0).permutation(len(rows.label))[:count]
        ids = torch.from_numpy(rows.inputs.ids[chosen].astype(np.int64))
        columns = {field: ids[:, place].contiguous() for place, field in enumerate(sizes)}
        parts[name] = columns, torch.from_numpy(rows.label[chosen].astype(np.float32))
    return FrappeRows(sizes, parts)
