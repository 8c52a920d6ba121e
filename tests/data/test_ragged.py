"""Lists of places: slices, distinct values and checks, against lists of Python."""

import numpy as np
import pytest

from slimrank.config import InputError
from slimrank.data.ragged import Ragged

LISTS = [[3, 1, 3], [], [-1, 2, -1], [5], []]


def lists(ragged: Ragged) -> list[list[int]]:
    return [ragged[query].tolist() for query in range(len(ragged))]


def test_lists_come_back() -> None:
    ragged = Ragged.of(LISTS)
    assert lists(ragged) == LISTS
    assert ragged.lengths.tolist() == [3, 0, 3, 1, 0]
    assert ragged.query.tolist() == [0, 0, 0, 2, 2, 2, 3]
    assert lists(ragged.part(1, 4)) == LISTS[1:4]
    assert lists(ragged.where(ragged.values != 3)) == [[1], [], [-1, 2, -1], [5], []]
    assert lists(Ragged.one_each([4, 2])) == [[4], [2]]
    assert lists(Ragged.of([])) == []
    padded = np.array([[5, 0, 7], [0, 0, 0]], np.int32)
    assert lists(Ragged.kept(padded, padded != 0)) == [[5, 7], []]


def test_distinct_values_are_those_of_sets() -> None:
    assert lists(Ragged.of(LISTS).distinct()) == [sorted(set(each)) for each in LISTS]
    assert lists(Ragged.of([[], []]).distinct()) == [[], []]
    draw = np.random.default_rng(0)
    many = [draw.integers(0, 9, size).tolist() for size in draw.integers(0, 12, 50)]
    ragged = Ragged.of(many).distinct()
    assert lists(ragged) == [sorted(set(each)) for each in many]
    query, value = np.divmod(np.arange(50 * 11), 11)
    held = [int(v) in many[q] for q, v in zip(query, value, strict=True)]
    assert ragged.holds(query, value).tolist() == held
    assert not Ragged.of([[], []]).holds(np.array([0, 1]), np.array([0, 3])).any()


@pytest.mark.parametrize(
    ("values", "starts", "message"),
    [
        ([1, 2], [0, 1], "must rise from 0 to the 2 values"),
        ([1, 2], [0, 2, 1, 2], "must rise"),
        ([1, 2], [1, 2], "must rise"),
        ([1, 2], [], "must rise"),
        ([1.0, 2.0], [0, 2], "must be integers"),
        ([[1, 2]], [0, 2], "must be integers in one row"),
    ],
)
def test_what_is_no_list_is_refused(values: list[int], starts: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Ragged(np.array(values), np.array(starts))


def test_places_are_held_to_the_catalogue() -> None:
    ragged = Ragged.of([[0, 2], [7, -1]])
    with pytest.raises(InputError, match=r"met: 2 of 4 places are no item of the catalogue \(query 1: 7\); .* 0 to 2"):
        ragged.check("met", 2, 3)
    with pytest.raises(InputError, match="met: got lists for 2 queries, there are 3"):
        ragged.check("met", 3, 8)
    ragged.check("met", 2, 8, least=-1)
