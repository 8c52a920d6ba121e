"""Metrics: from arithmetic, on an edge grid, against scikit-learn and against brute force."""

import math
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from slimrank.config import InputError
from slimrank.metrics import auc, auc_by_group, gauc, logloss, normalized_entropy, pcoc, quality, sigmoid

INF, NAN = float("inf"), float("nan")


def brute_force_auc(label, score, weight):
    """All pairs, one by one."""
    won = total = 0.0
    for i, j in product(np.flatnonzero(label == 1), np.flatnonzero(label == 0)):
        pair = weight[i] * weight[j]
        won += pair * (1.0 if score[i] > score[j] else 0.5 if score[i] == score[j] else 0.0)
        total += pair
    return won / total


def rows(seed, size, levels=None):
    generator = np.random.default_rng(seed)
    label = (generator.random(size) < 0.3).astype(np.float32)
    label[:2] = 0, 1
    score = generator.normal(size=size) + label
    return label, np.round(score * levels) / levels if levels else score, generator.random(size)


def test_auc_is_the_share_of_pairs_won():
    assert auc([1, 0, 0], [2.0, 1.0, 3.0]) == 1 / 2
    assert auc([1, 1, 0, 0], [4.0, 3.0, 2.0, 1.0]) == 1
    assert auc([1, 1, 0, 0], [1.0, 2.0, 3.0, 4.0]) == 0


def test_auc_counts_a_tie_as_half():
    assert auc([1, 0], [5.0, 5.0]) == 1 / 2
    assert auc([1, 0, 0], [5.0, 5.0, 4.0]) == (1 / 2 + 1) / 2


def test_auc_weighs_pairs_by_the_product_of_weights():
    weight = [2.0, 3.0, 5.0]
    assert auc([1, 0, 0], [2.0, 1.0, 3.0], weight) == (2 * 3) / (2 * 3 + 2 * 5)


def test_a_weight_of_two_is_the_row_twice():
    label, score, _ = rows(0, 50, levels=4)
    double = np.arange(50) % 3
    twice = np.repeat(label, double), np.repeat(score, double)
    assert auc(label, score, double) == pytest.approx(auc(*twice), abs=1e-15)
    assert logloss(label, score, double) == pytest.approx(logloss(*twice), rel=1e-14)
    assert normalized_entropy(label, score, double) == pytest.approx(normalized_entropy(*twice), rel=1e-14)
    assert pcoc(label, score, double) == pytest.approx(pcoc(*twice), rel=1e-14)


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("size", [2, 3, 57, 300])
def test_auc_agrees_with_brute_force_and_scikit_learn(size, levels):
    label, score, weight = rows(size, size, levels)
    assert auc(label, score) == pytest.approx(brute_force_auc(label, score, np.ones(size)), abs=1e-14)
    assert auc(label, score, weight) == pytest.approx(brute_force_auc(label, score, weight), abs=1e-14)
    assert auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-14)
    assert auc(label, score, weight) == pytest.approx(roc_auc_score(label, score, sample_weight=weight), abs=1e-13)


def test_auc_is_the_same_for_any_rising_transformation():
    label, score, _ = rows(1, 1000, levels=8)
    assert auc(label, score) == auc(label, 3 * score - 7) == auc(label, sigmoid(score))


def test_auc_orders_infinite_and_extreme_scores():
    assert auc([1, 0, 1, 0], [INF, 1e308, -1e308, -INF]) == 3 / 4
    assert auc([1, 0], [INF, INF]) == 1 / 2
    assert auc([1, 0], [5e-324, 0.0]) == 1


def test_auc_takes_float32_booleans_and_integers():
    assert auc(np.array([True, False]), np.array([2, 1])) == 1
    assert auc(np.array([1, 0], np.float32), np.array([2, 1], np.float32)) == 1


@pytest.mark.parametrize("levels", [None, 2])
def test_auc_of_groups_agrees_with_one_group_at_a_time(levels):
    label, score, weight = rows(2, 600, levels)
    group = np.random.default_rng(3).integers(-40, 40, 600) * 1_000_000_007
    found = auc_by_group(label, score, group, weight)
    assert found.group.tolist() == sorted(set(group.tolist()))
    for name, value, mass in zip(found.group, found.value, found.weight, strict=True):
        mine = group == name
        assert mass == pytest.approx(weight[mine].sum())
        if 0 < label[mine].sum() < mine.sum():
            assert value == pytest.approx(brute_force_auc(label[mine], score[mine], weight[mine]), abs=1e-11)
        else:
            assert math.isnan(value)


def test_gauc_weighs_groups_by_impressions_and_skips_one_class():
    label, score = [1, 0, 1, 0, 0, 1, 1], [2.0, 1.0, 1.0, 2.0, 0.0, 9.0, 9.0]
    group = ["a", "a", "b", "b", "b", "c", "c"]
    assert gauc(label, score, group) == (2 * 1 + 3 * (1 / 2)) / 5
    assert auc_by_group(label, score, group).counted == 2
    assert gauc(label, score, np.zeros(7)) == auc(label, score)


def test_gauc_with_weights_from_arithmetic():
    weight = [1.0, 2.0, 1.0, 1.0, 3.0]
    value = gauc([1, 0, 1, 0, 0], [2.0, 1.0, 1.0, 2.0, 0.0], [0, 0, 1, 1, 1], weight)
    assert value == pytest.approx((3 * 1 + 5 * (3 / 4)) / 8)


