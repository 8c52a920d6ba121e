"""What is asked of two models: the same words whether they answer with scores of rows or with items."""

from __future__ import annotations

from dataclasses import dataclass

from slimrank.evaluation.paired import MARGIN


@dataclass(frozen=True)
class Question:
    """What is compared and how: metrics (the verdict is of the first), the margin, and columns by name."""

    metrics: tuple[str, ...] = ()
    margin: float = MARGIN
    label: str | None = None
    group: str | None = None
    slices: tuple[str, ...] = ()
