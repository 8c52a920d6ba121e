"""The fused embedding: offsets, averages of sequences, and cut vocabularies."""

import torch

from slimrank.tables.dense import DenseTable
from slimrank.tables.embedding import FusedEmbedding, Layout

LAYOUT = Layout(("user", "item", "genres"), (3, 4, 5), (1, 1, 3), numbers=2, sequences=("genres",))


def embedding(clip: bool = False) -> FusedEmbedding:
    weight = torch.arange(12.0).unsqueeze(1).repeat(1, 2)
    weight[7] = 0.0  # padding
    return FusedEmbedding(LAYOUT, DenseTable(weight, torch.tensor(LAYOUT.starts)), clip=clip)


def test_each_field_reads_its_own_rows() -> None:
    row = embedding()(torch.tensor([[2, 1, 2, 4, 0]]), torch.tensor([[0.5, -1.0]]))
    assert row.lookups[0, :, 0].tolist() == [2.0, 3.0 + 1.0]
    assert row.averages[0, 0].tolist() == [(9.0 + 11.0) / 2] * 2  # rows 7 + 2 and 7 + 4; padding does not count
    assert row.flat.tolist() == [[2, 2, 4, 4, 10, 10, 0.5, -1.0]]
    assert row.fields.shape == (1, 3, 2)


def test_an_empty_sequence_averages_to_zero() -> None:
    row = embedding()(torch.zeros(1, 5, dtype=torch.int32), torch.zeros(1, 2))
    assert row.averages.abs().max() == 0.0


def test_ids_beyond_a_cut_vocabulary_are_out_of_vocabulary() -> None:
    row = embedding(clip=True)(torch.tensor([[7, 1, 9, 0, 0]]), torch.zeros(1, 2))
    assert row.lookups[0, :, 0].tolist() == [0.0, 4.0]
    assert row.averages[0, 0, 0].item() == 8.0  # id 1 of the sequence's rows, which start at 7


def test_rows_that_training_may_never_meet_start_at_zero() -> None:
    table = FusedEmbedding.create(LAYOUT, 4, std=1.0).table
    zero = (table.rows(0, 12) == 0).all(dim=1).nonzero().flatten().tolist()
    assert zero == [0, 3, 7, 8]


def test_starts_and_columns() -> None:
    assert LAYOUT.starts == (0, 3, 7)
    assert LAYOUT.per_column(LAYOUT.starts).tolist() == [0, 3, 7, 7, 7]
    assert LAYOUT.with_sizes({"item": 2}).num_rows == 10