def test_logloss_from_arithmetic():
    assert logloss([1, 0], [math.log(3), math.log(3)]) == pytest.approx((-math.log(3 / 4) - math.log(1 / 4)) / 2)
    assert logloss([1, 0], [0.0, 2.0], [3.0, 1.0]) == pytest.approx((3 * math.log(2) + math.log(1 + math.exp(2))) / 4)


def test_logloss_agrees_with_scikit_learn():
    label, score, weight = rows(4, 500)
    assert logloss(label, score) == pytest.approx(log_loss(label, sigmoid(score)), rel=1e-12)
    assert logloss(label, score, weight) == pytest.approx(log_loss(label, sigmoid(score), sample_weight=weight))


def test_logloss_keeps_the_tails():
    assert logloss([1, 0], [-1000.0, 1000.0]) == 1000
    assert logloss([1, 0], [800.0, -800.0]) == 0
    assert logloss([1, 0], [INF, -INF]) == 0
    assert logloss([1, 0], [-INF, -INF]) == INF
    assert logloss([1, 1], np.array([90.0, 90.0], np.float32)) == pytest.approx(math.exp(-90))


def test_normalized_entropy_of_the_mean_rate_is_one():
    label, _, weight = rows(5, 400)
    rate = label.mean(dtype=np.float64)
    assert normalized_entropy(label, np.full(400, math.log(rate / (1 - rate)))) == pytest.approx(1, rel=1e-12)
    rate = np.average(label, weights=weight)
    assert normalized_entropy(label, np.full(400, math.log(rate / (1 - rate))), weight) == pytest.approx(1, rel=1e-12)


def test_pcoc_from_arithmetic():
    assert pcoc([1, 0, 1], [math.log(3), 0.0, -math.log(3)]) == pytest.approx((3 / 4 + 1 / 2 + 1 / 4) / 2)
    assert pcoc([1, 0], [0.0, 0.0], [1.0, 3.0]) == 4 * 0.5 / 1
    assert pcoc([1, 0], [INF, -INF]) == 1


METRICS = [auc, logloss, normalized_entropy, pcoc, quality, lambda y, z: gauc(y, z, np.zeros(np.shape(y)))]


@pytest.mark.parametrize("metric", METRICS)
def test_bad_rows_are_named_and_counted(metric):
    with pytest.raises(InputError, match="no rows"):
        metric([], [])
    with pytest.raises(InputError, match=r"1 of 3 values are NaN \(row 1"):
        metric([1, 0, 1], [0.0, NAN, 1.0])
    with pytest.raises(InputError, match=r"label: 2 of 3 values are neither 0 nor 1 \(row 1: 2.0\)"):
        metric([1, 2.0, NAN], [0.0, 0.0, 1.0])
    with pytest.raises(InputError, match="shapes"):
        metric([1, 0], [0.0, 1.0, 2.0])
    with pytest.raises(InputError, match="shapes"):
        metric([[1, 0]], [[0.0, 1.0]])


def test_all_faults_at_once():
    with pytest.raises(InputError) as error:
        auc([3, 0], [NAN, 0.0], [-1.0, 1.0])
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["label", "score", "weight"]


@pytest.mark.parametrize("metric", [auc, normalized_entropy, quality])
@pytest.mark.parametrize("label", [[1], [0], [1, 1], [0, 0, 0]])
def test_one_class_is_refused(metric, label):
    with pytest.raises(InputError, match="one class only: all of"):
        metric(label, np.arange(len(label)))


def test_one_class_by_weight_is_refused():
    with pytest.raises(InputError, match="one class only: all of 1 rows are positive"):
        auc([1, 0], [1.0, 0.0], [1.0, 0.0])
    with pytest.raises(InputError, match="all are 0"):
        logloss([1, 0], [1.0, 0.0], [0.0, 0.0])


def test_metrics_of_one_class_that_are_not_defined_say_so():
    assert logloss([1], [0.0]) == pytest.approx(math.log(2))
    assert pcoc([1, 1], [0.0, 0.0]) == 1 / 2
    with pytest.raises(InputError, match="no row is positive"):
        pcoc([0, 0], [0.0, 0.0])
    with pytest.raises(InputError, match="none of the 2 groups"):
        gauc([1, 0], [0.0, 0.0], [1, 2])
    with pytest.raises(InputError, match="one group, got shapes"):
        gauc([1, 0], [0.0, 0.0], [1])


def test_quality_has_the_keys_of_the_result_file():
    label, score, _ = rows(6, 200)
    group = np.arange(200) // 10
    found = quality(label, score, group)
    assert list(found) == ["auc", "gauc", "logloss", "normalized_entropy", "pcoc"]
    assert {type(value) for value in found.values()} == {float}
    assert found["gauc"] == gauc(label, score, group)
    assert "gauc" not in quality(label, score)
    assert "gauc" not in quality(label, score, np.arange(200))


def test_quality_refuses_infinite_logits():
    with pytest.raises(InputError, match="2 infinite values"):
        quality([1, 0, 1], [INF, 0.0, -INF])


def test_a_model_of_known_quality():
    """Scores of two unit normals one apart: AUC = Phi(1 / sqrt 2)."""
    generator = np.random.default_rng(7)
    label = np.arange(1_000_000) % 2
    known = 0.5 * (1 + math.erf(1 / math.sqrt(2) / math.sqrt(2)))
    assert auc(label, generator.normal(size=len(label)) + label) == pytest.approx(known, abs=0.002)
