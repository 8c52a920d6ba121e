"""The same comparison within parts of the rows: a loss of rare ids hides in a mean that frequent ones make.

Rows are cut by how often training met an id, or by the values of any column. Many parts are looked at, and of a hundred
without a loss five would show one at 5%: p-values are corrected over all parts of all cuts (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from slimrank.config import InputError
from slimrank.evaluation.paired import Comparison, compare

BANDS = ("head", "torso", "tail", "new")
SIGNIFICANT = 0.05
SLICED_FROM = 100  # ids of a field from which its head, torso and tail are worth telling apart
MOST_LETTERS = 60  # of a value that names a part
MOST_VALUES = 12  # of a column, each with a slice of its own; the rest is one


@dataclass(frozen=True)
class Slice:
    """A part of the rows, and the comparison there.

    `comparison` is None where the part has too few rows of a class, or groups, for an interval. `p_worse` is
    one-sided, of the hypothesis that the candidate is no worse there, corrected for all parts that were compared;
    `ids` is how many distinct ids the part stands for, None where it is not of ids.
    """

    name: str
    rows: int
    positives: int
    comparison: Comparison | None
    p_worse: float = 1.0
    ids: int | None = None

    @property
    def lost(self) -> bool:
        """Whether the candidate is worse here, beyond what chance shows somewhere among so many parts."""
        return self.p_worse < SIGNIFICANT


def as_records(found: Mapping[str, Sequence[Slice]]) -> dict[str, list[dict[str, Any]]]:
    """The slices as a result file holds them, each with whether it `lost`."""
    return {name: [{**asdict(one), "lost": one.lost} for one in slices] for name, slices in found.items()}


def band_of_ids(counts: ArrayLike, shares: tuple[float, float] = (0.5, 0.9)) -> NDArray[np.int8]:
    """The band of every local id of a field: 0 head, 1 torso, 2 tail, 3 new. [size]

    Ids by falling train count: the head is the fewest that hold at least `shares[0]` of the training rows, the torso
    those that follow up to `shares[1]`, the tail the rest. Local id 0, out of vocabulary, is new.

    >>> band_of_ids([3, 50, 30, 15, 5], (0.5, 0.9)).tolist()
    [3, 0, 1, 1, 2]

    Raises:
        InputError: shares are not 0 < head <= torso <= 1, or a count is negative.
    """
    known = np.array(counts, dtype=np.float64)
    head, torso = shares
    if not 0 < head <= torso <= 1:
        raise InputError(f"shares: got {shares}, allowed 0 < head <= torso <= 1")
    if known.ndim != 1 or not len(known) or (known < 0).any():
        raise InputError("counts: one train count >= 0 for every local id, got a negative count or no list")
    known[0] = 0
    order = np.argsort(-known, kind="stable")
    band = np.empty(len(known), dtype=np.int8)
    band[order] = _bands(known[order], shares)
    band[known == 0] = 2
    band[0] = 3
    return band


def _bands(mass: NDArray[Any], shares: tuple[float, float]) -> NDArray[np.int8]:
    """Head, torso and tail of ids in their order, by the rows that each holds."""
    before = np.cumsum(mass) - mass
    return np.select([before < shares[0] * mass.sum(), before < shares[1] * mass.sum()], [0, 1], 2).astype(np.int8)


def cut_by_rank(ids: ArrayLike, size: int, shares: tuple[float, float] = (0.5, 0.9)) -> Cut:
    """Head, torso, tail and new ids where train counts are not known, but that a lower id was met more often.

    Shares are then of the rows at hand: the head is the ids of lowest number that hold half of them.

    Args:
        ids: [N] local id of the field in every row, by falling train frequency; 0 is new.
        size: how many ids the field has.
        shares: of these rows.

    Raises:
        InputError: an id is outside of `size`.
    """
    local = _checked(ids, size)
    met = np.bincount(local, minlength=size)
    met[0] = 0
    band = _bands(met, shares)
    band[0] = 3
    return Cut(BANDS, band[local], tuple(np.bincount(band, minlength=len(BANDS)).tolist()))


def cut_by_frequency(ids: ArrayLike, counts: ArrayLike, shares: tuple[float, float] = (0.5, 0.9)) -> Cut:
    """Head, torso, tail and new ids of a field.

    Args:
        ids: [N] local id of the field in every row.
        counts: [size] train count of every local id.
        shares: of the training rows, held by the head and by head and torso together.

    Raises:
        InputError: as `band_of_ids`, or an id is outside of `counts`.
    """
    bands = band_of_ids(counts, shares)
    local = _checked(ids, len(bands))
    return Cut(BANDS, bands[local], tuple(np.bincount(bands, minlength=len(BANDS)).tolist()))


def _checked(ids: ArrayLike, size: int) -> NDArray[Any]:
    local = np.asarray(ids)
    if local.ndim != 1 or (len(local) and (local.min() < 0 or local.max() >= size)):
        raise InputError(f"ids: one for every row, of 0 to {size - 1}, got shape {local.shape}")
    return local


def cut_by_values(values: ArrayLike) -> Cut:
    """The values of a column: the most frequent ones each, and the others together; many numbers by quarters.

    >>> cut_by_values(["b", "a", "b"]).names
    ('b', 'a')
    >>> cut_by_values(range(100)).names
    ('up to 24.75', 'up to 49.5', 'up to 74.25', 'above 74.25')
    """
    column = np.asarray(values)
    if np.issubdtype(column.dtype, np.number) and len(np.unique(column)) > MOST_VALUES:
        return _quarters(column.astype(np.float64))
    names, code, rows = np.unique(column, return_inverse=True, return_counts=True)
    order = np.argsort(-rows, kind="stable")
    kept = order if len(names) <= MOST_VALUES else order[: MOST_VALUES - 1]
    place = np.full(len(names), len(kept))
    place[kept] = np.arange(len(kept))
    others = (f"{len(names) - len(kept)} others",) if len(kept) < len(names) else ()
    return Cut((*(str(name)[:MOST_LETTERS] for name in names[kept]), *others), place[code])


def _quarters(numbers: NDArray[np.float64]) -> Cut:
    """By quartiles, as far as they differ; what is no number is a part of its own."""
    known = ~np.isnan(numbers)
    edges = np.unique(np.quantile(numbers[known], [0.25, 0.5, 0.75]))
    names = [*(f"up to {edge:g}" for edge in edges), f"above {edges[-1]:g}"]
    part = np.where(known, np.searchsorted(edges, numbers, side="left"), len(names))
    return Cut((*names, *(() if known.all() else ("missing",))), part)


@dataclass(frozen=True)
class Cut:
    """Parts by name, and the part of every row: `part` [N], numbers of `names`."""

    names: tuple[str, ...]
    part: NDArray[Any]
    ids: tuple[int, ...] | None = None


def compare_slices(
    label: ArrayLike,
    logit_a: ArrayLike,
    logit_b: ArrayLike,
    cuts: Mapping[str, Cut],
    group: ArrayLike | None = None,
    metric: str = "auc",
) -> dict[str, list[Slice]]:
    """A metric of a and b within every part of every cut, p-values corrected over all that were compared.

    Args:
        label: [N].
        logit_a: [N], of the baseline.
        logit_b: [N], of the candidate.
        cuts: by the name of what is cut by.
        group: [N] what rows hang together by, as in `compare`.
        metric: as in `compare`; one that can be judged.

    Raises:
        InputError: a cut is not of these rows.
    """
    rows = np.asarray(label), np.asarray(logit_a), np.asarray(logit_b), None if group is None else np.asarray(group)
    return _corrected({name: _parts(rows, cut, name, metric) for name, cut in cuts.items()})


def _parts(rows: tuple[Any, ...], cut: Cut, name: str, metric: str) -> list[Slice]:
    label, a, b, group = rows
    if cut.part.shape != label.shape:
        raise InputError(f"slices of {name!r}: {cut.part.shape[0]} rows are cut, and {len(label)} compared")
    found = []
    for number, part in enumerate(cut.names):
        own = cut.part == number
        result: Comparison | None = None
        with suppress(InputError):  # too few rows or groups: told as that
            result = compare(label[own], a[own], b[own], metric, group=None if group is None else group[own])
        ids = None if cut.ids is None else cut.ids[number]
        p = result.p_worse if result else 1.0
        found.append(Slice(part, int(own.sum()), int((label[own] > 0).sum()), result, p, ids))
    return found


def _corrected(found: Mapping[str, Sequence[Slice]]) -> dict[str, list[Slice]]:
    """The same slices with p-values corrected over those that have one."""
    tested = [one.p_worse for slices in found.values() for one in slices if one.comparison]
    corrected = iter(holm(tested))
    return {
        name: [replace(one, p_worse=next(corrected)) if one.comparison else one for one in slices]
        for name, slices in found.items()
    }


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number: below a level, the chance of any false alarm is below that level.

    Holm 1979, "A simple sequentially rejective multiple test procedure".

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order, corrected, least = np.argsort(p), [0.0] * len(p), 0.0
    for done, place in enumerate(order):
        least = max(least, min(1.0, (len(p) - done) * p[place]))
        corrected[place] = least
    return corrected
