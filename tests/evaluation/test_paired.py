"""The paired comparison: from arithmetic, against brute-force DeLong, and coverage by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import norm, t

from slimrank.config import InputError
from slimrank.evaluation.paired import compare, judge, placements
from slimrank.evaluation.student import below, student_point, two_sided
from slimrank.metrics import auc


def two_models(generator, size, noise=0.5, levels=None):
    label = (np.arange(size) % 4 == 0).astype(np.float32)
    scores = generator.normal(size=(3, size)) * [[1.0], [noise], [noise]] + label * [[1.0], [0.2], [0.2]]
    a, b = scores[0] + scores[1], scores[0] + scores[2]
    return (label, a, b) if levels is None else (label, np.round(a * levels), np.round(b * levels))


def brute_force_variance(label, a, b):
    """DeLong's variance of AUC_b - AUC_a from the full matrix of pairs."""
    kernels = []
    for score in (a, b):
        gap = score[label == 1][:, None] - score[label == 0][None, :]
        kernels.append((gap > 0) + (gap == 0) / 2)
    change = kernels[1] - kernels[0]
    m, n = change.shape
    return change.mean(axis=1).var(ddof=1) / m + change.mean(axis=0).var(ddof=1) / n


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("size", [40, 60, 400])
def test_agrees_with_brute_force(size, levels):
    label, a, b = two_models(np.random.default_rng(size), size, levels=levels)
    found = compare(label, a, b)
    assert found.a == pytest.approx(auc(label, a), abs=1e-14)
    assert found.b == pytest.approx(auc(label, b), abs=1e-14)
    assert found.standard_error**2 == pytest.approx(brute_force_variance(label, a, b), rel=1e-9)


def test_interval_and_p_from_arithmetic():
    label, a, b = two_models(np.random.default_rng(0), 500)
    found = compare(label, a, b)
    assert found.difference == found.b - found.a
    point = t.ppf(0.975, 124)  # of 125 positives
    assert found.high - found.low == pytest.approx(2 * point * found.standard_error, rel=1e-4)
    assert found.low + found.high == pytest.approx(2 * found.difference)
    assert found.p == pytest.approx(2 * t.sf(abs(found.difference) / found.standard_error, 124), abs=1e-3)


def test_a_worse_candidate_has_a_negative_difference():
    label, a, _ = two_models(np.random.default_rng(1), 2000)
    found = compare(label, a, np.random.default_rng(2).normal(size=2000))
    assert found.high < 0
    assert found.p < 1e-6
    mirrored = compare(label, np.random.default_rng(2).normal(size=2000), a)
    assert (mirrored.difference, mirrored.low) == (-found.difference, -found.high)


def test_the_same_ranking_has_no_difference_and_no_error():
    label, a, _ = two_models(np.random.default_rng(3), 200)
    found = compare(label, a, 2 * a + 1)
    assert (found.difference, found.standard_error, found.low, found.high, found.p) == (0, 0, 0, 0, 1)


def test_pairing_makes_the_interval_narrow():
    label, a, b = two_models(np.random.default_rng(4), 4000, noise=0.05)
    paired = compare(label, a, b).standard_error
    alone = compare(label, np.zeros(4000), a).standard_error
    assert paired < alone / 5


@pytest.mark.parametrize(("size", "noise"), [(48, 1.0), (120, 1.0), (400, 0.3)])
def test_95_of_100_intervals_hold_the_truth(size, noise):
    """Two models of equal quality, drawn 2000 times: 93% to 97% of the intervals hold 0."""
    generator = np.random.default_rng(size)
    found = [compare(*two_models(generator, size, noise)) for _ in range(2000)]
    held = sum(one.low <= 0 <= one.high for one in found) / len(found)
    assert 0.93 <= held <= 0.97
    spread = np.std([one.difference for one in found])
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.05)


def test_the_interval_holds_a_difference_that_is_known():
    """AUC of normals d apart is Phi(d / sqrt 2): the truth is Phi(1 / 2) - Phi(sqrt(1 / 2))."""
    generator, truth, held = np.random.default_rng(5), norm.cdf(0.5) - norm.cdf(math.sqrt(0.5)), 0
    label = np.arange(200) % 2
    for _ in range(1000):
        a = generator.normal(size=200) + label
        b = a + generator.normal(size=200)
        found = compare(label, a, b)
        held += found.low <= truth <= found.high
    assert 930 <= held <= 970


