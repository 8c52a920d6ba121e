"""Rows of few values: which are kept, what they are rounded to, and sums over them, from arithmetic."""

import pytest
import torch

from slimrank.config import InputError
from slimrank.tables.dense import DenseTable
from slimrank.tables.scaled import Scaled, scaled
from slimrank.tables.sparse import BLOCK, PackedSparseTable, SparseTable, nbytes_of, sparse_table


def weight(rows: int = 6, dim: int = 20) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(1))


def test_a_row_keeps_as_many_blocks_as_are_worth_it() -> None:
    rows = torch.zeros(3, 20)
    rows[0, :16] = torch.arange(16.0, 0.0, -1.0)  # blocks of 100 (16..9) and 36 (8..1)
    rows[1, 4:12] = -2.0  # a block of 16
    rows[2, 0] = 1.0
    table = sparse_table(rows, 2)
    assert table.begins.tolist() == [0, 2, 2, 2]
    assert torch.equal(table.kept()[0], torch.arange(20) < 16)
    table = sparse_table(rows, 3)
    assert table.begins.tolist() == [0, 2, 3, 3]
    assert torch.equal(table.kept()[1], (torch.arange(20) >= 4) & (torch.arange(20) < 12))


def test_the_largest_value_has_the_code_127_and_the_rest_are_rounded_to_its_127th() -> None:
    rows = torch.zeros(1, 8)
    rows[0, :3] = torch.tensor([-1.27, 0.014, 0.016])
    table = sparse_table(rows, 1)
    expected = torch.tensor([[-1.27, 0.01, 0.02, 0, 0, 0, 0, 0]])
    for form in (table, table.pack()):
        torch.testing.assert_close(form(torch.tensor([0])), expected, atol=1e-6, rtol=0)


def test_a_row_of_a_width_that_is_no_multiple_of_a_block_is_kept_whole() -> None:
    rows = weight(4, 11)
    table = sparse_table(rows, 100, bits=32)
    assert len(table.values) == 4 * 2
    assert bool(table.kept().all())
    for form in (table, table.pack()):
        assert torch.equal(form(torch.arange(4)), rows)


def test_values_that_no_column_has_learn_nothing() -> None:
    table = sparse_table(weight(2, 11), 4)
    table(torch.arange(2)).sum().backward()
    assert torch.equal(table.values.grad != 0, table.columns < 11)


def test_values_are_found_again_in_their_places() -> None:
    table, other = sparse_table(weight(), 5), 3 * weight() + 1
    table.assign(other)
    expected = other * table.kept()
    step = other[table.kept()].abs().max() / 127
    torch.testing.assert_close(table(torch.arange(6)).detach(), expected, atol=float(step) / 2, rtol=0)
    torch.testing.assert_close(table.pack()(torch.arange(6)), table(torch.arange(6)).detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize(("rows", "dim", "blocks"), [(6, 20, 5), (3000, 8, 40_000), (2, 40_000, 3)])
def test_bytes_are_those_of_what_is_stored(rows: int, dim: int, blocks: int, bits: int) -> None:
    table = sparse_table(weight(rows, dim), blocks, bits=bits)
    packed = table.pack()
    assert isinstance(packed, PackedSparseTable)
    stored = sum(buffer.numel() * buffer.element_size() for buffer in packed.state_dict().values())
    assert packed.nbytes == table.nbytes == stored == nbytes_of(len(table.values), rows, dim, bits)


@pytest.mark.parametrize("kind", ["dense", "scaled", "sparse", "packed"])
def test_sums_over_chosen_rows(kind: str) -> None:
    """Of any table; a row counts once, however often it was chosen, and no row gives 0."""
    rows = weight()
    made = {
        "dense": lambda: DenseTable(rows),
        "scaled": lambda: scaled(Scaled(bits=8), rows, torch.zeros(1, dtype=torch.int64)),
        "sparse": lambda: sparse_table(rows, 7),
        "packed": lambda: sparse_table(rows, 7).pack(),
    }[kind]()
    chosen = torch.tensor([[0, 1, 0, 2, 0, 1], [0] * 6, [1] * 6], dtype=torch.int32)
    all_rows = made(torch.arange(6)).detach()
    expected = torch.stack([all_rows[[1, 3, 5]].sum(0), torch.zeros(20), all_rows.sum(0)])
    torch.testing.assert_close(made.summed(chosen).detach(), expected, atol=1e-5, rtol=1e-5)
    assert made.summed(chosen[:0]).shape == (0, 20)


def test_sums_of_bytes_do_not_depend_on_neighbours() -> None:
    packed = sparse_table(weight(500, 64), 2000).pack()
    chosen = torch.randint(0, 2, (9, 500), generator=torch.Generator().manual_seed(0))
    alone = torch.cat([packed.summed(chosen[n : n + 1]) for n in range(9)])
    assert torch.equal(packed.summed(chosen), alone)


def test_one_block_is_the_least() -> None:
    table = sparse_table(torch.zeros(3, 9), 0)
    assert isinstance(table, SparseTable)
    assert table.values.shape == (1, BLOCK)
    assert torch.equal(table.pack()(torch.arange(3)), torch.zeros(3, 9))


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        sparse_table(torch.zeros(0, 9), 1)
