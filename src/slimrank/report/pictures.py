"""The pictures of the page, drawn by altair and turned into SVG by vl-convert: no script, nothing from outside.

Colours are drawn as placeholders and become variables of the page, so that one picture is right on light and dark.
Each is drawn wide and narrow, because a picture that is scaled down to a phone has letters that nobody can read.
Left out: anything that needs a pointer; what a picture says stands in the page's tables as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from slimrank.config import InputError
from slimrank.files import replace_file
from slimrank.report.drawing import NARROW, PLACEHOLDERS, UNITS, WIDE, Picture, altair_module, round_numbers, svg
from slimrank.report.figures import metric_name, size
from slimrank.report.front import front
from slimrank.report.latencies import latencies
from slimrank.report.result import Measured, Result, Tensor, read

MOST_TENSORS = 8


def bytes_by_tensor(result: Result) -> Picture | None:
    """Bars: both models on one scale, then the tensors of each on its own. None without a list of tensors."""
    models = {"Teacher": result.teacher, "Slim": result.slim}
    if not all(model.tensors for model in models.values()):
        return None
    totals = {name: sum(tensor.bytes for tensor in model.tensors) for name, model in models.items()}
    largest = {name: max(model.tensors, key=lambda tensor: tensor.bytes) for name, model in models.items()}
    words = "Bytes by tensor. " + " ".join(
        f"{name}: {size(totals[name])}, of which {largest[name].name} takes {size(largest[name].bytes)}."
        for name in models
    )

    def draw(width: int) -> str:
        both = _bars([(name, totals[name], name.lower()) for name in models], "Both on one scale", width)
        each = [
            _bars([(*bar, name.lower()) for bar in largest_first(model.tensors)], f"{name}, on its own scale", width)
            for name, model in models.items()
        ]
        return svg(altair_module().vconcat(both, *each, spacing=22), f"tensors-{width}", words)

    return Picture(draw(WIDE), draw(NARROW), words)


def largest_first(tensors: Sequence[Tensor], most: int = MOST_TENSORS) -> list[tuple[str, int]]:
    """Names and bytes, largest first; what is beyond `most` bars is summed in the last.

    >>> largest_first([Tensor(name="a", bytes=1), Tensor(name="b", bytes=3), Tensor(name="c", bytes=2)], most=2)
    [('b', 3), ('2 others', 3)]
    """
    ordered = sorted(tensors, key=lambda tensor: -tensor.bytes)
    shown = ordered if len(ordered) <= most else ordered[: most - 1]
    rest = ordered[len(shown) :]
    bars = [(tensor.name, tensor.bytes) for tensor in shown]
    return [*bars, (f"{len(rest)} others", sum(tensor.bytes for tensor in rest))] if rest else bars


def _bars(bars: Sequence[tuple[str, int, str]], title: str, width: int) -> Any:
    """Horizontal bars of (name, bytes, colour), in the order given, each with its bytes in words."""
    altair = altair_module()
    label = 190 if width == WIDE else 110
    rows = [
        {"place": place, "bytes": count, "words": size(count), "colour": PLACEHOLDERS[colour]}
        for place, (_, count, colour) in enumerate(bars)
    ]
    # The axis writes an expression: JSON quotes the names, so that none of them can be one.
    names = f"{json.dumps([_short(name, label) for name, _, _ in bars])}[datum.value]"
    axis = altair.Axis(title=None, domain=False, ticks=False, labelExpr=names, labelLimit=label, minExtent=label)
    most = max(max(count for _, count, _ in bars), 1)
    base = altair.Chart(altair.Data(values=rows), title=altair.Title(title, anchor="start")).encode(
        y=altair.Y("place:O", axis=axis),
        x=altair.X("bytes:Q", axis=None, scale=altair.Scale(domain=[0, most], range=[0, width - label - 70])),
    )
    bar = base.mark_bar(height=13, cornerRadiusEnd=2).encode(color=altair.Color("colour:N", scale=None))
    text = base.mark_text(align="left", dx=6, color=PLACEHOLDERS["ink"]).encode(text="words:N")
    return altair.layer(bar, text).properties(width=width - label, height=22 * len(rows))


def _short(name: str, pixels: int) -> str:
    """A name that fits, its middle left out: both ends of a tensor's name tell it apart."""
    most = pixels // 8
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"


