"""Searches beside a reference: the share that is found from arithmetic, and the record of real indices."""

import numpy as np
import pytest

from slimrank.config import InputError
from slimrank.evaluation.cost import LEAST_SAMPLES
from slimrank.evaluation.retrieval import compare_searches, overlap, recall_against
from slimrank.indexing.binary import Binary
from slimrank.indexing.exact import Exact
from slimrank.indexing.index import build_index

VECTORS = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)


def test_what_is_found_from_arithmetic():
    best = np.array([[0, 1, 2], [3, 4, 5]])
    assert overlap(best, np.array([[2, 9, 0], [-1, -1, 5]])).tolist() == pytest.approx([2 / 3, 1 / 3])
    shown = {"best": lambda queries, k: best, "half": lambda queries, k: best + np.array([[0, 0, 9]])}
    found = compare_searches(shown, np.zeros((2, 1)), 3, LEAST_SAMPLES)
    assert found["best"]["recall"] == 1
    assert found["best"]["times_faster"] == 1
    assert found["half"]["recall"] == pytest.approx(2 / 3)
    low, high = found["half"]["recall_interval"]
    assert low == high == pytest.approx(2 / 3)


def test_an_index_beside_the_exact_one():
    exact, index = build_index(Exact(), VECTORS), build_index(Binary(rerank=2), VECTORS)
    found = recall_against(exact, index, VECTORS[:50], 5, LEAST_SAMPLES)
    assert found["exact"]["recall"] == 1
    places = (each.search(VECTORS[:50], 5)[0] for each in (exact, index))
    share = np.mean([len(set(one) & set(other)) / 5 for one, other in zip(*places, strict=True)])
    assert found["index"]["recall"] == pytest.approx(share) != 1
    for name, each in (("exact", exact), ("index", index)):
        assert found[name]["bytes"] == each.nbytes
        assert found[name]["ms"]["samples"] == LEAST_SAMPLES
        low, high = found[name]["times_faster_interval"]
        assert 0 < low <= found[name]["times_faster"] <= high


def test_what_cannot_be_compared_is_refused():
    exact = build_index(Exact(), VECTORS)
    with pytest.raises(InputError, match="indices of other items: 200 of 8 numbers and 9 of 8"):
        recall_against(exact, build_index(Exact(), VECTORS[:9]), VECTORS[:3], 5)
    with pytest.raises(InputError, match="got 0 queries"):
        recall_against(exact, exact, VECTORS[:0], 5)
    with pytest.raises(InputError, match="got 3 queries and 10 samples"):
        recall_against(exact, exact, VECTORS[:3], 5, 10)
