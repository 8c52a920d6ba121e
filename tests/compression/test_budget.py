"""The knapsack: arithmetic, edges, and brute force over all choices."""

from itertools import product

import numpy as np
import pytest

from slimrank.compression.budget import Option, allocate
from slimrank.config import InputError

Parts = list[list[Option]]


def total(parts: Parts, chosen: list[int]) -> Option:
    picked = [part[place] for part, place in zip(parts, chosen, strict=True)]
    return Option(sum(one.bytes for one in picked), sum(one.error for one in picked))


def least_error(parts: Parts, budget: int) -> float:
    """By trying every choice."""
    found = [total(parts, list(chosen)) for chosen in product(*(range(len(part)) for part in parts))]
    return min(one.error for one in found if one.bytes <= budget)


def random_parts(draw: np.random.Generator, count: int, most: int) -> Parts:
    sizes = [draw.integers(0, most, draw.integers(1, 6)) for _ in range(count)]
    return [[Option(int(size), float(draw.random() * 10 / (1 + size))) for size in part] for part in sizes]


def test_the_bytes_go_where_they_spare_the_most_error() -> None:
    parts = [[Option(1, 8.0), Option(2, 4.0), Option(4, 0.0)], [Option(1, 3.0), Option(4, 0.0)]]
    assert [allocate(parts, budget) for budget in (2, 3, 4, 5, 8)] == [[0, 0], [1, 0], [1, 0], [2, 0], [2, 1]]


def test_no_greedy_choice() -> None:
    """The best error for its bytes comes first in neither part, and yet fills the budget."""
    parts = [[Option(0, 10.0), Option(3, 4.0), Option(5, 0.0)], [Option(0, 10.0), Option(3, 4.0), Option(5, 3.9)]]
    assert allocate(parts, 6) == [1, 1]


@pytest.mark.parametrize("seed", range(60))
def test_as_good_as_trying_everything(seed: int) -> None:
    draw = np.random.default_rng(seed)
    parts = random_parts(draw, int(draw.integers(1, 6)), most=int(draw.choice([3, 40, 10**9])))
    lowest = sum(min(option.bytes for option in part) for part in parts)
    highest = sum(max(option.bytes for option in part) for part in parts)
    for budget in {lowest, (lowest + highest) // 2, int(draw.integers(lowest, highest + 1)), highest}:
        found = total(parts, allocate(parts, budget))
        assert found.bytes <= budget
        assert found.error == pytest.approx(least_error(parts, budget), rel=1e-12)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("states", [16, 32, 64])
def test_few_states_lose_at_most_one_range_of_bytes_for_each_part(seed: int, states: int) -> None:
    parts = random_parts(np.random.default_rng(seed), 6, most=1000)
    lowest = sum(min(option.bytes for option in part) for part in parts)
    highest = sum(max(option.bytes for option in part) for part in parts)
    budget = (lowest + highest) // 2
    found = total(parts, allocate(parts, budget, states=states))
    assert found.bytes <= budget
    smaller = budget - len(parts) * ((highest - lowest) // states + 1)
    assert smaller >= lowest
    assert found.error <= least_error(parts, smaller) + 1e-12


def test_hundreds_of_parts_stay_within_the_budget_and_near_the_bound() -> None:
    """The bound is that of fractions of options: with a price per byte, no choice is cheaper."""
    draw = np.random.default_rng(0)
    rows = (1e6 / np.arange(1, 301) ** 1.3).astype(int) + 1
    parts = [[Option(int(n * b), float(n**0.5 * w * 4.0**-b)) for b in (0, 1, 2, 4, 8)]
             for n, w in zip(rows, draw.random(300), strict=True)]  # fmt: skip
    budget = int(rows.sum() * 2)
    found = total(parts, allocate(parts, budget))
    assert found.bytes <= budget
    bounds = [
        sum(min(one.error + price * one.bytes for one in part) for part in parts) - price * budget
        for price in np.geomspace(1e-9, 1, 400)
    ]
    assert max(bounds) <= found.error <= 1.02 * max(bounds)


def test_fixed_bytes_count() -> None:
    parts = [[Option(1, 1.0), Option(2, 0.0)]]
    assert allocate(parts, 12, fixed=10) == [1]
    assert allocate(parts, 11, fixed=10) == [0]


def test_of_equal_errors_the_smaller_wins_and_of_equal_options_the_first() -> None:
    assert allocate([[Option(5, 1.0), Option(3, 1.0), Option(3, 1.0)]], 9) == [1]


def test_nothing_to_choose() -> None:
    assert allocate([], 0) == []
    assert allocate([[Option(7, 2.0)]], 7) == [0]


def test_a_budget_below_the_least_possible_names_it() -> None:
    parts = [[Option(700, 1.0), Option(900, 0.0)], [Option(500, 0.0)]]
    with pytest.raises(InputError, match=r"a budget of 2,199 bytes is below the least possible: 2,200"):
        allocate(parts, 2199, fixed=1000)


def test_infinite_errors_are_avoided_and_nan_is_refused() -> None:
    assert allocate([[Option(1, float("inf")), Option(2, 1.0)]], 2) == [1]
    with pytest.raises(InputError, match="NaN"):
        allocate([[Option(1, float("nan"))]], 2)