def quality_against_bytes(result: Result) -> Picture | None:
    """Points: the metric over bytes on disk (logarithmic), with the range over seeds. None where either is missing."""
    found = [_point(name, model, colour, result.metric) for name, model, colour in _models(result)]
    points = [point for point in found if point]
    metric = metric_name(result)
    if len(points) < 2:
        return None
    words = f"{metric} against bytes on disk. " + " ".join(
        f"{point['name']}: {point['quality']:.4f} at {point['words']}." for point in points
    )
    caption = "" if result.student is None else "The student is the small model before its compression. "
    if any(point["least"] < point["most"] for point in points):
        caption += "A line spans the least and the greatest of the seeds."
    wide, narrow = (svg(_scatter(points, width, metric), f"quality-{width}", words) for width in (WIDE, NARROW))
    return Picture(wide, narrow, words, caption.strip())


def calibration(result: Result) -> Picture | None:
    """Lines: observed over predicted click rate, by bins of equally many rows; on the diagonal they are the same."""
    curves = {name: result.calibration.get(name) for name in ("teacher", "slim")}
    known = {name: curve for name, curve in curves.items() if curve}
    if not known:
        return None
    rows = [
        {"name": name.capitalize(), "predicted": p, "observed": y, "colour": PLACEHOLDERS[name]}
        for name, curve in known.items()
        for p, y in zip(curve.predicted, curve.observed, strict=True)
    ]
    words = "Observed against predicted click rate. " + " ".join(
        f"{name.capitalize()}: at most {max(map(_gap, curve.predicted, curve.observed)):.3f} apart."
        for name, curve in known.items()
    )
    caption = "Every point stands for equally many test rows. Below the diagonal a model promises too much."
    wide, narrow = (svg(_diagonal(rows, width), f"calibration-{width}", words) for width in (WIDE, NARROW))
    return Picture(wide, narrow, words, caption)


def _gap(one: float, other: float) -> float:
    return abs(one - other)


def _diagonal(rows: list[dict[str, Any]], width: int) -> Any:
    """Both curves on axes of one scale, over the diagonal, the last point of each with its name."""
    altair = altair_module()
    most = max(max(row["predicted"], row["observed"]) for row in rows)
    scale = altair.Scale(domain=[0, most * 1.05], nice=False)
    axis = altair.Axis(format="~g", tickCount=5, domain=False)
    x = altair.X("predicted:Q", title="predicted click rate", scale=scale, axis=axis)
    y = altair.Y("observed:Q", title="observed click rate", scale=scale, axis=axis)
    colour = altair.Color("colour:N", scale=None)
    ends = [{"predicted": 0, "observed": 0}, {"predicted": most * 1.05, "observed": most * 1.05}]
    even = altair.Chart(altair.Data(values=ends)).mark_line(color=PLACEHOLDERS["line"], strokeWidth=2).encode(x=x, y=y)
    base = altair.Chart(altair.Data(values=rows)).encode(x=x, y=y)
    lines = base.mark_line(strokeWidth=2).encode(color=colour)
    dots = base.mark_point(size=40, filled=True, opacity=1).encode(color=colour)
    legend = [
        {"name": name, "colour": colour, "predicted": most * 0.04, "observed": most * (0.98 - 0.08 * place)}
        for place, (name, colour) in enumerate(dict.fromkeys((row["name"], row["colour"]) for row in rows))
    ]
    key = altair.Chart(altair.Data(values=legend)).encode(x=x, y=y)
    names = key.mark_text(align="left", dx=10, color=PLACEHOLDERS["ink"]).encode(text="name:N")
    marks = key.mark_point(size=60, filled=True, opacity=1).encode(color=colour)
    side = min(width - 70, 360)
    return altair.layer(even, lines, dots, marks, names).properties(width=side, height=side)


def _models(result: Result) -> list[tuple[str, Measured, str]]:
    """The models to draw: name, figures, colour."""
    student = [("Student", result.student, "student")] if result.student else []
    return [("Teacher", result.teacher, "teacher"), *student, ("Slim", result.slim, "slim")]


