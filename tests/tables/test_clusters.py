"""k-means in one level and in two: exact where it can be, close to the flat one where it cannot."""

import pytest
import torch

from slimrank.tables import clusters
from slimrank.tables.clusters import FLAT, centres, nearest


def vectors(count: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def error(rows: torch.Tensor, found: torch.Tensor, places: torch.Tensor | None = None) -> float:
    places = torch.cdist(rows, found).argmin(dim=1) if places is None else places
    return float((rows - found[places]).square().sum())


@pytest.mark.parametrize("count", [8, 2048])
def test_few_distinct_vectors_are_their_own_centres(count: int) -> None:
    rows = vectors(6).repeat(500, 1)
    found = centres(rows, count)
    assert found.shape == (count, 4)
    assert error(rows, found) == 0.0
    assert error(rows, found, nearest(rows, found)) == pytest.approx(0.0, abs=1e-6)


def test_two_levels_are_close_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, count = vectors(20_000), 2 * FLAT
    split = error(rows, centres(rows, count))
    monkeypatch.setattr(clusters, "FLAT", count)
    assert split < 1.1 * error(rows, centres(rows, count))


def test_the_inverted_file_finds_almost_the_nearest() -> None:
    rows, found = vectors(20_000), vectors(2 * FLAT, seed=1)
    assert error(rows, found, nearest(rows, found)) < 1.02 * error(rows, found)


def test_heavy_vectors_get_the_centres() -> None:
    rows = vectors(3000)
    heavy = torch.full((3000,), 0.01)
    heavy[:300] = 1000.0
    assert error(rows[:300], centres(rows, 64, heavy)) < 1.1 * error(rows[:300], centres(rows[:300], 64))


def test_the_centres_do_not_depend_on_the_number_of_threads() -> None:
    rows, before, found = vectors(20_000), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(centres(rows, 2 * FLAT))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
