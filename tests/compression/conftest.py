"""A small model over two ids, a history and numbers, and rows to calibrate and choose on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from slimrank.compression.steps import Context
from slimrank.config import Config
from slimrank.models.architecture import build_model
from slimrank.models.dnn import DNN
from slimrank.models.layers import Ranker
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples

LAYOUT = Layout(("user", "item", "tags"), (9, 12, 6), (1, 1, 3), numbers=2, sequences=("tags",))


def rows(layout: Layout, count: int, seed: int = 0) -> Examples:
    """Random rows; the label is 1 where the first id is odd or, one time in five, the other way."""
    draws = torch.Generator().manual_seed(seed)
    sizes = layout.per_column(layout.sizes)
    ids = (torch.rand(count, len(sizes), generator=draws) * sizes).to(torch.int32)
    numbers = torch.randn(count, layout.numbers, generator=draws)
    signal = ids[:, 0] if len(sizes) else (numbers[:, 0] > 0).int()
    flipped = torch.rand(count, generator=draws) < 0.2
    return Examples(ids, numbers, ((signal % 2 == 1) ^ flipped).to(torch.float32))


@pytest.fixture(scope="session")
def layout() -> Layout:
    return LAYOUT


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., Examples]:
    return rows


@pytest.fixture
def make_model() -> Callable[..., Ranker]:
    """A model whose weights are large enough that what a step does shows in its scores."""

    def make(config: Config | None = None, layout: Layout = LAYOUT, seed: int = 0) -> Ranker:
        config = config or DNN(embedding_dim=4, hidden=(6, 5), embedding_std=0.5)
        model = build_model(config, layout, seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(seed))
        return model.eval()

    return make


@pytest.fixture
def context() -> Context:
    """Rows of `LAYOUT`, with counts that fall from the first id on."""
    counts = {
        name: np.array([5, *([7] if name in LAYOUT.sequences else []), *range(size, 0, -1)][:size], np.int64)
        for name, size in zip(LAYOUT.names, LAYOUT.sizes, strict=True)
    }
    return Context(rows(LAYOUT, 200), rows(LAYOUT, 300, seed=1), counts)
