"""A ladder for the docs: one picture of quality over bytes with the front drawn, and one table of every point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slimrank.files import replace_file

WIDTH, HEIGHT = 760, 420
PALETTE = [
    "#0b6e4f",
    "#c1440e",
    "#1f4e9c",
    "#8a2d7c",
    "#b58900",
    "#00838f",
    "#6d4c41",
    "#2e7d32",
    "#ad1457",
    "#455a64",
    "#7c6f00",
    "#5e35b1",
    "#d81b60",
    "#1b1b1b",
]
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
SHOWN = {"auc": "AUC", "gauc": "GAUC", "logloss": "logloss"}


def write_page(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `folder`/NAME.md and NAME.svg from a ladder's result; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, page = folder / f"{result['name']}.svg", folder / f"{result['name']}.md"
    replace_file(picture, draw(result).encode())
    replace_file(page, text(result, picture.name).encode())
    return [page, picture]


def text(result: Mapping[str, Any], picture: str) -> str:
    """The page: what was compared, the picture, the best of each rung, every point, and what was refused."""
    made = [point for point in result["points"] if "refused" not in point]
    refused = [point for point in result["points"] if "refused" in point]
    teacher = result["teacher"]
    parts = [
        f"# {result['title']}",
        f"{result['what'][0].upper()}{result['what'][1:]}. {result['how']} Made by `python -m bench {result['name']}`; "
        f"[results](../../bench/results/{result['name']}.json).",
        f"The teacher takes {size(teacher['bytes'])} and has a test AUC of {teacher['auc']:.4f}. Points marked with a "
        "star are on the front: no other point has a higher AUC and no more bytes. Drop is the mean over seeds of the "
        "teacher's AUC less the point's. Bytes are those of the graph and all that it stores, of ours and of the peers "
        "alike; vocabularies, which all need, are not in them. Measured on: " + machine_words(result["machine"]) + ".",
        *_bound(result),
        f"![AUC over bytes]({picture})",
        "## The best at every ratio",
        "Of all points that are at least so much smaller, the one of highest test AUC: ours, and of what a user would "
        "do otherwise (general compressors, plain hashing, a lower dimension in fp32). Which one that is was seen on "
        "the test rows; settings were not.",
        _best(result),
        "## Every point",
        _table(made, set(result["front"])),
    ]
    if refused:
        parts += ["## Not possible", "\n".join(f"- {point['name']}: {point['refused']}" for point in refused)]
    return "\n\n".join(parts) + "\n"


def machine_words(machine: Mapping[str, Any]) -> str:
    """Processor and instruction set."""
    return f"{machine['processor']}, {', '.join(machine['instruction_set'])}"


def _bound(result: Mapping[str, Any]) -> list[str]:
    """What the best possible model reaches, where the data says."""
    facts = result["facts"]
    if "bayes_auc" not in facts:
        return []
    return [f"Rows are made: the best possible AUC is {facts['bayes_auc']:.4f}, of the true probabilities."]


def _best(result: Mapping[str, Any]) -> str:
    """One line a ratio."""
    points = {point["name"]: point for point in result["points"]}

    def words(name: str | None) -> str:
        if name is None:
            return "none | | "
        point = points[name]
        return f"{point['kind']} | {point['ratio']:.1f}x | {point['auc_drop']:+.4f}"

    lines = ["| at least | ours | smaller | drop | otherwise | smaller | drop |", "|---|---|---|---|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {rung['times']}x | {words(rung['own'])} | {words(rung['other'])} |" for rung in result["rungs"])]
    )


def _table(points: Sequence[Mapping[str, Any]], front: set[str]) -> str:
    """One line a point, from large to small."""
    columns = [key for key in SHOWN if all(key in point for point in points)]
    lines = [
        "| kind | aimed | smaller | bytes | " + " | ".join(SHOWN[key] for key in columns) + " | drop | seeds |",
        "|---|---|---|---|" + "---|" * (len(columns) + 2),
    ]
    for point in sorted(points, key=lambda point: (point["aimed"], -point["auc"])):
        star = " ★" if point["name"] in front else ""
        figures = " | ".join(f"{point[key]:.4f}" for key in columns)
        seeds = " ".join(f"{auc:.4f}" for auc in point["auc_by_seed"])
        lines.append(
            f"| {point['kind']}{star} | {point['aimed']}x | {point['ratio']:.1f}x | {point['bytes']:,.0f} "
            f"| {figures} | {point['auc_drop']:+.4f} | {seeds} |"
        )
    return "\n".join(lines)


def draw(result: Mapping[str, Any]) -> str:
    """SVG: AUC over times smaller, one mark a point, the front as a line, the teacher as a rule."""
    import altair

    points = [point for point in result["points"] if "refused" not in point]
    kinds = list(dict.fromkeys(point["kind"] for point in points))
    rows = [{key: point[key] for key in ("kind", "ratio", "auc")} for point in points]
    floor = _lowest(result)
    colours = altair.Scale(domain=kinds, range=[PALETTE[place % len(PALETTE)] for place in range(len(kinds))])
    shapes = altair.Scale(domain=kinds, range=[SHAPES[place % len(SHAPES)] for place in range(len(kinds))])
    x = altair.X(
        "ratio:Q",
        title="times smaller than the teacher (all bytes of the model)",
        scale=altair.Scale(type="log", base=2, nice=False, domain=_span([row["ratio"] for row in rows])),
        axis=altair.Axis(values=[2**power for power in range(10)], labelExpr="datum.value + 'x'"),
    )
    high = max([row["auc"] for row in rows] + [result["teacher"]["auc"]])
    y = altair.Y(
        "auc:Q",
        title="test AUC, mean over seeds",
        scale=altair.Scale(domain=[floor, high + 0.03 * (high - floor)], zero=False, nice=False, clamp=True),
        axis=altair.Axis(format=".3f"),
    )
    marks = (
        altair.Chart(altair.Data(values=rows))
        .mark_point(size=70, filled=True, opacity=0.85)
        .encode(
            x=x,
            y=y,
            color=altair.Color("kind:N", scale=colours, title=None, legend=altair.Legend(symbolOpacity=1)),
            shape=altair.Shape("kind:N", scale=shapes, title=None),
        )
    )
    best = [row for point, row in zip(points, rows, strict=True) if point["name"] in result["front"]]
    line = altair.Chart(altair.Data(values=best)).mark_line(color="#999999", strokeWidth=1.5).encode(x=x, y=y)
    rule = (
        altair.Chart(altair.Data(values=[{"auc": result["teacher"]["auc"]}]))
        .mark_rule(color="#777777", strokeDash=[4, 4])
        .encode(y=y)
    )
    return _svg(altair.layer(line, rule, marks), result["title"])


def _lowest(result: Mapping[str, Any]) -> float:
    """Where the picture ends below: points that lose ten times the worst drop of the front are drawn at its foot."""
    made = [point for point in result["points"] if "refused" not in point]
    best = [point["auc"] for point in made if point["name"] in result["front"]]
    top = max([*best, result["teacher"]["auc"]])
    lowest = min(point["auc"] for point in made)
    return max(lowest, top - 2.5 * max(top - min(best), 0.004)) - 0.002


def _span(ratios: Sequence[float]) -> list[float]:
    return [min(ratios) / 1.2, max(ratios) * 1.2]


def _svg(chart: Any, title: str) -> str:
    import io

    styled = (
        chart.properties(width=WIDTH, height=HEIGHT, title=title)
        .configure(background="white", font="system-ui, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(gridColor="#eeeeee", labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_legend(labelFontSize=12, symbolSize=90, labelLimit=240)
        .configure_title(anchor="start", fontSize=15)
    )
    target = io.StringIO()
    styled.save(target, format="svg")
    return target.getvalue()


def size(count: float) -> str:
    """Bytes in words.

    >>> size(49_941), size(1_785_590)
    ('49.9 KB', '1.79 MB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"
