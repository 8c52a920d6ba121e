"""Of several ways of compressing a model the smallest that validation rows allow, for the rows of other libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Way = Sequence[str | Mapping[str, Any]]
Model = TypeVar("Model")
Records = list[dict[str, Any]]


def ways(*narrow: str) -> list[list[Any]]:
    """Tables of 4 or 8 bits and layers of integers; the tables `narrow`, of one number a row, always have 8 bits."""
    rest = [{"name": "quantize-tables", "bits": 8, "only": list(narrow)}] if narrow else []
    return [
        [{"name": "quantize-tables", "bits": bits, "skip": list(narrow)}, *rest, "quantize-dense"] for bits in (4, 8)
    ]


def smallest(
    model: Model,
    ordered: Sequence[Way],
    make: Callable[[Way], tuple[Model, Records]],
    metric: Callable[[Model], float],
    *,
    loss: float,
    tune: Callable[[Model], object] | None = None,
) -> tuple[Model, Records, dict[str, Any]]:
    """The first of `ordered`, the smallest first, that loses at most `loss` of the metric, or the one that loses least.

    Args:
        model: as its library made it.
        ordered: lists of steps.
        make: the model after such steps, and their records.
        metric: of validation rows, higher is better.
        loss: what may be lost.
        tune: trains a compressed model on, where it loses too much.

    Returns:
        The smaller model, the records of its steps, and what was tried.
    """
    before = metric(model)
    tried: Records = []
    best: tuple[float, Model, Records] | None = None
    for steps in ordered:
        small, records = make(steps)
        lost = {"post_training": before - metric(small)}
        if lost["post_training"] > loss and tune is not None:
            tune(small)
            lost["tuned"] = before - metric(small)
        tried.append({"steps": list(steps), "lost": lost})
        last = list(lost.values())[-1]
        if best is None or last < best[0]:
            best = last, small, records
        if last <= loss:
            break
    assert best is not None
    return best[1], best[2], {"metric_before": before, "tried": tried, "loss_allowed": loss}
