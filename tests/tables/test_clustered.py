"""Clustered embeddings against the sum written out, row by row, in numpy."""

import numpy as np
import torch

from slimrank.tables.bits import pack_bits, read_bits, span
from slimrank.tables.buckets import PRIME
from slimrank.tables.clustered import ClusteredTable
from slimrank.tables.hashed import Hashed, hashed


def table() -> tuple[ClusteredTable, torch.Tensor]:
    weight = torch.randn(300, 8, generator=torch.Generator().manual_seed(5))
    made = hashed(Hashed(method="clustered", buckets=20, chunks=2), weight, torch.tensor([0, 40]))
    assert isinstance(made, ClusteredTable)
    return made, weight


def test_bits_of_any_width_are_read_where_they_were_packed() -> None:
    for bits in (1, 3, 5, 8, 9, 12):
        values = torch.arange(200) * 7919 % (1 << bits)
        packed = torch.cat([pack_bits(values, bits), torch.zeros(span(bits), dtype=torch.uint8)]).unsqueeze(1)
        at = torch.arange(200) * bits
        assert torch.equal(read_bits(packed, at, torch.tensor(1 << bits), span(bits)), values)


def test_vectors_are_centres_plus_hashed_rows() -> None:
    made, _ = table()
    inner, hashes = made.inner.rows(0, made.inner.num_rows).numpy(), made.hashes.numpy()
    for field, (first, last), size in ((0, (0, 40), 16), (1, (40, 300), 16)):
        base = made.parts.bases[field]
        bits = np.unpackbits(made.pointers.numpy().ravel(), bitorder="little")
        for row in (first + 1, first + 9, last - 1):
            own, expected = row - first - 1, []
            for chunk in range(2):
                at = made.parts.first_bits[field] + (own * 2 + chunk) * 4
                cluster = int((bits[at : at + 4] << np.arange(4)).sum())
                other = int((own * hashes[chunk, 0] + hashes[chunk, 1]) % PRIME % size)
                expected.append(inner[base + chunk * size + cluster] + inner[base + (2 + chunk) * size + other])
            found = made(torch.tensor([row])).detach().numpy()[0]
            np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-6)


def test_reserved_rows_are_exact_and_the_fit_beats_clusters_alone() -> None:
    made, weight = table()
    assert torch.equal(made(torch.tensor([0, 40])).detach(), weight[[0, 40]])
    error = (made.rows(0, 300) - weight).square().sum()
    alone = hashed(Hashed(method="plain", buckets=20), weight, torch.tensor([0, 40]))
    assert error < 0.6 * (alone.rows(0, 300) - weight).square().sum()


def test_the_same_rows_give_the_same_table() -> None:
    one, other = table()[0].state_dict(), table()[0].state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
