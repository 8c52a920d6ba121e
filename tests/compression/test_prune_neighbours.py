"""Weights between items: the largest are kept, and found again as if there had been no others."""

import numpy as np
import pytest
import torch

from slimrank.compression.prune_neighbours import LADDER
from slimrank.compression.steps import Context, compress
from slimrank.config import InputError, as_config
from slimrank.models.architecture import build_model
from slimrank.models.dnn import DNN
from slimrank.models.ease import EASE
from slimrank.models.item_weights import weights_of_some
from slimrank.models.size import packed_bytes
from slimrank.tables.embedding import Layout
from slimrank.training.examples import Examples
from slimrank.training.loop import Training, fit
from slimrank.training.quality import quality

ITEMS, LENGTH = 40, 10
LAYOUT = Layout(("history",), (ITEMS + 2,), (LENGTH,), 0, ("history",))


def rows(count: int, seed: int) -> Examples:
    """Histories of items next to one another on a circle, so that neighbours tell the next item."""
    draw = np.random.default_rng(seed)
    steps = draw.integers(1, 4, (count, LENGTH + 1)).cumsum(axis=1)
    path = (draw.integers(0, ITEMS, (count, 1)) + steps) % ITEMS + 2
    ids, label = path[:, :LENGTH].astype(np.int32), path[:, LENGTH].astype(np.int64)
    ids[draw.random(count) < 0.3, LENGTH // 2 :] = 0
    return Examples(torch.from_numpy(ids), torch.zeros(count, 0), torch.from_numpy(label), answer="item")


TRAIN, VALID = rows(600, 0), rows(200, 1)


@pytest.fixture(scope="module")
def model():
    made = build_model(EASE(l2=5.0), LAYOUT, seed=0)
    fit(made, TRAIN, VALID, Training(), seed=0)
    return made


def together() -> np.ndarray:
    met = np.zeros((len(TRAIN), ITEMS + 2))
    met[np.arange(len(TRAIN))[:, None], np.column_stack([TRAIN.ids.numpy(), TRAIN.label.numpy()])] = 1
    met[:, :2] = 0
    return met.T @ met


def with_(per_item: float) -> dict:
    return {"name": "prune-neighbours", "per_item": per_item}


def test_what_is_kept_is_found_again(model) -> None:
    step = {"name": "prune-neighbours", "per_item": 8, "bits": 32}
    small, (record,) = compress(model, [step], Context(TRAIN, VALID))
    kept = small.embedding.table.kept()
    assert int(kept.sum()) == 8 * ITEMS
    expected = weights_of_some(together(), 5.0, kept.numpy())
    np.testing.assert_allclose(small.embedding.table(torch.arange(ITEMS + 2)).detach(), expected, atol=1e-6)
    assert record["touched"] == [f"embedding: {8 * ITEMS} of {ITEMS * (ITEMS - 1):,} weights kept"]
    assert record["facts"] == {"neighbours": 8.0, "items_without": 0.0}


def test_all_weights_kept_score_as_before(model) -> None:
    small, _ = compress(model, [{"name": "prune-neighbours", "per_item": 100, "bits": 32}], Context(TRAIN, VALID))
    torch.testing.assert_close(small(VALID.ids), model(VALID.ids), atol=1e-5, rtol=1e-4)


def test_bytes_of_a_weight_cost_little(model) -> None:
    parts = [
        compress(model, [{"name": "prune-neighbours", "per_item": 8, "bits": bits}], Context(TRAIN, VALID))[0]
        for bits in (32, 8)
    ]
    signal, other = (part(VALID.ids).detach() for part in parts)
    assert 10 * torch.log10(signal.square().sum() / (other - signal).square().sum()) > 35


@pytest.mark.parametrize("bits", [8, 32])
def test_a_budget_is_used_and_kept(model, bits: int) -> None:
    for budget in (500, 1000, 2345):
        step = {"name": "prune-neighbours", "budget": budget, "bits": bits}
        small, (record,) = compress(model, [step], Context(TRAIN, VALID))
        block = 8 * (2 + bits // 8)
        assert budget - block < record["bytes_after"] == packed_bytes(small) <= budget


def test_a_budget_below_one_block_names_the_least(model) -> None:
    least = 8 * 3 + 2 * (ITEMS + 3) + 4
    with pytest.raises(InputError, match=f"a budget of 50 bytes is below the least possible: {least}"):
        compress(model, [{"name": "prune-neighbours", "budget": 50}], Context(TRAIN, VALID))
    small, _ = compress(model, [{"name": "prune-neighbours", "budget": least}], Context(TRAIN, VALID))
    assert len(small.embedding.table.values) == 1


def test_validation_decides_how_many_are_kept(model) -> None:
    before = quality(model, VALID)
    by_count = {each: quality(compress(model, [with_(each)], Context(TRAIN, VALID))[0], VALID) for each in LADDER[:5]}
    found = {}
    for drop in (0.005, 0.02, 0.5):
        step = {"name": "prune-neighbours", "max_drop": drop}
        small, (record,) = compress(model, [step], Context(TRAIN, VALID))
        after = quality(small, VALID)
        assert after >= before * (1 - drop)
        assert record["facts"]["valid_ndcg@10_before"] == pytest.approx(before)
        assert record["facts"]["valid_ndcg@10_after"] == pytest.approx(after)
        found[drop] = record["facts"]["neighbours"]
        assert found[drop] == min(each for each, reached in by_count.items() if reached >= before * (1 - drop))
    assert found[0.5] < found[0.005]


def test_what_it_cannot_prune_is_told(model, context) -> None:
    other = build_model(DNN(hidden=(4,)), Layout(("user", "item", "tags"), (9, 12, 6), (1, 1, 3), 2, ("tags",)), seed=0)
    _, (record,) = compress(other, [{"name": "prune-neighbours", "per_item": 8}], context)
    assert record["skipped"] == [{"name": "weights", "reason": "the model has no weights between items"}]
    step = {"name": "prune-neighbours", "per_item": 8}
    _, (_, again) = compress(model, [step, step], Context(TRAIN, VALID))
    assert again["skipped"] == [{"name": "embedding", "reason": "is a SparseTable already"}]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"name": "threshold-rows", "min_count": 30}, "its columns are the ids of its rows"),
        ({"name": "mix-bits", "budget": "4 KB"}, "its rows are as wide as the catalogue"),
    ],
)
def test_steps_for_rows_of_vectors_leave_it_alone(model, step, reason: str) -> None:
    same, (record,) = compress(model, [step], Context(TRAIN, VALID))
    assert record["touched"] == []
    assert record["skipped"][0]["reason"].startswith(reason)
    assert torch.equal(same(VALID.ids), model(VALID.ids))


@pytest.mark.parametrize("settings", [{}, {"per_item": 8, "budget": 100}, {"budget": 100, "max_drop": 0.1}])
def test_one_way_to_say_how_many(settings) -> None:
    with pytest.raises(InputError, match="give exactly one of per_item, budget and max_drop"):
        as_config("step", {"name": "prune-neighbours", **settings})
