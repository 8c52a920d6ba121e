"""What no other point beats in every respect: ranks of points, and their front.

All values are to be made small. Left out: what the values are.
"""

from __future__ import annotations

from collections.abc import Sequence

Values = tuple[float, ...]


def dominates(one: Values, other: Values) -> bool:
    """Whether `one` is nowhere larger than `other`, and somewhere smaller."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def ranks(points: Sequence[Values]) -> list[int]:
    """0 for the points that none dominates, 1 for those that are then left undominated, and so on.

    >>> ranks([(1.0, 3.0), (2.0, 2.0), (3.0, 2.5), (4.0, 4.0)])
    [0, 0, 1, 2]
    """
    found, left, rank = [0] * len(points), set(range(len(points))), 0
    while left:
        best = {one for one in left if not any(dominates(points[other], points[one]) for other in left)}
        for one in best:
            found[one] = rank
        left -= best
        rank += 1
    return found


def front(points: Sequence[Values]) -> list[int]:
    """The places of the points that none dominates, by their first value; of equal points the first.

    >>> front([(2.0, 2.0), (1.0, 3.0), (2.0, 2.0), (3.0, 2.5)])
    [1, 0]
    """
    first = {point: place for place, point in reversed(list(enumerate(points)))}
    best = [place for place, rank in enumerate(ranks(points)) if rank == 0 and first[points[place]] == place]
    return sorted(best, key=lambda place: points[place])
