"""Ranking a whole catalogue: from arithmetic, by all orders of ties, against sorted rows and against ranx."""

from itertools import pairwise, permutations

import numpy as np
import pytest

from slimrank.config import InputError
from slimrank.data.ragged import Ragged
from slimrank.evaluation import catalogue
from slimrank.evaluation.catalogue import draw_negatives, find_among_sampled, find_in_catalogue, product
from slimrank.metrics import top_k


def given(scores):
    """A scorer of scores that are there."""
    return lambda start, stop: scores[start:stop]


def problem(seed, queries=60, items=40, levels=None, most=1):
    draw = np.random.default_rng(seed)
    scores = draw.normal(size=(queries, items)).astype(np.float32)
    if levels:
        scores = np.round(scores * levels) / levels
    mixed = np.argsort(draw.random((queries, items)), axis=1)
    ends = draw.integers(1, most + 1, queries)
    wanted = [row[:end] for row, end in zip(mixed, ends, strict=True)]
    out = [draw.choice(row[most:], draw.integers(0, items - most)) for row in mixed]  # with repetitions
    return scores, Ragged.of(wanted), Ragged.of(out)


def as_rows(scores, wanted, out):
    """What is ranked, as `top_k` takes it: relevance, score and group of every candidate."""
    relevance = np.zeros(scores.shape)
    relevance[wanted.query, wanted.values] = 1
    kept = np.ones(scores.shape, dtype=bool)
    kept[out.query, out.values] = False
    query = np.broadcast_to(np.arange(len(scores))[:, None], scores.shape)
    return relevance[kept], scores[kept], query[kept]


def test_one_item_from_arithmetic():
    scores = np.array([[3, 2, 1, 0], [3, 2, 1, 0], [3, 2, 1, 0]], np.float32)
    found = find_in_catalogue(given(scores), [0, 2, -1], 4, at=(1, 2, 3)).metrics
    assert found["ndcg@3"].value == pytest.approx([1, 1 / np.log2(4), 0])
    assert found["ndcg@2"].value == pytest.approx([1, 0, 0])
    assert found["recall@1"].value.tolist() == [1, 0, 0]
    assert found["recall@3"].value.tolist() == [1, 1, 0]
    assert found["mrr"].value == pytest.approx([1, 1 / 3, 0])


def test_what_is_left_out_is_not_ranked():
    scores = np.array([[3, 2, 1, 0]], np.float32)
    out = Ragged.of([[0, 1, 0, 3]])
    assert find_in_catalogue(given(scores), [2], 4, out).metrics["mrr"].value.tolist() == [1]


def test_several_items_from_arithmetic():
    found = find_in_catalogue(given(np.array([[5, 4, 3, 2, 1]], np.float32)), Ragged.of([[1, 3, -1]]), 5, at=(2, 4))
    best = 1 + 1 / np.log2(3)
    assert found.metrics["recall@2"].value[0] == pytest.approx(1 / 3)
    assert found.metrics["recall@4"].value[0] == pytest.approx(2 / 3)
    assert found.metrics["ndcg@2"].value[0] == pytest.approx((1 / np.log2(3)) / best)
    assert found.metrics["ndcg@4"].value[0] == pytest.approx(
        (1 / np.log2(3) + 1 / np.log2(5)) / (best + 1 / np.log2(4))
    )
    assert found.metrics["mrr"].value[0] == pytest.approx(1 / 2)
    assert found.unknown == 1


