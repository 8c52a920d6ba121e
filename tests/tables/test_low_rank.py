"""Low-rank tables: the error they must have, fields and bands, wide ones that merge, and the graphs they become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from slimrank.config import InputError
from slimrank.exporting.checks import gather_faults, optimized_graph
from slimrank.exporting.graph import build_graph, write_graph
from slimrank.tables.banded import BandedTable
from slimrank.tables.dense import Dense, DenseTable
from slimrank.tables.low_rank import LowRank, LowRankTable, low_rank, wide
from slimrank.tables.scaled import Scaled, ScaledTable
from slimrank.tables.stacked import StackedTable
from slimrank.training.optimizers import optimizers

STARTS = torch.tensor([0, 30, 33])
ROWS = 60


def weight(rows: int = ROWS, dim: int = 8) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(5)) + 0.3


def every(table: nn.Module, fields: tuple[int, ...] | None = None) -> torch.Tensor:
    """The vectors of all rows."""
    return table(torch.arange(table.num_rows), fields).detach()


@pytest.mark.parametrize("centred", [False, True])
def test_every_field_has_the_least_error_of_its_rank(centred: bool) -> None:
    values = weight()
    table = low_rank(LowRank(rank=3, centred=centred), values, STARTS)
    for first, last in ((0, 30), (30, 33), (33, 60)):
        rows = values[first:last].numpy().astype(np.float64)
        singular = np.linalg.svd(rows - rows.mean(axis=0) if centred else rows, compute_uv=False)
        found = (every(table)[first:last] - values[first:last]).square().sum()
        assert float(found) == pytest.approx(np.square(singular[3:]).sum(), rel=1e-4, abs=1e-8)


def test_one_projection_for_all_fields_is_the_svd_of_the_table() -> None:
    singular = np.linalg.svd(weight().numpy(), compute_uv=False)
    table = low_rank(LowRank(rank=3, projection="table"), weight(), STARTS)
    assert float((every(table) - weight()).square().sum()) == pytest.approx(np.square(singular[3:]).sum(), rel=1e-4)
    assert table.nbytes == 4 * (60 * 3 + 3 * 8)


def test_frequent_rows_count_for_more() -> None:
    counts = torch.zeros(ROWS)
    counts[[2, 31, 40]] = 5.0
    vectors = every(low_rank(LowRank(rank=1), weight(), STARTS, counts))
    torch.testing.assert_close(vectors[[2, 31, 40]], weight()[[2, 31, 40]])
    assert (vectors - weight()).abs().max() > 0.5


@pytest.mark.parametrize("settings", [{}, {"projection": "table"}, {"centred": True}, {"bands": [(4, 8), (9, 8)]}])
def test_full_rank_is_an_exact_no_op(settings: dict) -> None:
    table = low_rank(LowRank(rank=8, **settings), weight(), STARTS)
    torch.testing.assert_close(every(table), weight(), atol=1e-6, rtol=0)
    torch.testing.assert_close(every(table.pack()), weight(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("projection", ["field", "table"])
@pytest.mark.parametrize("shape", [(3,), (4, 3), (0, 3), (2, 5, 3)])
def test_told_fields_and_found_ones_give_the_same(projection: str, shape: tuple[int, ...]) -> None:
    table = low_rank(LowRank(rank=3, projection=projection, centred=True), weight(), STARTS)
    draws = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(1))
    for fields in ((0, 1, 2), (2, 0, 2)):
        ids = draws + STARTS[list(fields)]
        torch.testing.assert_close(table(ids, fields), table(ids))
        assert table(ids, fields).shape == (*shape, 8)


def test_a_range_of_rows_may_begin_and_end_within_fields() -> None:
    table = low_rank(LowRank(rank=3, centred=True), weight(), STARTS)
    for start, stop in ((0, 60), (3, 9), (28, 40), (31, 32), (59, 60), (40, 40)):
        torch.testing.assert_close(table.rows(start, stop), every(table)[start:stop])


def test_the_gradient_is_that_of_the_product() -> None:
    """d/dz = g P^T, d/dP = z^T g, d/dm = g, for the rows and the fields of the batch alone."""
    table = low_rank(LowRank(rank=2, centred=True), weight(), STARTS)
    gradient = torch.randn(2, 8, generator=torch.Generator().manual_seed(2))
    (table(torch.tensor([[4, 31], [4, 31]]), (0, 1)) * gradient).sum().backward()
    rows = table.inner.weight
    assert rows.grad.abs().sum(dim=1).nonzero().flatten().tolist() == [4, 31]
    torch.testing.assert_close(rows.grad[4], 2 * gradient[0] @ table.projection[0].detach().T)
    torch.testing.assert_close(table.projection.grad[1], 2 * torch.outer(rows[31].detach(), gradient[1]))
    torch.testing.assert_close(table.mean.grad[0, 0], 2 * gradient[0])
    assert not table.projection.grad[2].any()


def test_rows_inside_may_be_of_another_kind() -> None:
    table = low_rank(LowRank(rank=4, inner=Scaled(bits=8)), weight(), STARTS)
    assert isinstance(table.inner, ScaledTable)
    packed = table.pack()
    torch.testing.assert_close(every(packed), every(table), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        every(packed, None), every(low_rank(LowRank(rank=4), weight(), STARTS)), atol=0.1, rtol=0
    )
    assert packed.nbytes == table.nbytes == 60 * 4 + 3 * 4 + 4 * 3 * 4 * 8
    with pytest.raises(InputError, match="dimension 1 does not"):
        low_rank(LowRank(rank=1, inner={"name": "scaled", "bits": 4}), weight(), STARTS)


def test_rows_of_zeros_stay_zeros_without_a_mean() -> None:
    values = weight()
    values[[0, 33]] = 0.0
    assert not every(low_rank(LowRank(rank=3), values, STARTS))[[0, 33]].any()


@pytest.mark.parametrize("rows", [1, 2])
def test_fewer_rows_than_the_rank(rows: int) -> None:
    table = low_rank(LowRank(rank=4), weight(rows))
    torch.testing.assert_close(every(table), weight(rows))


# Bands


def test_bands_have_the_least_error_each() -> None:
    values = weight()
    table = low_rank(LowRank(rank=1, bands=((5, 8), (10, 3))), values, STARTS)
    assert isinstance(table, StackedTable)
    head, middle, tail = table.tables[0].tables
    assert isinstance(head, DenseTable)
    assert (middle.inner.dim, tail.inner.dim) == (3, 1)
    vectors = every(table)
    torch.testing.assert_close(vectors[:5], values[:5])
    for first, last, rank in ((5, 15, 3), (15, 30, 1)):
        singular = np.linalg.svd(values[first:last].numpy(), compute_uv=False)
        found = float((vectors[first:last] - values[first:last]).square().sum())
        assert found == pytest.approx(np.square(singular[rank:]).sum(), rel=1e-4)
    torch.testing.assert_close(vectors[30:33], values[30:33])  # a field of 3 rows ends within its first band


def test_only_the_band_of_an_id_gets_its_gradient() -> None:
    table = low_rank(LowRank(rank=1, bands=((5, 4),)), weight()[:30])
    assert isinstance(table, BandedTable)
    table(torch.tensor([2, 7])).sum().backward()
    for part, row in zip(table.tables, (2, 2), strict=True):
        assert part.inner.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist() == [row]


def test_bands_that_rise_or_share_a_projection_are_refused() -> None:
    for settings in ({"bands": [(5, 2)], "rank": 4}, {"bands": [(5, 4)], "rank": 2, "projection": "table"}):
        with pytest.raises(InputError, match="bands need projection 'field' and ranks that fall"):
            low_rank(LowRank(**settings), weight(), STARTS)


# Wide ones


def test_a_wide_table_gives_its_rows_and_packs_to_plain_ones() -> None:
    table = low_rank(LowRank(rank=20), weight(), STARTS)
    torch.testing.assert_close(every(table), weight(), atol=1e-5, rtol=0)
    packed = table.pack()
    assert isinstance(packed, DenseTable)
    torch.testing.assert_close(every(packed), every(table), atol=1e-6, rtol=1e-6)
    assert packed.nbytes == table.nbytes == 60 * 8 * 4
    rms = [
        float(t.detach().square().mean().sqrt()) for t in (table.inner.weight, table.inner.weight @ table.projection)
    ]
    assert rms[0] == pytest.approx(rms[1] * (8 / 20) ** 0.5 * (20 / 8) ** 0.5, rel=0.4)
    with pytest.raises(InputError, match="rank 20 is beyond the 8 dimensions"):
        low_rank(LowRank(rank=20, inner=Scaled()), weight(), STARTS)


def test_a_wide_table_of_many_rows_is_trained_by_the_rows_of_the_batch() -> None:
    table = wide(torch.zeros(1000, 4), torch.zeros(1, dtype=torch.int64), 16, sparse=True)
    settings = {"learning_rate": 0.1, "sparse_learning_rate": 0.1, "sparse": "adagrad", "weight_decay": 0.0}
    chosen = optimizers(table, **settings)
    for _ in range(3):
        for optimizer in chosen:
            optimizer.zero_grad()
        (table(torch.tensor([3, 500])) - 1.0).square().sum().backward()
        assert table.inner.weight.grad.is_sparse
        for optimizer in chosen:
            optimizer.step()
    assert table.inner.weight.abs().sum(dim=1).nonzero().flatten().tolist() == [3, 500]
    assert table.merged().sparse


def test_it_takes_vectors_as_near_as_its_projections_allow() -> None:
    values = weight()
    table = low_rank(LowRank(rank=3, centred=True), values, STARTS)
    before = every(table)
    table.take(values + 0.0)
    torch.testing.assert_close(every(table), before, atol=1e-5, rtol=1e-5)


# Bad rows, and graphs


@pytest.mark.parametrize("settings", [{}, {"rank": 12}, {"bands": [(3, 4)]}])
def test_rows_that_are_not_finite_and_no_rows_are_refused(settings: dict) -> None:
    values = weight()
    values[50, 1] = float("nan")
    with pytest.raises(InputError, match="NaN or infinite"):
        low_rank(LowRank(**{"rank": 4, **settings}), values, STARTS)
    with pytest.raises(InputError, match="no rows"):
        low_rank(LowRank(rank=2), torch.zeros(0, 8))


class Looked(nn.Module):
    """Vectors of three columns, flat."""

    def __init__(self, table: nn.Module, fields: tuple[int, ...]):
        super().__init__()
        self.table, self.fields = table, fields

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids, self.fields).flatten(1).sum(dim=1)


SETTINGS = (
    {},
    {"projection": "table"},
    {"centred": True, "inner": Scaled(bits=4)},
    {"bands": ((6, 8), (20, 6)), "inner": Scaled(bits=4)},
    {"rank": 9},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: "-".join(map(str, one)) or "plain")
@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_the_graph_gathers_first_and_gives_the_same(settings: dict, limit: int, tmp_path: Path) -> None:
    """Unpacked at load or by the row, ONNX Runtime works on no whole table of floats."""
    table = low_rank(LowRank(**{"rank": 4, **settings}), weight(), STARTS)
    module = Looked(table.pack(), (0, 2, 2)).eval().requires_grad_(False)
    (path,) = write_graph(build_graph(module, 3, unpack_limit=limit), tmp_path / "model.onnx")
    assert gather_faults(onnx.load(path)) == []
    assert gather_faults(optimized_graph(path)) == []
    ids = torch.tensor([[0, 33, 59], [29, 40, 41], [7, 59, 33]], dtype=torch.int32)
    found = onnxruntime.InferenceSession(path).run(["logit"], {"ids": ids.numpy()})[0]
    np.testing.assert_allclose(found, module(ids).numpy(), rtol=1e-5, atol=1e-5)


def test_the_same_kind_inside_another_is_refused_no_more_than_it_must() -> None:
    """A projection of a projection is of little use, and right."""
    table = low_rank(LowRank(rank=4, inner=LowRank(rank=2, inner=Dense())), weight(), STARTS)
    assert isinstance(table, LowRankTable)
    torch.testing.assert_close(
        every(table, None), every(low_rank(LowRank(rank=2), weight(), STARTS)), atol=1e-5, rtol=0
    )
