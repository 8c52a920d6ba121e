"""Hashed tables: which bucket, what is shared, and what tells ids apart, against loops in numpy."""

import numpy as np
import pytest
import torch

from slimrank.tables.buckets import collisions, expected_collisions
from slimrank.tables.hashed import Hashed, HashedTable, hash_rows, hashed

STARTS = torch.tensor([0, 30])


def weight() -> torch.Tensor:
    return torch.randn(100, 4, generator=torch.Generator().manual_seed(6))


def bucket(row: int, reserved: int, size: int) -> int:
    """The bucket of a row of a field, -1 for the reserved ones."""
    return -1 if row < reserved else (row - reserved) % size


def test_plain_hashing_gives_the_weighted_mean_of_a_bucket() -> None:
    rows, counts = weight(), torch.arange(1.0, 101.0)
    table = hash_rows(Hashed(method="plain"), rows, STARTS, [1, 2], [7, 9], counts)
    for field, (first, last), reserved, size in ((0, (0, 30), 1, 7), (1, (30, 100), 2, 9)):
        for row in range(first, last):
            own = bucket(row - first, reserved, size)
            members = [r for r in range(first, last) if bucket(r - first, reserved, size) == own and own >= 0] or [row]
            expected = np.average(rows[members].numpy(), axis=0, weights=counts[members].numpy())
            np.testing.assert_allclose(table(torch.tensor([row]), (field,)).detach().numpy()[0], expected, atol=1e-5)


def test_weights_are_the_best_rank_one_fit_of_a_bucket() -> None:
    rows = weight()
    table = hashed(Hashed(buckets=5, weight_bits=16), rows, STARTS)
    for first, last in ((0, 30), (30, 100)):
        for own in range(5):
            members = [r for r in range(first + 1, last) if bucket(r - first, 1, 5) == own]
            best = np.linalg.svd(rows[members].numpy(), compute_uv=False)
            left = float((table(torch.tensor(members)).detach() - rows[members]).square().sum())
            assert left < 1.05 * float((best[1:] ** 2).sum()) + 1e-3


def test_first_rows_have_rows_of_their_own() -> None:
    rows = weight()
    table = hash_rows(Hashed(), rows, STARTS, [1, 2], [4, 4])
    torch.testing.assert_close(table(torch.tensor([0, 30, 31])).detach(), rows[[0, 30, 31]])


def test_a_bias_is_the_mean_of_a_row() -> None:
    rows = weight() * 0.01 + torch.arange(100.0).unsqueeze(1)
    plain, biased = (hashed(Hashed(buckets=5, weight_bits=16, bias=b), rows, STARTS) for b in (False, True))
    assert isinstance(biased, HashedTable)
    errors = [(table.rows(0, 100) - rows).square().sum() for table in (plain, biased)]
    assert errors[1] < 0.7 * errors[0]


def test_collisions_are_counted_by_id_and_by_traffic() -> None:
    shared, counts = torch.tensor([0, 1, 2, 1, 3]), torch.tensor([10.0, 5.0, 1.0, 4.0, 0.0])
    assert collisions(shared, counts, 4) == (pytest.approx(0.4), pytest.approx(9 / 20))
    assert collisions(shared[:0], None, 4) == (0.0, 0.0)
    draws = torch.randint(0, 64, (2000, 40), generator=torch.Generator().manual_seed(0))
    observed = np.mean([collisions(row, None, 64)[0] for row in draws])
    assert observed == pytest.approx(expected_collisions(40, 64), abs=0.01)


def test_weights_use_all_codes_and_ones_alone_are_exact() -> None:
    rows = weight()
    table = hashed(Hashed(buckets=5), rows, STARTS)
    packed = table.pack()
    assert isinstance(packed.codes, torch.Tensor)
    assert packed.codes.min() == -128  # the largest weight of every bucket
    assert packed.scale.tolist() == [[2.0**-7]] * 2
    assert torch.equal(hashed(Hashed(buckets=100), rows, STARTS).pack().rows(0, 100), rows)
