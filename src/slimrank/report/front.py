"""The picture of a search: what every whole trial costs and loses, with its recipe where a pointer rests on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from slimrank.report.drawing import NARROW, PLACEHOLDERS, UNITS, WIDE, Picture, altair_module, round_numbers, svg
from slimrank.report.figures import figure
from slimrank.report.result import Result, Searched, Tried

LAYER = "trials"
WORST = 6.0  # losses are drawn up to so many times the spread of the front's
MOST = 400  # trials that are drawn: each brings its recipe twice, and a page has to stay small


def front(result: Result) -> Picture | None:
    """Points: the loss of quality over cost, on search rows; the front as a line, the goal as rules. None without one.

    Points beyond the front's own losses lie at the edge.
    """
    search = result.search
    if search is None:
        return None
    complete = [trial for trial in search.trials if trial.state == "complete"]
    if len(complete) < 2:
        return None
    whole = most_telling(complete, search)
    by_number = {trial.number: trial for trial in complete}
    best = [by_number[number] for number in search.front]
    words = f"{search.loss} against {search.cost} of {len(whole)} trials. The front: " + " ".join(
        f"trial {trial.number}: {figure(search.loss, trial.figures[search.loss])} "
        f"at {figure(search.cost, trial.figures[search.cost])}."
        for trial in best
    )
    stopped = sum(trial.state == "stopped" for trial in search.trials)
    left_out = f" {len(complete) - len(whole)} of them, far from the front, are not drawn." if whole != complete else ""
    caption = (
        f"{len(complete)} trials were trained whole, {stopped} were stopped early.{left_out} Figures of this picture "
        "are of the rows that led the search, so the best of them flatter; the table above is of test rows. The large "
        f"point is trial {search.chosen}, which the other validation rows chose. Dashed: the goal."
    )
    hints = [f"trial {trial.number}: {trial_words(trial, search)}" for trial in whole]
    wide, narrow = (
        _with_hints(svg(_draw(search, whole, best, width), f"front-{width}", words), hints) for width in (WIDE, NARROW)
    )
    return Picture(wide, narrow, words, caption)


def most_telling(trials: Sequence[Tried], search: Searched, most: int = MOST) -> list[Tried]:
    """At most so many trials, in their order: the front, what was chosen, and those that lose least."""
    if len(trials) <= most:
        return list(trials)
    first = {search.chosen, *search.front}

    def rank(trial: Tried) -> tuple[bool, float]:
        return trial.number not in first, trial.figures.get(search.loss, float("inf"))

    return sorted(sorted(trials, key=rank)[:most], key=lambda trial: trial.number)


def trial_words(trial: Tried, search: Searched) -> str:
    """What a trial came to and how it was made, in one line."""
    figures = ", ".join(f"{key} {figure(key, trial.figures[key])}" for key in search.keys if key in trial.figures)
    return f"{figures}; {recipe_words(trial.changes)}"


def recipe_words(changes: Mapping[str, Any]) -> str:
    """The changes of a trial as people say them.

    >>> recipe_words({"student.model.hidden": [32, 16], "steps": [{"name": "quantize-tables", "bits": 4}, "fold"]})
    'hidden 32-16; quantize-tables (bits 4), fold'
    """
    plain = [f"{_last(key)} {_value(value)}" for key, value in changes.items() if key != "steps"]
    steps = ", ".join(_step(step) for step in changes.get("steps", ()))
    return "; ".join(filter(None, [", ".join(plain), steps]))


def _last(key: str) -> str:
    """The part of a dotted key that tells it apart."""
    *path, last = key.split(".")
    return f"{path[0]} {last}" if last == "epochs" or (path and path[-1].isdigit()) else last


def _value(value: Any) -> str:
    if isinstance(value, list):
        numbers = all(isinstance(one, int | float) for one in value)
        return ("-" if numbers else " ").join(map(str, value))
    return str(value)


def _step(step: Any) -> str:
    if not isinstance(step, dict):
        return str(step)
    settings = ", ".join(f"{key} {_value(value)}" for key, value in step.items() if key != "name")
    return f"{step['name']} ({settings})" if settings else str(step["name"])


def _with_hints(picture: str, hints: Sequence[str]) -> str:
    """The picture with the words of every trial where a pointer rests on its point."""
    found: Iterator[str] = iter(hints)
    start = picture.index(f"{LAYER}_marks")
    stop = picture.index("</g>", start)
    points = re.sub(
        r"<path([^>]*?)/>",
        lambda path: f"<path{path[1]}><title>{escape(next(found))}</title></path>",
        picture[start:stop],
    )
    return picture[:start] + points + picture[stop:]


def _draw(search: Searched, whole: Sequence[Tried], best: Sequence[Tried], width: int) -> Any:
    altair = altair_module()
    cost, loss = search.cost, search.loss
    top = _highest(search, best, whole)
    rows: list[dict[str, Any]] = [
        {
            "cost": trial.figures[cost],
            "loss": min(trial.figures[loss], top),
            "colour": PLACEHOLDERS["slim" if trial.number == search.chosen else "muted"],
            "size": 150 if trial.number == search.chosen else 45,
        }
        for trial in whole
    ]
    costs = [row["cost"] for row in rows]
    low, high = min(costs) / 1.3, max(costs) * 1.3
    of_bytes = cost.endswith("bytes")
    axis = altair.Axis(
        grid=False,
        **({"labelExpr": UNITS, "values": round_numbers(low, high, 8 if width == WIDE else 4)} if of_bytes else {}),
    )
    scale = altair.Scale(type="log", domain=[low, high], nice=False)
    x = altair.X("cost:Q", title=f"{cost}, logarithmic", scale=scale, axis=axis)
    bottom = min([row["loss"] for row in rows] + [0.0])
    room = (top - bottom) * 0.06
    y = altair.Y(
        "loss:Q",
        title=f"{loss} (less is better)",
        scale=altair.Scale(domain=[bottom - room, top + room], nice=False, zero=False),
        axis=altair.Axis(format="+.4~f", tickCount=6, domain=False),
    )
    points = altair.Chart(altair.Data(values=rows), name=LAYER).mark_point(filled=True, opacity=0.9)
    drawn = points.encode(x=x, y=y, color=altair.Color("colour:N", scale=None), size=altair.Size("size:Q", scale=None))
    line = [{"cost": trial.figures[cost], "loss": min(trial.figures[loss], top)} for trial in best]
    steps = altair.Chart(altair.Data(values=line)).mark_line(
        interpolate="step-after", color=PLACEHOLDERS["slim"], strokeWidth=1.5, opacity=0.7
    )
    layers = [*_rules(search, x, y, (low, high), (bottom - room, top + room)), steps.encode(x=x, y=y), drawn]
    return altair.layer(*layers).properties(width=width - 80, height=300)


def _rules(search: Searched, x: Any, y: Any, costs: tuple[float, float], losses: tuple[float, float]) -> list[Any]:
    """Dashed lines where the goal bounds what is drawn."""
    altair = altair_module()
    look = {"color": PLACEHOLDERS["ink"], "strokeDash": [4, 4], "strokeWidth": 1}
    drawn = []
    for bound in search.bounds:
        if bound.key == search.loss and losses[0] <= bound.limit <= losses[1]:
            drawn.append(altair.Chart(altair.Data(values=[{"loss": bound.limit}])).mark_rule(**look).encode(y=y))
        if bound.key == search.cost and costs[0] <= bound.limit <= costs[1]:
            drawn.append(altair.Chart(altair.Data(values=[{"cost": bound.limit}])).mark_rule(**look).encode(x=x))
    return drawn


def _highest(search: Searched, best: Sequence[Tried], whole: Sequence[Tried]) -> float:
    """The loss at the upper edge: above the goal's and most of the front's, so that failures flatten nothing."""
    losses = [trial.figures[search.loss] for trial in best]
    limits = [bound.limit for bound in search.bounds if bound.key == search.loss]
    middle = sorted(losses)[len(losses) // 2]
    spread = max([abs(limit) for limit in limits] + [middle - min(losses), 0.001])
    most = max(trial.figures[search.loss] for trial in whole)
    return max(min(most, middle + WORST * spread), *limits, min(losses) + 0.001)
