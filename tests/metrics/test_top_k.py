"""Metrics of ranked lists: from arithmetic, by all orders of ties, and against scikit-learn and ranx."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from slimrank.config import InputError
from slimrank.metrics.top_k import average_precision, hit_rate, ndcg, recall, reciprocal_rank


def lists(seed, groups=40, levels=None, graded=False):
    draw = np.random.default_rng(seed)
    group = np.repeat(draw.permutation(groups), draw.integers(1, 12, groups))
    relevance = draw.integers(0, 4, len(group)) * (draw.random(len(group)) < 0.4)
    score = draw.normal(size=len(group))
    mixed = draw.permutation(len(group))
    values = relevance if graded else (relevance > 0).astype(int)
    return values[mixed], (np.round(score * levels) / levels if levels else score)[mixed], group[mixed]


def plain(metric, values, k):
    """One ranked list without ties, `values` being relevances from the first rank on."""
    k = k or len(values)
    top = np.array(values[:k], dtype=float)
    if metric is recall:
        return (top > 0).sum() / (np.array(values) > 0).sum()
    if metric is hit_rate:
        return float((top > 0).any())
    if metric is reciprocal_rank:
        return 1 / (np.argmax(top > 0) + 1) if (top > 0).any() else 0.0
    if metric is average_precision:
        precision = np.cumsum(top > 0) / np.arange(1, len(top) + 1)
        return precision[top > 0].sum() / (np.array(values) > 0).sum()
    discount = 1 / np.log2(np.arange(len(values)) + 2)
    return (top * discount[:k]).sum() / (np.sort(values)[::-1][:k] * discount[:k]).sum()


METRICS = [ndcg, recall, hit_rate, reciprocal_rank, average_precision]


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("k", [1, 2, 3, 100])
def test_a_tie_is_the_mean_over_all_orders(metric, k):
    draw = np.random.default_rng(k)
    for size in range(1, 7):
        relevance, score = draw.integers(0, 3, size), draw.integers(0, 2, size)
        if not relevance.any():
            continue
        orders = [
            plain(metric, relevance[list(order)], k)
            for order in permutations(range(size))
            if all(score[a] >= score[b] for a, b in pairwise(order))
        ]
        assert metric(relevance, score, np.zeros(size), k).value[0] == pytest.approx(np.mean(orders), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_ndcg_agrees_with_scikit_learn(levels, k):
    relevance, score, group = lists(k, levels=levels, graded=True)
    found = ndcg(relevance, score, group, k)
    for name, value in zip(found.group, found.value, strict=True):
        own = group == name
        if own.sum() > 1 and relevance[own].any():
            assert value == pytest.approx(ndcg_score([relevance[own]], [score[own]], k=k), abs=1e-12)


def test_average_precision_agrees_with_scikit_learn():
    """Without ties: scikit-learn takes the precision after all rows of a tie, we the mean over their orders."""
    relevance, score, group = lists(1)
    found = average_precision(relevance, score, group)
    for name, value in zip(found.group, found.value, strict=True):
        own = group == name
        if relevance[own].any():
            assert value == pytest.approx(average_precision_score(relevance[own], score[own]), abs=1e-12)


def test_average_precision_of_a_tie():
    """Of two rows, one relevant, behind a relevant one: at rank 2 or 3, with two relevant rows to there."""
    found = average_precision([1, 1, 0], [2.0, 1.0, 1.0], [0, 0, 0]).value[0]
    assert found == pytest.approx((1 + (2 / 2 + 2 / 3) / 2) / 2)


@pytest.mark.parametrize(
    ("metric", "k", "theirs"),
    [
        *((ndcg, 5, "ndcg@5"), (recall, 5, "recall@5"), (hit_rate, 5, "hit_rate@5"), (reciprocal_rank, None, "mrr")),
        *((average_precision, None, "map"), (average_precision, 5, "map@5")),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_mean_agrees_with_ranx(metric, k, theirs):
    from ranx import Qrels, Run, evaluate

    relevance, score, group = lists(7, groups=200)
    kept = np.isin(group, group[relevance > 0])
    relevance, score, group = relevance[kept], score[kept], group[kept]
    judged, ranked = {}, {}
    for row, (label, value, name) in enumerate(zip(relevance, score, group, strict=True)):
        ranked.setdefault(str(name), {})[str(row)] = float(value)
        if label:
            judged.setdefault(str(name), {})[str(row)] = int(label)
    assert metric(relevance, score, group, k).mean == pytest.approx(evaluate(Qrels(judged), Run(ranked), theirs))


def test_exponential_gain():
    found = ndcg([1, 3], [2.0, 1.0], [0, 0], gain="exponential").value[0]
    assert found == pytest.approx((1 + 7 / np.log2(3)) / (7 + 1 / np.log2(3)))


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)
def test_a_group_with_nothing_relevant_does_not_count(metric):
    found = metric([0, 0, 1, 0], [1.0, 2.0, 2.0, 1.0], [7, 7, 9, 9], 1)
    assert found.counted == 1
    assert np.isnan(found.value[0])
    assert found.mean == 1


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)
def test_the_order_of_rows_does_not_matter(metric):
    relevance, score, group = lists(3, levels=1)
    mixed = np.random.default_rng(4).permutation(len(group))
    one = metric(relevance, score, group, 3).value
    np.testing.assert_allclose(metric(relevance[mixed], score[mixed], group[mixed], 3).value, one, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)
def test_a_group_counts_by_the_weight_of_its_rows(metric):
    relevance, score, group = lists(5, levels=1)
    weight = np.random.default_rng(6).integers(0, 3, 40)[group]
    found, plain = metric(relevance, score, group, 3, weight=weight), metric(relevance, score, group, 3)
    np.testing.assert_array_equal(found.value, plain.value)
    twice = [value for value, times in zip(plain.value, found.weight, strict=True) for _ in range(int(times))]
    assert found.mean == pytest.approx(np.nanmean(twice))
    with pytest.raises(InputError, match="one weight"):
        metric(relevance, score, group, 3, weight=[1.0])
    with pytest.raises(InputError, match="negative or not finite"):
        metric(relevance, score, group, 3, weight=-weight - 1.0)


def test_infinite_scores_are_ordered():
    assert reciprocal_rank([1, 0], [float("inf"), 1.0], [0, 0]).value[0] == 1
    assert reciprocal_rank([1, 0], [-float("inf"), 1.0], [0, 0]).value[0] == 1 / 2


def test_ties_of_a_million_rows_stay_exact():
    relevance, score, group = np.ones(1_000_000), np.zeros(1_000_000), np.repeat(np.arange(100_000), 10)
    relevance[::2] = 0
    np.testing.assert_allclose(hit_rate(relevance, score, group, 1).value, 0.5, atol=1e-7)
    np.testing.assert_allclose(recall(relevance, score, group, 2).value, 0.2, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "k", "message"),
    [
        (([], [], []), 1, "no rows"),
        (([1], [1.0], [1]), 0, "k: got 0"),
        (([-1], [1.0], [1]), 1, "negative or not finite"),
        (([1], [float("nan")], [1]), 1, "1 of 1 values are NaN"),
        (([1, 0], [1.0], [1]), 1, "shapes"),
        (([1, 0], [1.0, 2.0], [1]), 1, "one group"),
    ],
)
def test_bad_rows_are_refused(rows, k, message):
    for metric in METRICS:
        with pytest.raises(InputError, match=message):
            metric(*rows, k)
