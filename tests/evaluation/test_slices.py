"""Slices: bands by frequency, values of a column, and p-values that bear being many."""

import numpy as np
import pytest

from slimrank.config import InputError
from slimrank.evaluation.slices import band_of_ids, compare_slices, cut_by_frequency, cut_by_rank, cut_by_values, holm


def test_bands_hold_their_share_of_the_training_rows():
    counts = np.array([9, 40, 20, 15, 10, 8, 4, 3, 0])
    band = band_of_ids(counts)
    assert band.tolist() == [3, 0, 0, 1, 1, 1, 2, 2, 2]
    assert counts[band == 0].sum() == 60  # of 100 known rows, and 40 alone would be less than half
    assert counts[1:][band[1:] <= 1].sum() == 93


def test_bands_do_not_depend_on_the_order_of_ids():
    counts = np.random.default_rng(8).zipf(1.5, 500)
    shuffled = np.concatenate([[0], 1 + np.random.default_rng(9).permutation(499)])
    for band in range(3):
        of = sorted(counts[1:][band_of_ids(counts)[1:] == band])
        assert of == sorted(counts[shuffled][1:][band_of_ids(counts[shuffled])[1:] == band])


def test_a_loss_that_hides_in_the_tail_is_found():
    generator = np.random.default_rng(10)
    counts = np.array([0, 1200, 900, *([2] * 100)])
    ids = np.concatenate([generator.integers(1, 3, 9000), generator.integers(3, 103, 1000)])
    label = generator.integers(0, 2, 10_000)
    a = generator.normal(size=10_000) + label
    b = np.where(ids > 2, generator.normal(size=10_000), a)
    head, torso, tail, new = compare_slices(label, a, b, {"item": cut_by_frequency(ids, counts)})["item"]
    assert [one.name for one in (head, torso, tail, new)] == ["head", "torso", "tail", "new"]
    assert (head.rows, tail.rows, head.ids, torso.ids, tail.ids) == (9000 - (ids == 2).sum(), 1000, 1, 1, 100)
    assert head.comparison.difference == 0
    assert tail.comparison.high < -0.1
    assert tail.lost
    assert not head.lost
    assert not torso.lost
    assert head.positives + torso.positives + tail.positives == label.sum()


def test_a_slice_too_small_for_an_interval_is_kept_without_one():
    label, scores = np.arange(41) % 2, np.arange(41.0)
    cut = cut_by_frequency([1] * 40 + [2], [0, 10, 2])
    head, torso, tail, _ = compare_slices(label, scores, scores, {"item": cut})["item"]
    assert head.comparison is not None
    assert (torso.rows, torso.positives, torso.comparison) == (1, 0, None)
    assert (tail.rows, tail.comparison) == (0, None)


def test_bad_slices_are_refused():
    with pytest.raises(InputError, match="0 to 2, got"):
        cut_by_frequency([0, 3], [1, 1, 1])
    with pytest.raises(InputError, match="1 rows are cut, and 2 compared"):
        compare_slices([1, 0], [1.0, 2.0], [1.0, 2.0], {"item": cut_by_values(["a"])})
    with pytest.raises(InputError, match="0 < head <= torso"):
        band_of_ids([1, 2], (0.9, 0.5))
    with pytest.raises(InputError, match="negative count"):
        band_of_ids([1, -2])


def test_values_of_a_column_are_cut_by_falling_frequency():
    cut = cut_by_values([f"v{number:02d}" for number in range(20) for _ in range(20 - number)])
    assert cut.names == (*(f"v{number:02d}" for number in range(11)), "9 others")
    assert np.bincount(cut.part).tolist() == [*range(20, 9, -1), sum(range(1, 10))]
    few = cut_by_values([3, 1, 3])
    assert (few.names, few.part.tolist()) == (("3", "1"), [0, 1, 0])


def test_many_numbers_are_cut_by_quarters():
    cut = cut_by_values(np.arange(100.0))
    assert cut.names == ("up to 24.75", "up to 49.5", "up to 74.25", "above 74.25")
    assert np.bincount(cut.part).tolist() == [25, 25, 25, 25]


def test_quarters_of_ties_and_missing_numbers():
    values = np.concatenate([np.zeros(80), np.arange(1.0, 21.0), [np.nan]])
    cut = cut_by_values(values)
    assert cut.names == ("up to 0", "above 0", "missing")
    assert np.bincount(cut.part).tolist() == [80, 20, 1]


def test_long_values_are_named_by_their_beginning():
    cut = cut_by_values(np.array(["x" * 50_000, "y"] * 1000, dtype=object))
    assert [len(name) for name in cut.names] == [60, 1]


def test_bands_by_rank_share_the_rows_at_hand():
    ids = np.repeat(np.arange(6), [5, 50, 0, 30, 10, 5])
    cut = cut_by_rank(ids, 8)
    assert cut.names == ("head", "torso", "tail", "new")
    assert np.bincount(cut.part).tolist() == [50, 40, 5, 5]
    assert sum(cut.ids) == 8


def test_slices_may_be_of_any_metric_that_is_judged():
    draw = np.random.default_rng(3)
    label, group = draw.integers(0, 3, 4000), np.repeat(np.arange(400), 10)
    a = label + draw.normal(size=4000)
    country = np.repeat(draw.choice(["fr", "de"], 400), 10)
    b = np.where(country == "fr", draw.normal(size=4000), a)
    found = compare_slices(label, a, b, {"country": cut_by_values(country)}, group, "ndcg@3")["country"]
    assert {one.name: one.lost for one in found} == {"fr": True, "de": False}


def test_holm_from_its_definition():
    assert holm([]) == []
    assert holm([0.02]) == [0.02]
    assert holm([0.5, 0.001, 0.02, 0.9]) == pytest.approx([1.0, 0.004, 0.06, 1.0])


def test_of_many_slices_without_a_loss_hardly_any_search_shows_one():
    """The chance that a search over 20 slices shows a loss anywhere is at most 5%, and not 64%."""
    shown = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        label = draw.integers(0, 2, 4000)
        a, b = draw.normal(size=(2, 4000)) + label
        cut = cut_by_values(draw.integers(0, 10, 4000).astype(str))
        other = cut_by_values(draw.integers(0, 10, 4000).astype(str))
        found = compare_slices(label, a, b, {"one": cut, "other": other})
        shown += any(one.lost for slices in found.values() for one in slices)
    assert shown <= 20


def test_a_band_without_rows_has_no_comparison_whether_rows_have_groups_or_not() -> None:
    generator = np.random.default_rng(0)
    label, logit = generator.integers(0, 2, 200), generator.normal(size=200)
    cut = cut_by_frequency(np.full(200, 2), np.array([0, 50, 40, 30, 1, 1, 1]))
    for group in (None, np.arange(200) // 4):
        parts = compare_slices(label, logit, logit + 0.1, {"item": cut}, group)["item"]
        assert any(part.rows == 0 and part.comparison is None for part in parts)