@pytest.mark.parametrize("k", [1, 2, 3, 100])
@pytest.mark.parametrize("seed", range(4))
def test_a_tie_is_the_mean_over_all_orders(k, seed):
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, 2, 6).astype(np.float32)
    wanted = draw.permutation(6)[: seed % 3 + 1]
    orders = [order for order in permutations(range(6)) if all(scores[a] >= scores[b] for a, b in pairwise(order))]
    ranks = np.array([[order.index(item) for item in wanted] for order in orders])
    found = find_in_catalogue(given(scores[None]), Ragged.of([wanted]), 6, at=(k,)).metrics
    gain = np.where(ranks < k, 1 / np.log2(ranks + 2), 0).sum(axis=1)
    ideal = (1 / np.log2(np.arange(min(k, len(wanted))) + 2)).sum()
    assert found[f"ndcg@{k}"].value[0] == pytest.approx(gain.mean() / ideal, abs=1e-12)
    assert found[f"recall@{k}"].value[0] == pytest.approx((ranks < k).mean(), abs=1e-12)
    assert found["mrr"].value[0] == pytest.approx((1 / (ranks.min(axis=1) + 1)).mean(), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("most", [1, 9])
@pytest.mark.parametrize("chunk", [1, 100, 1 << 22])
def test_it_is_what_sorted_rows_give(monkeypatch, levels, most, chunk):
    monkeypatch.setattr(catalogue, "CHUNK", chunk)
    scores, wanted, out = problem(most, levels=levels, most=most)
    found = find_in_catalogue(given(scores), wanted, 40, out, at=(1, 5, 20)).metrics
    rows = as_rows(scores, wanted, out)
    for k in (1, 5, 20):
        np.testing.assert_allclose(found[f"ndcg@{k}"].value, top_k.ndcg(*rows, k).value, atol=1e-9)
        np.testing.assert_allclose(found[f"recall@{k}"].value, top_k.recall(*rows, k).value, atol=1e-9)
    np.testing.assert_allclose(found["mrr"].value, top_k.reciprocal_rank(*rows).value, atol=1e-9)


@pytest.mark.parametrize("most", [1, 9])
@pytest.mark.filterwarnings("ignore")
def test_the_mean_agrees_with_ranx(most):
    from ranx import Qrels, Run, evaluate

    scores, wanted, out = problem(7, most=most)
    found = find_in_catalogue(given(scores), wanted, 40, out).metrics
    judged = {str(query): {str(item): 1 for item in wanted[query]} for query in range(len(scores))}
    ranked = {
        str(query): {str(item): float(row[item]) for item in np.setdiff1d(np.arange(40), out[query])}
        for query, row in enumerate(scores)
    }
    for name in ("ndcg@10", "recall@20", "mrr"):
        assert found[name].mean == pytest.approx(evaluate(Qrels(judged), Run(ranked), name))


def test_one_item_and_k_beyond_the_catalogue():
    found = find_in_catalogue(product([[1.0]], [[0.0]]), [0], 1, at=(1000,))
    assert [metric.value.tolist() for metric in found.metrics.values()] == [[1], [1], [1]]


def test_a_query_with_nothing_to_find_does_not_count():
    scores = np.array([[1, 0], [1, 0]], np.float32)
    found = find_in_catalogue(given(scores), Ragged.of([[], [0]]), 2)
    for metric in found.metrics.values():
        assert metric.counted == 1
        assert metric.mean == 1


def test_what_is_in_no_catalogue_is_missed_and_counted():
    found = find_in_catalogue(given(np.zeros((3, 2), np.float32)), [-1, 0, -1], 2)
    assert found.unknown == 2
    assert found.metrics["recall@10"].value.tolist() == [0, 1, 0]


def test_infinite_scores_are_ordered():
    scores = np.array([[np.inf, 1, -np.inf]] * 2, np.float32)
    assert find_in_catalogue(given(scores), [0, 2], 3).metrics["mrr"].value == pytest.approx([1, 1 / 3])


def test_all_scores_alike_are_chance():
    found = find_in_catalogue(given(np.zeros((1, 50), np.float32)), Ragged.of([[4, 40]]), 50).metrics
    assert found["recall@10"].value[0] == pytest.approx(0.2)


def test_values_are_sorted_by_the_names_of_the_queries():
    scores = np.array([[1, 0], [0, 1]], np.float32)
    found = find_in_catalogue(given(scores), [0, 0], 2, group=["z", "a"]).metrics["mrr"]
    assert found.group.tolist() == ["a", "z"]
    assert found.value.tolist() == [0.5, 1]


def test_among_sampled_is_named_so_and_counts_those_alone():
    scores = np.array([[5, 4, 3, 2, 1], [1, 1, 1, 1, 1]], np.float32)
    found = find_among_sampled(given(scores), [2, -1], [[0, 3], [0, 1]], 5, at=(2,)).metrics
    assert set(found) == {f"{name} among 2 sampled" for name in ("ndcg@2", "recall@2", "mrr")}
    assert found["mrr among 2 sampled"].value.tolist() == [0.5, 0]
    tied = find_among_sampled(given(scores), [2, 0], [[2, 3], [0, 1]], 5, at=(1,)).metrics
    assert tied["recall@1 among 2 sampled"].value == pytest.approx([1 / 2, 1 / 3])


def test_drawn_negatives_are_items_that_a_query_neither_finds_nor_leaves_out():
    out = Ragged.of([[0, 1], [], [3]])
    drawn = draw_negatives([2, -1, 0], 5, 200, seed=1, left_out=out)
    assert [set(row.tolist()) for row in drawn] == [{3, 4}, {0, 1, 2, 3, 4}, {1, 2, 4}]
    np.testing.assert_array_equal(drawn, draw_negatives([2, -1, 0], 5, 200, seed=1, left_out=out))
    with pytest.raises(InputError, match="met every one of the 2 items"):
        draw_negatives([0], 2, 1, seed=0, left_out=Ragged.of([[1]]))


def test_every_other_item_as_a_negative_is_the_whole_catalogue():
    scores, wanted, _ = problem(3)
    others = np.array([np.setdiff1d(np.arange(40), wanted[query]) for query in range(60)])
    whole = find_in_catalogue(given(scores), wanted.values, 40).metrics
    for name, metric in find_among_sampled(given(scores), wanted.values, others, 40).metrics.items():
        np.testing.assert_allclose(metric.value, whole[name.removesuffix(" among 39 sampled")].value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"targets": []}, "no queries"),
        ({"targets": [0, 3]}, r"targets: 1 of 2 places are no item .* \(query 1: 3\); allowed are -1 to 2"),
        ({"targets": [0.0, 1.0]}, "must be integers"),
        ({"targets": Ragged.of([[1, 1], [0]])}, "named twice"),
        ({"items": 0}, "items: got 0"),
        ({"at": (10, 0)}, "k: got 0"),
        ({"left_out": Ragged.of([[0], [2, 0]])}, r"1 of 2 items to find are left out .*\(query 0: 0\)"),
        ({"left_out": Ragged.of([[0]])}, "left_out: got lists for 1 queries, there are 2"),
        ({"left_out": Ragged.of([[-1], []])}, "left_out: 1 of 1 places"),
        ({"score": given(np.array([[0, 1, 2], [0, np.nan, 1]]))}, r"1 of 6 are NaN \(query 1, item 1\)"),
        ({"score": given(np.zeros((2, 2)))}, r"got \(2, 2\), must be \(2, 3\)"),
        ({"group": [1]}, "every query needs one group"),
        ({"group": [1, 1]}, "named twice"),
    ],
)
def test_bad_input_is_refused(changed, message):
    allowed = {"score": given(np.zeros((2, 3), np.float32)), "targets": [0, 1], "items": 3}
    with pytest.raises(InputError, match=message):
        find_in_catalogue(**{**allowed, **changed})


def test_bad_vectors_and_negatives_are_refused():
    with pytest.raises(InputError, match="one width"):
        product(np.zeros((2, 3)), np.zeros((4, 2)))
    for negatives in ([0, 1], [[0]], [[0], [9]]):
        with pytest.raises(InputError, match="negatives"):
            find_among_sampled(given(np.zeros((2, 3), np.float32)), [0, 1], negatives, 3)
