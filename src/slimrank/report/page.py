"""The result as one HTML page that needs nothing but itself: no script, no font, no request.

The page forbids itself the network by its own content policy. Every string of the data passes through `escape`.
Left out: what a reader would have to click to see.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from itertools import groupby
from pathlib import Path
from string import Template

from slimrank.files import replace_file
from slimrank.report.figures import (
    BYTES,
    NONE,
    QUALITY,
    Figure,
    answers,
    figures,
    interval,
    limits_line,
    machine_line,
    metric_name,
    milliseconds,
    plural,
    probability,
    signed,
    size,
    verdict,
)
from slimrank.report.front import front
from slimrank.report.goal import goal_section, sensitivity_section, trials_section
from slimrank.report.html import folded, header, listed, picture_section, scroll, section, table_row
from slimrank.report.latencies import latencies
from slimrank.report.pictures import bytes_by_tensor, calibration, quality_against_bytes
from slimrank.report.result import Paired, Result, Slice, Step, read

FOOT = "1 KB is 1000 bytes. Every figure of a model was measured on its artifact, run by the runtime that serves it."


def write_report(result: Path, page: Path) -> None:
    """Reads a result file and writes the page, whole or not at all.

    Raises:
        InputError: a file is missing or does not hold what its kind should, or the page cannot be written.
    """
    replace_file(page, render(read(result, Result)).encode())


def render(result: Result) -> str:
    """The page's text."""
    sections = [
        goal_section(result.search) if result.search else "",
        _table_section(result),
        picture_section("Where the bytes are", bytes_by_tensor(result)),
        picture_section("Quality against bytes", quality_against_bytes(result)),
        picture_section("What was tried", front(result)),
        trials_section(result.search) if result.search else "",
        picture_section("How long a request takes", latencies(result)),
        _proof_section(result),
        picture_section("Do probabilities mean what they say?", calibration(result)),
        _slices_section(result.slices, metric_name(result)),
        _steps_section(result.slim.steps),
        sensitivity_section(result.search.sensitivity) if result.search else "",
        _origin_section(result),
        _again_section(result),
    ]
    template = Template(resources.files("slimrank.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(result.name or "Teacher and slim model"),
        kind=escape("slimrank report" + (f" · {result.data}" if result.data else "")),
        answer="".join(f'<p class="answer">{escape(one)}</p>' for one in answers(result)),
        tiles=_tiles(figures(result), metric_name(result)),
        sections="\n".join(filter(None, sections)),
        foot=FOOT,
    )


def _tiles(lines: Sequence[Figure], metric: str) -> str:
    """The three figures that most readers came for, large."""
    by_name = {line.name: line for line in lines}
    p50 = [line for line in lines if line.name.startswith("p50")]
    chosen = [("Size on disk", by_name.get(BYTES["disk"])), (metric, by_name.get(metric))]
    if p50:
        chosen.insert(1, (f"Time, {p50[-1].name}", p50[-1]))
    tiles = [
        f"<div><dt>{escape(title)}</dt><dd>{escape(line.change)}</dd></div>"
        for title, line in chosen
        if line and line.change != NONE
    ]
    return f'<dl class="tiles">{"".join(tiles)}</dl>' if tiles else ""


def _table_section(result: Result) -> str:
    """Quality, bytes and latency; one body of rows for each group."""
    floor = result.floor.latency_ms if result.floor else {}
    notes = (
        [f"Quality is the mean of {plural(len(result.seeds), 'seed')}, with the range."] if _seeds(result) > 1 else []
    )
    samples = {one.samples for model in (result.teacher, result.slim) for one in model.latency_ms.values()}
    if samples - {0}:
        notes.append(f"Latency is of {plural(min(samples - {0}), 'call')} each, models taking turns.")
    if floor:
        times = (f"{milliseconds(floor[rows].p50)} at {plural(int(rows), 'row')}" for rows in sorted(floor, key=int))
        notes.append(f"The same lookups and nothing else take (p50) {', '.join(times)}.")
    head = header("", "Teacher", "Slim", "Change")
    bodies = "".join(_group(name, list(lines)) for name, lines in groupby(figures(result), lambda line: line.group))
    note = f'<p class="note">{escape(" ".join(notes))}</p>' if notes else ""
    return section("Teacher and slim model, measured", f"{scroll(head + bodies, 'measured figures')}{note}")


def _seeds(result: Result) -> int:
    """How many seeds stand behind the figures of quality."""
    return max(len(result.slim.by_seed), len(result.teacher.by_seed))


def _group(name: str, lines: list[Figure]) -> str:
    """One group of the table: its name, then its lines."""
    rows = [f'<tr><th scope="rowgroup" colspan="4">{escape(name)}</th></tr>']
    for line in lines:
        tone = {True: ' class="number good"', False: ' class="number bad"', None: ' class="number"'}[line.better]
        cells = f"<td>{_value(line.teacher)}</td><td>{_value(line.slim)}</td><td{tone}>{escape(line.change)}</td>"
        rows.append(f'<tr><th scope="row">{escape(line.name)}</th>{cells}</tr>')
    return f"<tbody>{''.join(rows)}</tbody>"


def _value(words: str) -> str:
    """A value, with its range over seeds on a smaller line of its own."""
    value, found, spread = words.partition(" (")
    small = f"<small>{escape(spread.removesuffix(')'))}</small>" if found else ""
    return f'<span class="number">{escape(value)}</span>{small}'


def _proof_section(result: Result) -> str:
    """The paired comparison, a line for each seed."""
    if not result.comparison:
        return ""
    seeds = any(paired.seed is not None for paired in result.comparison)
    metric = metric_name(result)
    titles = [f"{metric}, teacher", f"{metric}, slim", "Difference", "95% interval", "p", "Verdict"]
    rows = "".join(
        table_row(
            f"Seed {paired.seed}" if seeds else "Test rows",
            f"{paired.a:.4f}",
            f"{paired.b:.4f}",
            *_paired(paired),
            verdict(paired),
        )
        for paired in result.comparison
    )
    how = "DeLong, by group where given" if result.metric == "auc" else "a bootstrap over queries"
    notes = [f"Both models scored the same rows; the interval is of the paired difference ({how})."]
    needed = [one.verdict.rows_needed for one in result.comparison if one.verdict and one.verdict.rows_needed]
    if needed:
        notes.append(f"Undecided: of equally good models about {max(needed):,} rows like these would show it.")
    note = f'<p class="note">{" ".join(notes)}</p>'
    table = scroll(f"{header('', *titles)}<tbody>{rows}</tbody>", "paired comparison")
    return section("Is the difference real?", table + note)


def _paired(paired: Paired | None) -> tuple[str, str, str]:
    """Difference, interval and p, or dashes."""
    if paired is None:
        return NONE, NONE, NONE
    return signed(paired.difference), interval(paired), probability(paired.p)


def _slices_section(slices: dict[str, tuple[Slice, ...]], metric: str) -> str:
    """The comparison within bands of train frequency, a table for each field."""
    if not slices:
        return ""
    clicks = "Clicks" if metric == QUALITY["auc"] else "Relevant"
    head = header("", "Ids", "Test rows", clicks, f"{metric} difference", "95% interval", "p of a loss")
    tables = []
    for field, parts in slices.items():
        rows = "".join(_slice(part) for part in parts)
        tables.append(scroll(f"{head}<tbody>{rows}</tbody>", f"slices by {field}", f"By train frequency of {field}"))
    notes = ["p of a loss is corrected for all slices that were looked at (Holm)."]
    if any(part.comparison is None for parts in slices.values() for part in parts):
        notes.append("A dash: too few rows for an interval.")
    return section("Where a loss could hide", f'{"".join(tables)}<p class="note">{" ".join(notes)}</p>')


def _slice(part: Slice) -> str:
    """A line of the slices; one that lost stands out."""
    ids = NONE if part.ids is None else f"{part.ids:,}"
    words = _paired(part.comparison)
    p = NONE if part.comparison is None else probability(part.p_worse)
    values = [ids, f"{part.rows:,}", f"{part.positives:,}", *words[:2], p]
    return table_row(part.name, *values, bad=part.lost)


def _steps_section(steps: Sequence[Step]) -> str:
    """What each step touched, skipped and why, and the bytes before and after."""
    if not steps:
        return ""
    head = header("Step", "Touched", "Skipped, and why", "Before", "After", words=(1, 2))
    rows = []
    for step in steps:
        note = f"<small>{escape(step.note)}</small>" if step.note else ""
        touched = [one.name + _change(one.bytes_before, one.bytes_after) for one in step.touched]
        skipped = [one.name + (f": {one.reason}" if one.reason else "") for one in step.skipped]
        lists = "".join(f'<td class="words">{listed(lines)}</td>' for lines in (touched, skipped))
        counts = "".join(f'<td class="number">{_size(count)}</td>' for count in (step.bytes_before, step.bytes_after))
        rows.append(f'<tr><th scope="row">{escape(step.name)}{note}</th>{lists}{counts}</tr>')
    return section("What each step did", scroll(f"{head}<tbody>{''.join(rows)}</tbody>", "steps"))


def _change(before: int | None, after: int | None) -> str:
    """` (215 KB to 180 KB)`, or nothing where it is not known."""
    return "" if before is None or after is None else f" ({size(before)} to {size(after)})"


def _size(count: int | None) -> str:
    """Bytes in words, or a dash."""
    return NONE if count is None else size(count)


def _origin_section(result: Result) -> str:
    """Machine, versions, seeds and data: what a reader needs to get the same figures."""
    facts = {
        "Machine": machine_line(result),
        "Versions": ", ".join(f"{name} {version}" for name, version in result.versions.items()),
        "Seeds": ", ".join(map(str, result.seeds)),
        "Data": limits_line(result),
        "Data fingerprint": result.data_fingerprint,
    }
    lines = "".join(f"<dt>{name}</dt><dd>{escape(words)}</dd>" for name, words in facts.items() if words)
    return section("Measured on", f'<dl class="facts">{lines}</dl>') if lines else ""


def _again_section(result: Result) -> str:
    """The commands that make it again, and the whole recipe."""
    if not result.recipe:
        return ""
    lines = [f"{result.command}   # what was asked, beside this page"] if result.command else []
    lines.append("slimrank run recipe.json   # the recipe below, beside this page")
    note = "The same recipe and data give the same model on the same machine."
    if result.search:
        note = (
            "In this directory the search goes on; in another it begins again, and may end elsewhere, as it tries what "
            "its time allows. The recipe it ended with is below. Trained by itself, that has all validation rows, of "
            "which a search keeps half for its choice."
        )
    recipe = folded("The recipe", f"<pre>{escape(json.dumps(result.recipe, indent=1, ensure_ascii=False))}</pre>")
    commands = f"<pre>{escape(chr(10).join(lines))}</pre>"
    return section("How to make it again", f'{commands}<p class="note">{escape(note)}</p>{recipe}')