def _point(name: str, model: Measured, colour: str, metric: str) -> dict[str, Any] | None:
    """One model as a row of the picture's data."""
    quality, count = model.quality.get(metric), model.bytes.get("disk")
    if quality is None or not count:
        return None
    seeds = [one[metric] for one in model.by_seed if metric in one] or [quality]
    spread = {"least": min(seeds), "most": max(seeds)}
    return {
        "name": name,
        "quality": quality,
        "bytes": count,
        "words": size(count),
        "colour": PLACEHOLDERS[colour],
    } | spread


def _scatter(points: list[dict[str, Any]], width: int, metric: str) -> Any:
    """The points with their names and their ranges."""
    altair = altair_module()
    least = min(point["least"] for point in points)
    most = max(point["most"] for point in points)
    room = max((most - least) * 0.15, 0.0005)
    counts = [one["bytes"] for one in points]
    low, high = min(counts) / 1.8, max(counts) * 1.8
    x = altair.X(
        "bytes:Q",
        title="bytes on disk, logarithmic",
        scale=altair.Scale(type="log", domain=[low, high], nice=False),
        axis=altair.Axis(labelExpr=UNITS, values=round_numbers(low, high, 8 if width == WIDE else 4), grid=False),
    )
    y_scale = altair.Scale(domain=[least - room, min(most + room, 1.0)], zero=False, nice=False)
    y = altair.Y("quality:Q", title=metric, scale=y_scale, axis=altair.Axis(format=".4f", tickCount=5, domain=False))
    colour = altair.Color("colour:N", scale=None)
    base = altair.Chart(altair.Data(values=points)).encode(x=x, y=y)
    span = base.mark_rule(strokeWidth=2).encode(
        y=altair.Y("least:Q", scale=y_scale, title=metric), y2="most:Q", color=colour
    )
    dots = base.mark_point(size=110, filled=True, opacity=1, stroke=PLACEHOLDERS["paper"]).encode(color=colour)
    middle = (min(counts) * max(counts)) ** 0.5
    layers = [span, dots, *(_names(base, middle, side, width == WIDE) for side in ("left", "right"))]
    return altair.layer(*layers).properties(width=width - 70, height=260)


def _names(base: Any, middle: float, side: str, with_bytes: bool) -> Any:
    """The names of the points of one half, written towards the middle so that they stay inside."""
    half = "datum.bytes < " if side == "left" else "datum.bytes >= "
    text = base.transform_filter(f"{half}{middle}").mark_text(
        align=side, dx=12 if side == "left" else -12, dy=-10, color=PLACEHOLDERS["ink"]
    )
    label = "datum.name + ', ' + datum.words" if with_bytes else "datum.name"
    return text.encode(text="label:N").transform_calculate(label=label)


def write_pictures(result: Path, folder: Path, kind: str) -> list[Path]:
    """The pictures of a result file as `svg` or `png` files in `folder`, on white; returns their paths.

    Raises:
        InputError: the file is missing or holds no result, the kind is unknown, or a package is not installed.
    """
    if kind not in ("svg", "png"):
        raise InputError(f"pictures are of kind svg or png, got {kind!r}")
    found = read(result, Result)
    drawn = {
        "bytes": bytes_by_tensor(found),
        "quality": quality_against_bytes(found),
        "calibration": calibration(found),
        "front": front(found),
        "latency": latencies(found),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, picture in drawn.items():
        if picture is not None:
            paths.append(folder / f"{name}.{kind}")
            replace_file(paths[-1], _as_file(picture.wide, kind))
    return paths


def _as_file(svg: str, kind: str) -> bytes:
    """A picture of the page by itself: with colours of its own, on white."""
    import vl_convert

    for name, colour in _light().items():
        svg = svg.replace(f"var(--{name})", colour)
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    start = svg.index(">", svg.index("<svg")) + 1
    svg = svg[:start] + paper + svg[start:]
    return svg.encode() if kind == "svg" else bytes(vl_convert.svg_to_png(svg, scale=2))


def _light() -> dict[str, str]:
    """The page's colours on light, by the name of their variable."""
    style = resources.files("slimrank.report").joinpath("page.html").read_text(encoding="utf-8")
    return dict(re.findall(r"--(\w+): (#\w+);", style.partition(":root {")[2].partition("}")[0]))
