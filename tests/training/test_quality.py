"""What chooses epochs: of items it is what the artifact will be measured by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimrank.data.ragged import Ragged
from slimrank.evaluation.catalogue import find_in_catalogue
from slimrank.models.architecture import build_model
from slimrank.models.ease import EASE
from slimrank.models.gru4rec import GRU4Rec
from slimrank.models.layers import Encoder, Finder
from slimrank.models.mf import MF
from slimrank.tables.embedding import Layout
from slimrank.training import quality
from slimrank.training.examples import Examples
from slimrank.training.losses import wide_softmax

ITEMS, LENGTH = 40, 6
HISTORY = Layout(("history",), (ITEMS + 2,), (LENGTH,), 0, ("history",))
USER = Layout(("user", "history"), (9, ITEMS + 2), (1, LENGTH), 0, ("user", "history")[1:])


def rows(count: int, layout: Layout) -> Examples:
    """Histories with unknown items, repetitions and the answer itself; some answers are unknown."""
    draw = np.random.default_rng(0)
    ids = draw.integers(1, ITEMS + 2, (count, LENGTH))
    ids[np.arange(LENGTH) >= draw.integers(0, LENGTH + 1, (count, 1))] = 0
    label = draw.integers(1, ITEMS + 2, count)
    label[::9] = 1
    ids[::5, 0] = label[::5]
    users = draw.integers(0, 9, (count, len(layout.names) - 1))
    given = torch.from_numpy(np.concatenate([users, ids], axis=1).astype(np.int32))
    return Examples(given, torch.zeros(count, 0), torch.from_numpy(label), answer="item")


@pytest.mark.parametrize("name", ["gru4rec", "mf", "ease"])
@pytest.mark.parametrize("at_once", [None, 5 * (ITEMS + 2)])
def test_it_is_what_the_evaluation_measures(name: str, at_once: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if at_once is not None:
        monkeypatch.setattr(wide_softmax, "AT_ONCE", {"cpu": at_once})  # several ranges of queries
        monkeypatch.setattr(quality, "LEAST_QUERIES", 1)
    config = {"gru4rec": GRU4Rec(embedding_dim=8), "mf": MF(embedding_std=0.5), "ease": EASE()}[name]
    layout = USER if name == "mf" else HISTORY
    model = build_model(config, layout, seed=0).train()
    assert isinstance(model, Finder)
    if name == "ease":
        torch.nn.init.normal_(model.embedding.table.weight)
    examples = rows(63, layout)
    with torch.no_grad():
        model.eval()
        answers = model(examples.ids, examples.numbers)
        scores = (answers @ model.all_items().T if isinstance(model, Encoder) else answers)[:, 2:].numpy()
        model.train()
    target = examples.label.numpy() - 2
    met = Ragged.of([row[row > 1] - 2 for row in examples.ids[:, -LENGTH:].numpy().astype(np.int64)])
    left_out = met.where(met.values != target[met.query])
    found = find_in_catalogue(lambda start, stop: scores[start:stop], np.maximum(target, -1), ITEMS, left_out)
    assert found.unknown > 5
    assert quality.quality(model, examples) == pytest.approx(found.metrics["ndcg@10"].mean, abs=1e-5)
    assert model.training
