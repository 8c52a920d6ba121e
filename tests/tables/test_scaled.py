"""Scaled tables: packing to the bit, one scale a group, and errors."""

import pytest
import torch

from slimrank.config import InputError
from slimrank.tables.scaled import Scaled, ScaledTable, field_scales, pack_rows, scaled


def rows(count: int = 40, dim: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_four_bits_pack_the_first_half_low_and_the_second_high() -> None:
    weight = torch.tensor([[0.0, 1.0, -1.0, 7.0]])
    packed = pack_rows(weight, torch.ones(1), 4, [(0, 1)])
    assert packed.tolist() == [[8 + (7 << 4), 9 + (15 << 4)]]


def test_two_bits_pack_four_codes_a_byte() -> None:
    packed = pack_rows(torch.tensor([[-2.0, -1.0, 0.0, 1.0]]), torch.ones(1), 2, [(0, 1)])
    assert packed.tolist() == [[0 + (1 << 2) + (2 << 4) + (3 << 6)]]


def test_packing_in_chunks_equals_packing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, starts = rows(1000), [(0, 1), (1, 600), (600, 1000)]
    scale = field_scales(weight, Scaled(bits=4), starts)
    whole = pack_rows(weight, scale, 4, starts)
    monkeypatch.setattr("slimrank.tables.scaled.CHUNK", 16 * 7)
    assert torch.equal(pack_rows(weight, scale, 4, starts), whole)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_group_has_its_own_scale(bits: int) -> None:
    weight, starts = rows(), torch.tensor([0, 10])
    weight[10:] *= 100
    table = scaled(Scaled(bits=bits, range="max"), weight, starts)
    assert table.scale[1] / table.scale[0] > 50
    error = (table(torch.arange(40)) - weight).abs().amax(dim=1)
    assert (error[:10] <= table.scale[0] / 2 + 1e-5).all()
    assert (error[10:] <= table.scale[1] / 2 + 1e-3).all()


def test_known_groups_and_found_groups_agree() -> None:
    table = scaled(Scaled(bits=4), rows(), torch.tensor([0, 10, 30]))
    ids = torch.tensor([[3, 15, 35], [9, 29, 39]])
    assert torch.equal(table(ids), table(ids, (0, 1, 2)))


def test_only_rows_of_the_batch_get_gradients() -> None:
    table = scaled(Scaled(bits=4), rows(), None)
    table(torch.tensor([3, 7, 3])).sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist() == [3, 7]


def test_sparse_gradients_hold_the_batch_and_nothing_else() -> None:
    table = scaled(Scaled(bits=8), rows(), None)
    table.sparse = True
    table(torch.tensor([3, 7, 3])).sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad.is_sparse
    assert table.weight.grad.coalesce().indices().tolist() == [[3, 7]]


def test_an_empty_group_and_a_table_of_one_row() -> None:
    table = scaled(Scaled(bits=8), rows(1), torch.tensor([0, 0]))
    assert table.pack()(torch.tensor([0])).shape == (1, 16)


@pytest.mark.parametrize(("bits", "dim"), [(4, 5), (2, 6)])
def test_a_dimension_that_fills_no_byte_is_refused(bits: int, dim: int) -> None:
    with pytest.raises(InputError, match=f"dimension {dim} does not pack at {bits} bits"):
        scaled(Scaled(bits=bits), rows(4, dim), None)


def test_nan_rows_are_refused() -> None:
    weight = rows()
    weight[3, 3] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        scaled(Scaled(bits=8), weight, None)


def test_bits_of_three_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(InputError, match=r"bits: Input should be 2, 4 or 8, got 3"):
        Scaled.parse({"bits": 3})


def test_the_rows_are_not_copied() -> None:
    weight = rows()
    table = scaled(Scaled(bits=8), weight, None)
    assert isinstance(table, ScaledTable)
    assert table.weight.data_ptr() == weight.data_ptr()
