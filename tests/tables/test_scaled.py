"""Scaled tables: packing to the bit, one scale a group, and errors."""

import pytest
import torch

from slimrank.config import InputError
from slimrank.tables.integer import pack_bytes
from slimrank.tables.scaled import Scaled, ScaledTable, pack_rows, scaled


def rows(count: int = 40, dim: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_four_bits_pack_the_first_half_low_and_the_second_high() -> None:
    codes = torch.tensor([[8, 9, 7, 15]], dtype=torch.uint8)
    assert pack_bytes(codes, 4).tolist() == [[8 + (7 << 4), 9 + (15 << 4)]]


def test_two_bits_pack_four_codes_a_byte_and_one_bit_eight() -> None:
    codes = torch.tensor([[0, 1, 2, 3]], dtype=torch.uint8)
    assert pack_bytes(codes, 2).tolist() == [[0 + (1 << 2) + (2 << 4) + (3 << 6)]]
    assert pack_bytes(codes[:, 1:], 2).tolist() == [[1 + (2 << 2) + (3 << 4)]]
    assert pack_bytes(torch.tensor([[1, 0, 0, 1, 0, 0, 0, 1]], dtype=torch.uint8), 1).tolist() == [[1 + 8 + 128]]


@pytest.mark.parametrize("scale", ["field", "row"])
def test_packing_in_chunks_equals_packing_at_once(scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = scaled(Scaled(bits=4, scale=scale), rows(1000), torch.tensor([0, 1, 600]))
    whole = pack_rows(table)
    monkeypatch.setattr("slimrank.tables.scaled.CHUNK", 16 * 7)
    assert torch.equal(pack_rows(table), whole)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_scale_for_every_row_fits_rows_of_any_size(bits: int) -> None:
    weight = rows(60) * torch.logspace(-3, 3, 60).unsqueeze(1)
    by_row = scaled(Scaled(bits=bits, scale="row"), weight, torch.tensor([0, 20]))
    noise = (by_row.pack()(torch.arange(60)) - weight).square().sum(dim=1) / weight.square().sum(dim=1)
    assert (noise < {1: 0.6, 2: 0.4, 4: 0.02, 8: 1e-4}[bits]).all()
    assert by_row.nbytes == by_row.pack().nbytes == 60 * 16 * bits // 8 + 2 * 60 + 4


def test_groups_of_rows_are_counted_inside_each_field_and_the_last_may_be_short() -> None:
    table = scaled(Scaled(bits=8, scale="row", rows_per_scale=4), rows(17), torch.tensor([0, 6]))
    assert table.log_scale.shape == (2 + 3, 1)
    ids = torch.tensor([[0, 6], [3, 9], [4, 10], [5, 16]])
    groups = table.of_groups(torch.arange(5.0).unsqueeze(1), ids, (0, 1)).squeeze(-1)
    assert groups.tolist() == [[0, 2], [0, 2], [1, 3], [1, 4]]
    torch.testing.assert_close(table(ids, (0, 1)), table(ids))


@pytest.mark.parametrize("scale", ["table", "field", "row"])
def test_a_zero_point_pays_where_values_lie_on_one_side(scale: str) -> None:
    weight = rows() * 0.1 + 3.0
    shifted, centred = (scaled(Scaled(bits=4, scale=scale, symmetric=s), weight, None).pack() for s in (False, True))
    ids = torch.arange(40)
    assert (shifted(ids) - weight).square().sum() < 0.5 * (centred(ids) - weight).square().sum()
    assert shifted.steps((0,)) is None


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("choice", ["max", "squared-error"])
@pytest.mark.parametrize(("offset", "spread"), [(1.0, 1e-6), (-1000.0, 1.0), (3e4, 1e-3), (1.0, 0.0)])
def test_rows_far_from_zero_have_steps_that_float16_can_count(
    bits: int, choice: str, offset: float, spread: float
) -> None:
    """The error is that of float16 for the offset, and of half a step, or all of what one bit tells apart."""
    weight = offset + spread * rows(60)
    table = scaled(Scaled(bits=bits, symmetric=False, scale="row", range=choice), weight, None)
    found = table.pack()(torch.arange(60))
    torch.testing.assert_close(found, table(torch.arange(60)).detach(), rtol=1e-6, atol=0)
    width = weight.amax(dim=1) - weight.amin(dim=1)
    assert ((found - weight).abs().amax(dim=1) <= abs(offset) / 2048 + width / min(2**bits - 1, 2)).all()
    assert table.nbytes == table.pack().nbytes == 60 * 16 * bits // 8 + 2 * 2 * 60 + 4


def test_stochastic_rounding_is_for_training_alone() -> None:
    table = scaled(Scaled(bits=2, rounding="stochastic"), rows(), None)
    torch.manual_seed(0)
    table.train()
    assert not torch.equal(table(torch.arange(40)), table(torch.arange(40)))
    table.eval()
    torch.testing.assert_close(table(torch.arange(40)).detach(), table.pack()(torch.arange(40)))


def test_a_fixed_scale_is_no_parameter() -> None:
    fixed = scaled(Scaled(bits=4, learned=False), rows(), None)
    assert [name for name, _ in fixed.named_parameters()] == ["weight"]
    assert "log_scale" in fixed.state_dict()


def test_thirty_two_bits_are_the_rows_themselves() -> None:
    weight = rows()
    assert torch.equal(scaled(Scaled(bits=32), weight, None)(torch.arange(40)), weight)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rows_per_scale": 4}, "rows_per_scale is for scale 'row'"),
        ({"rows_per_scale": 0, "scale": "row"}, "rows_per_scale: Input should be greater than or equal to 1"),
        ({"levels": "midtread", "bits": 1}, "need 2 bits or more"),
        ({"levels": "midrise", "bits": 8}, "need 4 bits or fewer"),
        ({"levels": "midrise", "symmetric": False}, "levels are for a symmetric grid"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Scaled.parse(settings)


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


@pytest.mark.parametrize(("bits", "dim"), [(4, 1), (2, 2), (1, 4)])
def test_a_dimension_that_fills_no_byte_is_refused(bits: int, dim: int) -> None:
    with pytest.raises(InputError, match=f"dimension {dim} does not pack at {bits} bit"):
        scaled(Scaled(bits=bits), rows(4, dim), None)


def test_nan_rows_are_refused() -> None:
    weight = rows()
    weight[3, 3] = torch.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        scaled(Scaled(bits=8), weight, None)


def test_bits_of_three_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(InputError, match=r"bits: Input should be 1, 2, 4, 8 or 32, got 3"):
        Scaled.parse({"bits": 3})


def test_the_rows_are_not_copied() -> None:
    weight = rows()
    table = scaled(Scaled(bits=8), weight, None)
    assert isinstance(table, ScaledTable)
    assert table.weight.data_ptr() == weight.data_ptr()
