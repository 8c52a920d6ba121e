"""Remapped tables and the three forms of their maps, each against an index made by a loop."""

import pytest
import torch

from slimrank.tables.remapped import remap
from slimrank.tables.row_maps import BitMap, FirstRows, IndexMap, map_bytes, row_map

STARTS = torch.tensor([0, 70])


def kept_rows(kind: str) -> torch.Tensor:
    draws = torch.rand(300, generator=torch.Generator().manual_seed(1))
    kept = draws < 0.3 if kind == "random" else torch.cat([torch.arange(70) < 20, torch.arange(230) < 100])
    kept[0] = kept[70] = True
    return kept


@pytest.mark.parametrize("form", [IndexMap, BitMap])
@pytest.mark.parametrize("kind", ["random", "first"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_every_form_finds_the_kept_rows(form, kind: str, dtype: torch.dtype) -> None:
    kept = kept_rows(kind)
    place = torch.cumsum(kept, 0) - 1
    inner_starts = torch.stack([place[0], place[69] + 1])
    shared = torch.stack([place[0], place[70]])
    fields = (torch.arange(300) >= 70).long()
    expected = torch.where(kept, place, shared[fields])
    forms = [form, FirstRows] if kind == "first" else [form]
    for each in forms:
        found = each(kept, STARTS, inner_starts, shared)(torch.arange(300, dtype=dtype), fields)
        assert found.dtype == dtype
        assert torch.equal(found.long(), expected)


def test_the_smallest_form_is_taken_and_counted() -> None:
    kept, none = kept_rows("random"), torch.zeros(2, dtype=torch.int64)
    assert isinstance(row_map(kept_rows("first"), STARTS, torch.tensor([0, 20]), none), FirstRows)
    assert isinstance(row_map(kept, STARTS, none, none), IndexMap)
    many = torch.rand(100_000, generator=torch.Generator().manual_seed(1)) < 0.5
    chosen = row_map(many, torch.zeros(1, dtype=torch.int64), none[:1], none[:1])
    assert isinstance(chosen, BitMap)
    assert chosen.nbytes == map_bytes(many, torch.zeros(1, dtype=torch.int64))
    assert chosen.nbytes < 100_000 * 0.2 + 1000


@pytest.mark.parametrize("to", ["mean", "row"])
def test_what_was_dropped_shares_a_row(to: str) -> None:
    weight = torch.randn(300, 4, generator=torch.Generator().manual_seed(2))
    kept, counts = kept_rows("random"), torch.arange(300.0)
    table = remap(weight, STARTS, kept, torch.zeros(2, dtype=torch.int64), to=to, counts=counts)
    assert torch.equal(table.rows(0, 300)[kept][1:15], weight[kept][1:15])
    for first, last in ((0, 70), (70, 300)):
        gone = [row for row in range(first, last) if not kept[row]]
        members = [first, *gone]
        expected = weight[first]
        if to == "mean":
            expected = (weight[members] * counts[members].unsqueeze(1)).sum(dim=0) / counts[members].sum()
        for row in members:
            torch.testing.assert_close(table(torch.tensor([row])).detach()[0], expected)
