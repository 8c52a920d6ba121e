"""Behaviour: from arithmetic, against SciPy, and of graphs that depend on their neighbours."""

import numpy as np
import onnx
import pytest
from onnx import helper
from scipy.stats import spearmanr

from slimrank import runtime
from slimrank.config import InputError
from slimrank.evaluation.behaviour import BATCHES, invariance, overlap, rank_correlation


@pytest.mark.parametrize("levels", [None, 3])
def test_rank_correlation_agrees_with_scipy(levels):
    a, b = np.random.default_rng(0).normal(size=(2, 500)) + np.linspace(-1, 1, 500)
    if levels:
        a, b = np.round(a * levels), np.round(b * levels)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_a_constant_score_has_no_rank_correlation():
    assert np.isnan(rank_correlation([1.0, 1.0], [1.0, 2.0]))


def test_overlap_agrees_with_sets():
    draw = np.random.default_rng(1)
    group = np.repeat(np.arange(50), draw.integers(2, 20, 50))
    a, b = draw.normal(size=(2, len(group)))
    found = overlap(a, b, group, 5)
    for name, value in zip(found.group, found.value, strict=True):
        own = np.flatnonzero(group == name)
        if len(own) <= 5:
            assert np.isnan(value)
            continue
        first, second = (set(own[np.argsort(-score[own])[:5]]) for score in (a, b))
        assert value == pytest.approx(len(first & second) / 5)


def test_a_tie_at_the_edge_does_not_count():
    score, group = [3.0, 2.0, 2.0, 1.0], [0] * 4
    assert overlap(score, score, group, 1).mean == 1
    assert np.isnan(overlap(score, score, group, 2).value[0])


def test_integers_without_a_sign_are_ordered():
    assert overlap(np.array([0, 5, 9], np.uint8), [0.0, 5.0, 9.0], [0] * 3, 1).mean == 1


def test_bad_overlap_is_refused():
    with pytest.raises(InputError, match="k: got 0"):
        overlap([1.0], [1.0], [0], 0)
    with pytest.raises(InputError, match="one score of each"):
        overlap([1.0], [1.0, 2.0], [0], 1)


def test_a_row_by_itself_scores_as_among_others(make_linear, linear_rows):
    model = runtime.load(make_linear().path)
    found = invariance(model, model.encoding.encode(linear_rows))
    assert max(found.by_neighbours, found.unoptimised) < 1e-6
    assert set(found.by_batch) == set(BATCHES)


def centred(graph: onnx.ModelProto) -> None:
    """Takes the batch's mean from every logit: a score that depends on its neighbours."""
    graph.graph.node[-1].output[0] = "plain"
    graph.graph.node.append(helper.make_node("ReduceMean", ["plain"], ["mean"], keepdims=0))
    graph.graph.node.append(helper.make_node("Sub", ["plain", "mean"], ["logit"]))


def test_a_score_that_depends_on_its_neighbours_is_found(make_linear, linear_rows):
    model = runtime.load(make_linear(centred, name="centred").path)
    found = invariance(model, model.encoding.encode(linear_rows))
    assert found.by_batch[1] > 0.1
    assert found.by_batch[256] == 0
    with pytest.raises(InputError, match="no rows"):
        invariance(model, model.encoding.encode(linear_rows[:0]))
