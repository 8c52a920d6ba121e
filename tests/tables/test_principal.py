"""Principal components against numpy's singular values, and what they do with weights, means and bad rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slimrank.config import InputError
from slimrank.tables import principal
from slimrank.tables.principal import project, rank_that_keeps, spectrum


def rows(count: int = 50, dim: int = 6, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=draws) @ torch.randn(dim, dim, generator=draws) + 0.5


def error(values: torch.Tensor, rank: int, weights: torch.Tensor | None = None, *, centred: bool = False) -> float:
    """The weighted squared error of rows that went through `rank` components."""
    found = spectrum(values, weights, centred=centred)
    back = project(values, found.mean, found.basis[:rank]).double() @ found.basis[:rank] + found.mean
    weight = torch.ones(len(values)) if weights is None else weights
    return float((weight.double().unsqueeze(1) * (back - values).square()).sum())


def test_two_rows_by_hand() -> None:
    found = spectrum(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    assert found.energy.tolist() == pytest.approx([9.0, 1.0])
    assert found.basis.abs().tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert found.lost(1) == pytest.approx(1.0)
    assert (found.rank_that_keeps(0.9), found.rank_that_keeps(0.91)) == (1, 2)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_the_error_is_that_of_the_truncated_svd(rank: int) -> None:
    values = rows()
    singular = np.linalg.svd(values.numpy().astype(np.float64), compute_uv=False)
    assert error(values, rank) == pytest.approx(np.square(singular[rank:]).sum(), rel=1e-5)
    assert spectrum(values).lost(rank) == pytest.approx(np.square(singular[rank:]).sum(), rel=1e-5)


@pytest.mark.parametrize("rank", [1, 4])
def test_weighted_and_centred_it_is_the_svd_of_the_repeated_rows(rank: int) -> None:
    values, weights = rows(), torch.arange(50.0) % 4
    repeated = values.numpy().astype(np.float64).repeat(weights.int().numpy(), axis=0)
    singular = np.linalg.svd(repeated - repeated.mean(axis=0), compute_uv=False)
    assert error(values, rank, weights, centred=True) == pytest.approx(np.square(singular[rank:]).sum(), rel=1e-5)
    assert error(values, rank, weights, centred=True) < error(values, rank, weights)


def test_no_other_projection_is_better() -> None:
    values, best = rows(), error(rows(), 2)
    for seed in range(20):
        basis = torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(seed))).Q.double()
        assert (values.double() - values.double() @ basis @ basis.T).square().sum() > best


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, weights = rows(), torch.rand(50, generator=torch.Generator().manual_seed(1))
    whole = spectrum(values, weights, centred=True)
    there = project(values, whole.mean, whole.basis[:2])
    monkeypatch.setattr(principal, "CHUNK", 7 * 6)
    chunked = spectrum(values, weights, centred=True)
    torch.testing.assert_close(chunked.energy, whole.energy)
    torch.testing.assert_close(project(values, whole.mean, whole.basis[:2]), there)


def test_fewer_rows_than_dimensions_have_a_whole_basis() -> None:
    found = spectrum(torch.tensor([[1.0, 2.0, 2.0]]))
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(3, dtype=torch.float64))
    assert found.energy.tolist() == pytest.approx([9.0, 0.0, 0.0])
    assert spectrum(torch.zeros(4, 3)).rank_that_keeps(0.5) == 1


def test_ties_and_shares_at_the_edges() -> None:
    energy = torch.ones(4)
    assert [rank_that_keeps(energy, share) for share in (0.25, 0.26, 0.75, 1.0)] == [1, 2, 3, 4]


def test_weights_that_are_all_zero_count_as_none() -> None:
    torch.testing.assert_close(spectrum(rows(), torch.zeros(50)).energy, spectrum(rows()).energy)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_that_are_not_finite_are_refused(bad: float, weighted: bool) -> None:
    values = rows()
    values[7, 2] = bad
    weights = torch.ones(50).index_fill(0, torch.tensor(7), 0.0) if weighted else None
    with pytest.raises(InputError, match="NaN or infinite"):
        spectrum(values, weights)


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        spectrum(torch.zeros(0, 4))
