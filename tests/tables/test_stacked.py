"""A stack of tables stands for one: the same vectors whether the columns' fields are known or not."""

import pytest
import torch

from slimrank.tables.banded import BandedTable
from slimrank.tables.dense import DenseTable
from slimrank.tables.scaled import Scaled, scaled
from slimrank.tables.stacked import StackedTable, stacked
from slimrank.tables.table import Table


def rows(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def stack() -> StackedTable:
    """Fields of 3 and 5 dense rows, 7 of 8 bits, and 2 dense ones."""
    table = stacked(
        [
            DenseTable(rows(8, 0), torch.tensor([0, 3])),
            scaled(Scaled(bits=8), rows(7, 1), torch.tensor([0])),
            DenseTable(rows(2, 2)),
        ]
    )
    assert isinstance(table, StackedTable)
    return table


def test_rows_and_fields_stand_one_below_the_other() -> None:
    table = stack()
    assert table.num_rows == 17
    assert table.starts.tolist() == [0, 3, 8, 15]
    torch.testing.assert_close(table.rows(0, 8), rows(8, 0))
    torch.testing.assert_close(table.rows(15, 17), rows(2, 2))
    assert table.nbytes == 8 * 4 * 4 + (7 * 4 + 4) + 2 * 4 * 4


def test_known_fields_in_any_order_give_what_unknown_ones_do() -> None:
    table = stack()
    ids = torch.tensor([[16, 0, 9, 7, 2], [15, 2, 14, 3, 0]])
    for form in (table, table.pack()):
        torch.testing.assert_close(form(ids, (3, 0, 2, 1, 0)), form(ids))
        assert form(ids[:, :0]).shape == (2, 0, 4)


def test_only_the_rows_of_the_batch_get_gradients() -> None:
    table = stack()
    table(torch.tensor([[1, 9]]), (0, 2)).sum().backward()
    dense, small, last = table.tables
    assert dense.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist() == [1]
    assert small.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist() == [1]
    assert last.weight.grad is None


@pytest.mark.parametrize("kind", [StackedTable, BandedTable])
def test_a_part_without_ids_in_the_batch_stays_out_of_sparse_gradients(kind: type[Table]) -> None:
    """A row with a gradient of 0 would still be moved by the momentum of SparseAdam."""
    table = kind([DenseTable(rows(8, 0)), DenseTable(rows(5, 1))]).with_sparse(True)
    table(torch.tensor([[12, 8], [8, 9]])).sum().backward()
    first, last = (part.weight.grad.coalesce() for part in table.tables)
    assert first.indices().tolist() == [[]]
    assert last.indices().tolist() == [[0, 1, 4]]
    ids = torch.tensor([[12, 0], [7, 8]], dtype=torch.int32)
    assert torch.equal(table(ids), torch.cat([rows(8, 0), rows(5, 1)])[ids.long()])
    for outside in (-1, 13):
        with pytest.raises(IndexError):
            table(torch.tensor([outside]))


def test_neighbours_that_are_dense_become_one_and_stacks_do_not_nest() -> None:
    whole = stacked([DenseTable(rows(3, 0)), DenseTable(rows(5, 1), torch.tensor([0, 2]))])
    assert isinstance(whole, DenseTable)
    assert whole.starts.tolist() == [0, 3, 5]
    nested = stacked([stack(), DenseTable(rows(2, 3))])
    assert [type(part).__name__ for part in nested.tables] == ["DenseTable", "ScaledTable", "DenseTable"]
    assert nested.tables[-1].num_rows == 4


def test_steps_are_known_where_every_column_has_bytes() -> None:
    small = scaled(Scaled(bits=4), rows(6, 0), torch.tensor([0, 2]))
    table = stacked([small, scaled(Scaled(bits=8), rows(3, 1), None)])
    expected = torch.stack([table.tables[1].scale[0], small.scale[1] / 16, small.scale[0] / 16])
    torch.testing.assert_close(table.steps((2, 1, 0)), expected)
    assert stack().steps((0, 2)) is None
    assert stack().steps((2, 2)) is not None


def test_packing_packs_every_part_once() -> None:
    packed = stack().pack()
    assert packed.pack() is packed
