"""The picture of latency: how the calls of teacher, slim model and bare lookups are spread, by rows of a request."""

from __future__ import annotations

from typing import Any

from slimrank.report.drawing import NARROW, PLACEHOLDERS, WIDE, Picture, altair_module, round_numbers, svg
from slimrank.report.figures import milliseconds, plural
from slimrank.report.result import Latency, Result

NEEDED = ("5", "25", "75", "95")
LOOKUPS = "Lookups alone"


def latencies(result: Result) -> Picture | None:
    """Bars from the 5th to the 95th percent of calls, the middle half thick. None where they were not kept."""
    models = {
        "Teacher": (result.teacher.latency_ms, "teacher"),
        "Slim": (result.slim.latency_ms, "slim"),
        LOOKUPS: (result.floor.latency_ms if result.floor else {}, "muted"),
    }
    rows = [
        _row(name, colour, int(size), found[size])
        for name, (found, colour) in models.items()
        for size in sorted(found, key=int)
        if all(share in found[size].quantiles for share in NEEDED)
    ]
    if not rows:
        return None
    words = "Milliseconds a call. " + " ".join(
        f"{row['name']} at {plural(row['rows'], 'row')}: half of the calls take {milliseconds(row['middle'])} or less."
        for row in rows
    )
    caption = (
        "A thin line spans 90% of the calls, a thick one half of them, the dot is the median, the tick the 99th "
        "percentile."
    )
    if any(row["name"] == LOOKUPS for row in rows):
        caption += (
            f" {LOOKUPS} are the rows of the slim model read from memory, and nothing else: no model that reads the "
            "same rows is faster."
        )
    wide, narrow = (svg(_draw(rows, width), f"latency-{width}", words) for width in (WIDE, NARROW))
    return Picture(wide, narrow, words, caption)


def _row(name: str, colour: str, size: int, found: Latency) -> dict[str, Any]:
    spread = dict(zip(("least", "low", "high", "most"), (found.quantiles[share] for share in NEEDED), strict=True))
    return {"name": name, "rows": size, "middle": found.p50, "p99": found.p99, "colour": PLACEHOLDERS[colour], **spread}


def _draw(rows: list[dict[str, Any]], width: int) -> Any:
    """One panel for each number of rows, all on one logarithmic axis."""
    altair = altair_module()
    least, most = min(row["least"] for row in rows) / 1.3, max(row["p99"] for row in rows) * 1.3
    scale = altair.Scale(type="log", domain=[least, most], nice=False)
    ticks = round_numbers(least, most, 5 if width == NARROW else 8, range(-6, 7))
    sizes = sorted({row["rows"] for row in rows})
    order = list(dict.fromkeys(row["name"] for row in rows))
    label = 110 if width == WIDE else 90

    def panel(size: int) -> Any:
        last = size == sizes[-1]
        axis = altair.Axis(
            format="~g", grid=True, labels=last, title="milliseconds, logarithmic" if last else None, values=ticks
        )
        own = [row for row in rows if row["rows"] == size]
        base = altair.Chart(altair.Data(values=own), title=altair.Title(plural(size, "row"), anchor="start")).encode(
            y=altair.Y(
                "name:N",
                sort=order,
                axis=altair.Axis(title=None, domain=False, ticks=False, minExtent=label, labelLimit=label),
            ),
            color=altair.Color("colour:N", scale=None),
        )
        x = altair.X("least:Q", scale=scale, axis=axis)
        thin = base.mark_rule(strokeWidth=2).encode(x=x, x2="most:Q")
        thick = base.mark_rule(strokeWidth=8, strokeCap="round").encode(x=altair.X("low:Q", scale=scale), x2="high:Q")
        dot = base.mark_point(size=36, filled=True, fill=PLACEHOLDERS["paper"], opacity=1).encode(
            x=altair.X("middle:Q", scale=scale), color=altair.value(PLACEHOLDERS["paper"])
        )
        tick = base.mark_tick(thickness=2, size=12).encode(x=altair.X("p99:Q", scale=scale))
        return altair.layer(thin, thick, dot, tick).properties(width=width - label - 20, height=22 * len(own))

    return altair.vconcat(*(panel(size) for size in sizes), spacing=12).resolve_scale(x="shared")
