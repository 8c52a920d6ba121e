"""A goal: bounds on what a compressed model may lose and cost, as text that people write.

auc_drop <= 0.001, bytes <= 64 KB, p50_ms@256 <= 2

Bytes are those of graph and weights; `wire_bytes` those of all files, each compressed with zstd, the vocabulary with
them, `wire_graph_bytes` and `wire_vocabulary_bytes` parts of it, and `wire_brotli_bytes` all of it with brotli.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from slimrank.config import Config, InputError, nearest

UNITS = {"": 1.0, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
OF_WIRE = ("wire_bytes", "wire_graph_bytes", "wire_vocabulary_bytes", "wire_brotli_bytes")  # `runtime.wire.sent`
FIGURES = ("auc_drop", "gauc_drop", "logloss_rise", "bytes", *OF_WIRE, "resident_bytes", "p50_ms", "p99_ms")
ROWS = ("1", "32", "256")  # of a request, as latency is measured
NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
QUALITY = ("auc_drop", "gauc_drop", "logloss_rise")  # judged by a paired test; the others are costs
UNIT_OF_QUALITY = 1e-3
BOUND = re.compile(rf"\s*(\w+)(?:@(\d+))?\s*<=\s*({NUMBER})\s*([A-Za-z]*)\s*")


class Bound(Config):
    """`figure` is at most `limit` (bytes, milliseconds, or a difference of a metric). Latency is at `rows` rows."""

    figure: str
    limit: float
    rows: int | None = None

    @property
    def key(self) -> str:
        """The figure's name in a trial's record, such as `bytes` or `p50_ms@256`."""
        return self.figure if self.rows is None else f"{self.figure}@{self.rows}"

    @property
    def of_quality(self) -> bool:
        """Whether it bounds a loss of quality, and not a cost."""
        return self.figure in QUALITY

    def excess(self, value: float) -> float:
        """By how much `value` is beyond the limit, as a share of it; at most 0 if it is within.

        A limit of 0 counts as one thousandth, the unit in which differences of metrics are judged.
        """
        return (value - self.limit) / (abs(self.limit) or UNIT_OF_QUALITY)

    def __str__(self) -> str:
        """As `read_goal` reads it, to the last digit."""
        number = repr(self.limit).removesuffix(".0")
        for unit in ("GB", "MB", "KB") if self.figure.endswith("bytes") else ():
            whole, rest = divmod(self.limit, UNITS[unit])
            if whole and not rest:
                number = f"{whole:.0f} {unit}"
                break
        return f"{self.key} <= {number}"


class Goal(Config):
    """All of these bounds."""

    bounds: tuple[Bound, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.bounds))

    @property
    def quality(self) -> tuple[Bound, ...]:
        """The bounds on losses of quality."""
        return tuple(bound for bound in self.bounds if bound.of_quality)

    @property
    def costs(self) -> Goal:
        """The other bounds."""
        return Goal(bounds=tuple(bound for bound in self.bounds if not bound.of_quality))

    def missed(self, figures: Mapping[str, float]) -> tuple[Bound, ...]:
        """The bounds that do not hold.

        Raises:
            InputError: a bounded figure was not measured, such as GAUC on rows without groups.
        """
        missing = [bound.key for bound in self.bounds if bound.key not in figures]
        if missing:
            raise InputError(f"the goal bounds {', '.join(missing)}, measured are {', '.join(sorted(figures))}")
        return tuple(bound for bound in self.bounds if bound.excess(figures[bound.key]) > 0)

    def met(self, figures: Mapping[str, float]) -> bool:
        """Whether every bound holds."""
        return self.excess(figures) == 0.0

    def excess(self, figures: Mapping[str, float]) -> float:
        """By how much the bounds are missed, each as a share of its limit, added up; 0 if all hold.

        Raises:
            InputError: a bounded figure was not measured.
        """
        return sum(bound.excess(figures[bound.key]) for bound in self.missed(figures))


def read_goal(text: str) -> Goal:
    """The goal that `text` states.

    Raises:
        InputError: a bound cannot be read, its figure or unit is unknown, latency lacks its number of rows, a figure is
            bounded twice, or nothing can be within a bound.
    """
    bounds = tuple(_bound(part) for part in text.split(","))
    keys = [bound.key for bound in bounds]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise InputError(f"goal {text.strip()!r}: {', '.join(twice)} is bounded twice; keep the bound that counts")
    return Goal(bounds=bounds)


def _bound(text: str) -> Bound:
    """One bound."""
    found = BOUND.fullmatch(text)
    if found is None:
        raise InputError(f"goal {text.strip()!r} is not of the form 'FIGURE <= NUMBER UNIT', such as 'bytes <= 64 KB'")
    figure, rows, number, unit = found.groups()
    if figure not in FIGURES:
        raise InputError(f"goal {text.strip()!r}: unknown figure {figure!r}. {nearest(figure, FIGURES)}")
    if unit and (unit not in UNITS or not figure.endswith("bytes")):
        allowed = nearest(unit, [name for name in UNITS if name]) if figure.endswith("bytes") else "It takes none."
        raise InputError(f"goal {text.strip()!r}: unknown unit {unit!r}. {allowed}")
    if figure.endswith("_ms") != (rows is not None):
        raise InputError(f"goal {text.strip()!r}: latency, and nothing else, is of a number of rows: p50_ms@256")
    if rows is not None and rows not in ROWS:
        raise InputError(f"goal {text.strip()!r}: latency is measured at {', '.join(ROWS)} rows, got {rows}")
    limit = float(number) * UNITS[unit]
    if figure.endswith(("bytes", "_ms")) and limit <= 0:
        raise InputError(f"goal {text.strip()!r}: no model takes so little; {figure} must be above 0")
    if figure.endswith("auc_drop") and not -1 < limit < 1:
        raise InputError(
            f"goal {text.strip()!r}: differences of AUC lie between -1 and 1, so this bounds nothing or all"
        )
    return Bound(figure=figure, limit=limit, rows=None if rows is None else int(rows))


AGoal = Annotated[Goal, BeforeValidator(lambda value: read_goal(value) if isinstance(value, str) else value)]
"""A goal in a config: as text, or as `Goal`."""


def known_figure(key: Any) -> str:
    """`key`, if it is one that a goal may bound, such as `bytes` or `p50_ms@256`.

    Raises:
        InputError: it is none.
    """
    keys = [f"{name}@{rows}" if name.endswith("_ms") else name for name in FIGURES for rows in ROWS]
    if key not in keys:
        raise InputError(f"unknown figure {key!r}. {nearest(str(key), set(keys))}")
    return str(key)
