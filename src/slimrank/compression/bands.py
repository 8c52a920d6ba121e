"""Bands of a field's ids: consecutive ranges, which are bands of frequency where the ids are sorted by it.

Steps that give frequent ids more (bits, dimensions) cut a field here, so that they mean the same by a band. Left out:
what a band becomes.
"""

from __future__ import annotations

# Ends of bands, as shares of a field's rows: finer where few rows take most of the lookups.
CUTS = (*(2.0**-n for n in range(12, 3, -1)), *(n / 16 for n in range(2, 16, 2)))
FEWEST = 16  # rows of a band: the places of a smaller one would take more than it saves


def cuts(first: int, last: int) -> list[int]:
    """Where the bands of a field begin, and where the last one ends: [first, ..., last].

    >>> cuts(0, 100)
    [0, 25, 50, 75, 100]
    """
    places = [first]
    for share in CUTS:
        place = first + round(share * (last - first))
        if place - places[-1] >= FEWEST and last - place >= FEWEST:
            places.append(place)
    return [*places, last] if last > first else []
