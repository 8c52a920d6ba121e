"""The record of a comparison of two models on the terminal: the figures, the verdict in a sentence, what hides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slimrank.report.figures import NONE, plural, probability, size
from slimrank.report.result import Record, Verdict, read
from slimrank.report.terminal import columns, print_plain

HEAD = ("", "A", "B", "B − A", "95% interval", "p")
ROUNDING = 1e-3  # of a logit: what other batches and threads may change
COLOURS = {"non-inferior": "green", "inferior": "red", "undecided": "yellow"}


class Compared(Record):
    """`evaluation.paired.Comparison`."""

    metric: str
    better: str
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    p: float | None


class Judged(Verdict):
    """The verdict, and of which metric."""

    metric: str


class Part(Record):
    """`evaluation.slices.Slice`."""

    name: str
    rows: int
    positives: int
    comparison: Compared | None
    p_worse: float
    lost: bool


class Evidence(Record):
    """What `evaluation.evidence.evidence` returns."""

    a: str
    b: str
    rows: int
    positives: int
    groups: int
    metrics: tuple[Compared, ...]
    left_out: dict[str, str]
    verdict: Judged
    slices: dict[str, tuple[Part, ...]]
    behaviour: dict[str, Any]
    bytes: dict[str, dict[str, int]] = Field(default_factory=dict)


def print_comparison(source: Path | dict[str, Any], console: Console | None = None) -> None:
    """Prints the figures, the verdict, the slices that lost, and how alike the models behave.

    Raises:
        InputError: the file is missing or holds no comparison.
    """
    found, console = read(source, Evidence), console or Console()
    if console.is_terminal:
        console.print(_framed(found))
        console.print(Text(sentence(found), style=f"bold {COLOURS.get(found.verdict.outcome, '')}"))
        for line in notes(found):
            console.print(Text(line, style="red" if line.startswith(("Lost", "Fault")) else "dim"))
        return
    names = f"A is {found.a}", f"B is {found.b}"
    print_plain(console, (*names, *columns([HEAD, *_cells(found)]), sentence(found), *notes(found)))


def sentence(found: Evidence) -> str:
    """The verdict, and what it rests on."""
    verdict = found.verdict
    how = f" of {plural(found.groups, 'group')}" if found.groups else ", each by itself"
    asked = f"{verdict.metric} at a margin of {verdict.margin:g} on {plural(found.rows, 'row')}{how}"
    if verdict.outcome == "non-inferior":
        return f"B is non-inferior to A: {asked}."
    if verdict.outcome == "inferior":
        return f"B is inferior to A: {asked}; the whole interval lies beyond it."
    needed = f"were both equally good, about {verdict.rows_needed:,} rows of this kind would show it"
    return f"These rows do not decide whether B is non-inferior to A: {asked}; {needed}."


def notes(found: Evidence) -> Iterator[str]:
    """What was left out, slices that lost although, or because, the whole did, and how alike the two behave."""
    for name, why in found.left_out.items():
        yield f"Left out, {name}: {why}."
    parts = [(field, part) for field, each in found.slices.items() for part in each]
    compared = [(field, part, part.comparison) for field, part in parts if part.comparison]
    for field, part, each in compared:
        if part.lost:
            change = f"{_number(each.difference, plus=True)} ({_interval(each)})"
            yield f"Lost within {field}, {part.name}: {each.metric} {change}, p {probability(part.p_worse)}, corrected."
    if compared and not any(part.lost for _, part, _ in compared):
        yield f"No loss shown in any of {plural(len(compared), 'slice')}: {', '.join(found.slices)}."
    if len(parts) > len(compared):
        yield f"Too small to compare: {plural(len(parts) - len(compared), 'slice')}."
    if found.behaviour.get("rank_correlation") is not None:
        yield f"Rank correlation of the scores: {found.behaviour['rank_correlation']:.4f}."
    for name, value in found.behaviour.items():
        if name.startswith("overlap@"):
            top = name.partition("@")[2]
            yield f"Of A's first {top}, {value['mean']:.1%} are among B's (mean of {plural(value['groups'], 'group')})."
        elif name.startswith("invariance of "):
            yield from _invariance(name.removeprefix("invariance of ").upper(), value)
    yield from (_takes(name.upper(), each) for name, each in found.bytes.items())


def _takes(who: str, found: dict[str, int]) -> str:
    """What a model takes on disk and, where that was measured, on the wire."""
    words = f"{who} takes {size(found['disk'])} on disk and its vocabulary {size(found['vocabulary'])}"
    if "wire" in found:
        brotli = f", {size(found['wire_brotli'])} with brotli" if "wire_brotli" in found else ""
        words += f"; all of it on the wire {size(found['wire'])} with zstd{brotli}"
    return f"{words}."


def _invariance(who: str, found: dict[str, Any]) -> Iterator[str]:
    """How a model's answers depend on how it is asked; red where neighbours move them."""
    depends = found["by_neighbours"] > ROUNDING
    words = "depend on the rows beside them" if depends else "do not depend on the rows beside them"
    yield f"{'Fault: ' if depends else ''}{who}'s scores {words}: logits differ by {found['by_neighbours']:.2g}."
    yield f"{who} by a graph that is not optimised: logits differ by {found['unoptimised']:.2g}."


def _cells(found: Evidence) -> list[tuple[str, ...]]:
    return [
        (
            one.metric,
            _number(one.a),
            _number(one.b),
            _number(one.difference, plus=True),
            _interval(one),
            NONE if one.p is None else probability(one.p),
        )
        for one in found.metrics
    ]


def _interval(one: Compared) -> str:
    if one.low is None or one.high is None:
        return NONE
    return f"{_number(one.low, plus=True)} to {_number(one.high, plus=True)}"


def _number(value: float, *, plus: bool = False) -> str:
    """Five decimals: of a million rows the fourth is known."""
    if value != value:
        return NONE
    words = f"{abs(value):.5f}"
    zero = float(words) == 0
    sign = "" if zero else "−" if value < 0 else "+" if plus else ""
    return sign + words


def _framed(found: Evidence) -> Table:
    table = Table(title=Text(f"A {found.a}\nB {found.b}"), header_style="bold", box=HORIZONTALS)
    for place, name in enumerate(HEAD):
        table.add_column(name, justify="right" if place else "left")
    for one, cells in zip(found.metrics, _cells(found), strict=True):
        style = _tone(one)
        table.add_row(cells[0], cells[1], cells[2], Text(cells[3], style=style), *cells[4:])
    return table


def _tone(one: Compared) -> str:
    """Green where the whole interval is better, red where it is worse."""
    if one.low is None or one.high is None or one.better == "neither" or one.low <= 0 <= one.high:
        return ""
    return "green" if (one.low > 0) == (one.better == "higher") else "red"