def test_the_mean_placement_of_either_class_is_the_auc():
    label, a, _ = two_models(np.random.default_rng(6), 300, levels=2)
    place = placements(label, a)
    assert place[label == 1].mean() == pytest.approx(auc(label, a), abs=1e-14)
    assert place[label == 0].mean() == pytest.approx(auc(label, a), abs=1e-14)


def test_infinite_scores_are_ordered():
    inf = float("inf")
    label, a, b = [1, 1, 0, 0] * 5, [inf, 0.0, -inf, 0.0] * 5, [inf, inf, -inf, inf] * 5
    assert compare(label, a, b).b == 3 / 4


@pytest.mark.parametrize(
    ("label", "a", "b", "message"),
    [
        ([], [], [], "no rows"),
        ([1, 0, 0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "needs 10 rows of each class, got 1 positive, 2 negative"),
        ([1, 1], [1.0, 2.0], [1.0, 2.0], "got 2 positive, 0 negative"),
        ([1, 0], [1.0, 2.0], [1.0, float("nan")], "1 of 2 values are NaN"),
        ([1, 0], [1.0, 2.0], [1.0], "shapes"),
    ],
)
def test_bad_rows_are_refused(label, a, b, message):
    with pytest.raises(InputError, match=message):
        compare(label, a, b)


def lists(generator, groups=100):
    """Two models of equal quality; the rows of a group share how hard it is."""
    group = np.repeat(np.arange(groups), 8)
    hard = np.repeat(generator.normal(size=groups), 8)
    label = (generator.random(len(group)) < 0.3).astype(int)
    label[::8], label[1::8] = 1, 0
    shared = generator.normal(size=(2, groups)).repeat(8, axis=1)  # an error of a whole group, another in each model
    logits = label - 1.5 + 0.5 * hard + generator.normal(size=(2, len(group))) / 2 + shared / 2
    return label, *logits, group


METRICS = ("gauc", "ndcg@3", "recall@2", "hit_rate@1", "mrr", "logloss", "normalized_entropy", "pcoc")


@pytest.mark.parametrize("metric", METRICS)
def test_95_of_100_intervals_of_the_bootstrap_hold_the_truth(metric):
    generator = np.random.default_rng(11)
    found = [compare(*lists(generator)[:3], metric, group=np.repeat(np.arange(100), 8), draws=500) for _ in range(300)]
    held = sum(one.low <= 0 <= one.high for one in found) / len(found)
    assert 0.92 <= held <= 0.98  # of 300 intervals the share itself is known to 1.3%
    spread = np.std([one.difference for one in found])
    assert np.mean([one.standard_error for one in found]) == pytest.approx(spread, rel=0.12)


def test_rows_of_a_group_hang_together_and_auc_knows_it():
    """Errors are of whole groups: taken one by one the rows promise too much, by group they do not."""
    generator = np.random.default_rng(12)
    drawn = [lists(generator) for _ in range(600)]
    alone = [compare(*rows[:3]) for rows in drawn]
    together = [compare(*rows[:3], group=rows[3]) for rows in drawn]
    held = [sum(one.low <= 0 <= one.high for one in found) / len(found) for found in (alone, together)]
    assert held[0] < 0.92
    assert 0.93 <= held[1] <= 0.97


def test_groups_of_one_row_give_delong():
    label, a, b = two_models(np.random.default_rng(13), 400)
    alone, grouped = compare(label, a, b), compare(label, a, b, group=np.arange(400))
    assert (grouped.a, grouped.b, grouped.groups, alone.groups) == (alone.a, alone.b, 400, 0)
    assert grouped.standard_error == pytest.approx(alone.standard_error, rel=0.01)


@pytest.mark.parametrize("metric", [*METRICS, "ece"])
def test_a_metric_of_sums_is_the_metric(metric):
    from slimrank import metrics
    from slimrank.evaluation import calibration
    from slimrank.metrics import top_k

    label, a, b, group = lists(np.random.default_rng(14))
    name, _, k = metric.partition("@")
    plain = {
        "gauc": lambda z: metrics.gauc(label, z, group),
        "ndcg": lambda z: top_k.ndcg(label, z, group, int(k)).mean,
        "recall": lambda z: top_k.recall(label, z, group, int(k)).mean,
        "hit_rate": lambda z: top_k.hit_rate(label, z, group, int(k)).mean,
        "mrr": lambda z: top_k.reciprocal_rank(label, z, group).mean,
        "logloss": lambda z: metrics.logloss(label, z),
        "normalized_entropy": lambda z: metrics.normalized_entropy(label, z),
        "pcoc": lambda z: metrics.pcoc(label, z),
        "ece": lambda z: calibration.ece(label, z),
    }[name]
    found = compare(label, a, b, metric, group=group, draws=50)
    assert (found.a, found.b) == pytest.approx((plain(a), plain(b)), abs=1e-12)


def test_field_ece_looks_within_a_field():
    from slimrank.evaluation.calibration import field_ece

    label, a, b, group = lists(np.random.default_rng(15))
    field = group % 7
    found = compare(label, a, b, "field_ece", field=field, draws=50)
    assert (found.a, found.b) == pytest.approx((field_ece(label, a, field), field_ece(label, b, field)))


@pytest.mark.parametrize("metric", ["auc", *METRICS])
def test_the_same_scores_have_no_difference(metric):
    label, a, _, group = lists(np.random.default_rng(16))
    found = compare(label, a, a, metric, group=group, draws=50)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    if metric != "pcoc":
        assert found.p_worse == 1
        assert judge(found, 0.001).outcome == "non-inferior"


def test_the_same_seed_draws_the_same():
    label, a, b, group = lists(np.random.default_rng(17))
    one, again, other = (compare(label, a, b, "gauc", group=group, draws=50, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other


@pytest.mark.parametrize("metric", ["auc", "logloss"])
def test_a_verdict_is_of_the_whole_interval_of_the_loss(metric):
    generator = np.random.default_rng(18)
    label = (np.arange(4000) % 4 == 0).astype(int)
    a = generator.normal(size=4000) + 2.0 * label - 1
    worse = a + generator.normal(size=4000)
    found = compare(label, a, worse, metric, draws=200)
    least, loss, most = found.loss
    assert 0 < least < loss < most
    assert found.p_worse < 1e-6
    assert judge(found, most + 0.001).outcome == "non-inferior"
    assert judge(found, least).outcome == "inferior"
    between = judge(found, (loss + most) / 2)
    assert between.outcome == "undecided"
    margin, error = (loss + most) / 2, found.standard_error
    expected = 4000 * (((most - loss) / error + norm.ppf(0.9)) * error / margin) ** 2
    assert between.rows_needed == math.ceil(expected)
    assert judge(found, most + 0.001).rows_needed is None


def test_so_many_rows_show_it_nine_times_of_ten():
    """Two models of equal quality, on as many rows as were said to be needed."""
    generator = np.random.default_rng(21)
    needed = judge(compare(*two_models(generator, 4000)), 0.01).rows_needed
    assert needed > 4000
    shown = sum(judge(compare(*two_models(generator, needed)), 0.01).outcome == "non-inferior" for _ in range(200))
    assert 168 <= shown <= 193


@pytest.mark.parametrize("metric", ["gauc", "logloss", "pcoc"])
def test_the_bootstrap_holds_a_difference_that_is_not_zero(metric):
    """The truth is that of a sample two hundred times as large."""

    def drawn(groups, seed):
        label, a, b, group = lists(np.random.default_rng(seed), groups)
        return label, a, b + 0.3 * np.random.default_rng(seed + 1).normal(size=len(b)) - 0.2, group

    label, a, b, group = drawn(20_000, 900)
    truth = compare(label, a, b, metric, group=group, draws=20).difference
    held = 0
    for seed in range(300):
        label, a, b, group = drawn(100, 2 * seed)
        found = compare(label, a, b, metric, group=group, draws=400)
        held += found.low <= truth <= found.high
    assert 0.91 <= held / 300 <= 0.985


def test_groups_that_are_alike_prove_little():
    """Where none of 50 queries tells two models apart, one of fifteen still may."""
    group = np.repeat(np.arange(50), 4)
    label = np.tile([1, 0, 0, 0], 50)
    a = np.tile([4.0, 3.0, 2.0, 1.0], 50)
    b = np.tile([4.0, 1.0, 2.0, 3.0], 50)
    found = compare(label, a, b, "hit_rate@1", group=group, draws=100)
    assert (found.difference, found.low, found.high) == (0, -3.7 / 50, 3.7 / 50)
    verdict = judge(found, 0.01)
    assert verdict.outcome == "undecided"
    assert verdict.rows_needed == pytest.approx(200 * 7.4, abs=1)


def test_many_clusters_are_dealt_into_few_with_the_same_spread():
    draw = np.random.default_rng(22)
    label = draw.integers(0, 2, 20_000)
    a = draw.normal(size=20_000) + label
    b = a + 0.3 * draw.normal(size=20_000)
    found = compare(label, a, b, "logloss", draws=1000)
    loss = [np.logaddexp(0, np.where(label, -z, z)) for z in (a, b)]
    assert found.difference == pytest.approx((loss[1] - loss[0]).mean())
    assert found.standard_error == pytest.approx((loss[1] - loss[0]).std() / np.sqrt(20_000), rel=0.1)
    assert found.groups == 0


@pytest.mark.parametrize(("metric", "why"), [("pcoc", "neither more nor less"), ("ece", "biased upwards")])
def test_what_cannot_be_judged_is_told(metric, why):
    label, a, b, group = lists(np.random.default_rng(23))
    found = compare(label, a, b, metric, group=group, draws=50)
    assert found.difference == found.b - found.a
    with pytest.raises(InputError, match=f"metric '{metric}' is told and not judged: .*{why}"):
        judge(found, 0.1)


@pytest.mark.parametrize("freedom", [9, 19, 124, 10_000])
def test_students_t_agrees_with_scipy(freedom):
    assert student_point(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=1e-3)
    for value in (-4.0, -2.0, -0.5, 0.0, 1.0, 3.0):
        assert below(value, freedom) == pytest.approx(t.cdf(value, freedom), abs=1.5e-3)
    assert below(-math.inf, freedom) == 0
    assert two_sided(0.0, freedom) == 1


@pytest.mark.parametrize(
    ("metric", "columns", "message"),
    [
        ("aux", {}, "unknown metric 'aux'. Did you mean 'auc'"),
        ("ndcg", {}, "needs its ranks, such as ndcg@10"),
        ("ndcg@0", {}, "ranks must be a number"),
        ("ndcg@x", {}, "ranks must be a number"),
        ("gauc", {}, "needs a group for every row"),
        ("field_ece", {}, "needs a field for every row"),
        ("logloss", {"group": [1, 2, 1, 2]}, "needs 20 rows, users or queries to draw from, got 2"),
        ("gauc", {"group": [1, 1]}, "one group"),
    ],
)
def test_what_cannot_be_compared_is_refused(metric, columns, message):
    with pytest.raises(InputError, match=message):
        compare([1, 0, 1, 0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], metric, **columns)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_a_margin_must_be_above_nothing(margin):
    found = compare(*two_models(np.random.default_rng(0), 100))
    with pytest.raises(InputError, match="margin: got"):
        judge(found, margin)


def test_few_groups_give_no_interval_of_auc():
    label, a, b = two_models(np.random.default_rng(0), 100)
    with pytest.raises(InputError, match="needs 20 groups, got 2"):
        compare(label, a, b, group=np.arange(100) % 2)


@pytest.mark.parametrize("metric", ["gauc", "logloss", "pcoc"])
def test_the_p_of_a_bootstrap_is_where_its_interval_ends(metric):
    for seed in range(30):
        label, a, b, group = lists(np.random.default_rng(100 + seed))
        found = compare(label, a, b + 0.1 * label, metric, group=group, draws=500)
        outside = found.low > 0 or found.high < 0
        assert (found.p < 0.05) == outside or found.p == pytest.approx(0.05, abs=0.01)
