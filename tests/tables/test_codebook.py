"""Codebooks: codes are those of the nearest entries, as a brute-force search and faiss find them."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from slimrank.config import InputError
from slimrank.tables.clusters import centres, nearest
from slimrank.tables.codebook import Codebook, CodebookTable, code_bytes, codebook, means


def rows(count: int = 600, dim: int = 8) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(4))


def test_the_nearest_centre_is_that_of_a_brute_force_search() -> None:
    vectors, found = rows(200, 3), rows(17, 3)
    expected = ((vectors[:, None] - found[None]) ** 2).sum(dim=2).argmin(dim=1)
    assert torch.equal(nearest(vectors, found), expected)


def test_few_distinct_vectors_are_their_own_centres() -> None:
    vectors = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    assert centres(vectors, 4).tolist() == [[1, 2], [3, 4], [0, 0], [0, 0]]


def test_weights_draw_the_centres() -> None:
    vectors = torch.cat([torch.zeros(50, 1), torch.ones(50, 1) * 10, torch.linspace(0, 10, 50).unsqueeze(1)])
    weights = torch.cat([torch.full((100,), 1e4), torch.full((50,), 0.01)])
    assert sorted(centres(vectors, 2, weights).flatten().tolist()) == pytest.approx([0.0, 10.0], abs=0.05)


def test_vectors_are_those_that_faiss_decodes() -> None:
    weight = rows()
    table = codebook(Codebook(parts=4, bits=8, entry_bits=32), weight)
    quantizer = faiss.ProductQuantizer(8, 4, 8)
    faiss.copy_array_to_vector(table.entries.detach().numpy().ravel(), quantizer.centroids)
    codes = quantizer.compute_codes(weight.numpy())
    assert np.array_equal(codes, table.packed.numpy())
    np.testing.assert_allclose(table(torch.arange(600)).detach().numpy(), quantizer.decode(codes), atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_more_bits_leave_less_error_than_the_centres_of_faiss_alone_could(bits: int) -> None:
    weight = rows(3000)
    table = codebook(Codebook(parts=4, bits=bits, entry_bits=32), weight)
    quantizer = faiss.ProductQuantizer(8, 4, bits)
    quantizer.train(weight.numpy())
    reference = np.square(quantizer.decode(quantizer.compute_codes(weight.numpy())) - weight.numpy()).sum()
    assert float((table(torch.arange(3000)).detach() - weight).square().sum()) < 1.03 * reference


def test_bytes_from_arithmetic() -> None:
    table = codebook(Codebook(parts=4, bits=4), rows(), torch.tensor([0, 100]))
    # 4 codes of 4 bits a row; 2 fields * 16 entries * 8 numbers; a step a field; where each of 4 parts begins
    assert table.nbytes == 600 * 2 + 2 * 16 * 8 + 2 * 4 + 2 * 4 * 4
    assert code_bytes(600, 2, 8, Codebook(parts=4, bits=4)) == table.nbytes


def test_only_entries_that_the_batch_reads_learn_and_codes_stay() -> None:
    table = codebook(Codebook(parts=2, bits=4), rows(), torch.tensor([0, 300]))
    before = table.packed.clone()
    table(torch.tensor([2]), (0,)).sum().backward()
    learned = table.entries.grad.abs().sum(dim=1).nonzero().flatten()
    assert len(learned) == 2
    assert learned[0] < 16 <= learned[1] < 32
    assert torch.equal(table.packed, before)


def test_codes_may_be_given_and_entries_are_their_means() -> None:
    weight = torch.tensor([[1.0, 5.0], [3.0, 5.0], [10.0, 7.0]])
    given = torch.tensor([[0, 1, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]], dtype=torch.uint8)[:, :2]
    table = codebook(Codebook(parts=2, bits=4, entry_bits=32), weight, codes=given)
    torch.testing.assert_close(table(torch.arange(3)).detach(), torch.tensor([[2, 17 / 3], [2, 17 / 3], [10, 17 / 3]]))
    weighted = means(weight[:, :1], given[:, 0].long(), 2, torch.tensor([3.0, 1.0, 1.0]))
    torch.testing.assert_close(weighted, torch.tensor([[1.5], [10.0]]))


def test_entries_of_a_byte_feed_integer_layers_and_floats_do_not() -> None:
    bytes_ = codebook(Codebook(parts=4, bits=4), rows(), torch.tensor([0, 300]))
    assert isinstance(bytes_, CodebookTable)
    steps = bytes_.steps((1, 0, 1))
    torch.testing.assert_close(steps, bytes_.log_step.exp()[torch.tensor([1, 0, 1])])
    values = bytes_(torch.tensor([400])).detach() / steps[0]
    torch.testing.assert_close(values, values.round(), atol=1e-3, rtol=0)
    assert codebook(Codebook(parts=4, bits=4, entry_bits=32), rows()).steps((0,)) is None


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="dimension 8 does not divide into 3 parts"):
        codebook(Codebook(parts=3), rows())
