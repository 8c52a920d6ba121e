"""The result as Markdown, short enough for a pull request: answer, figures, verdict, what lost and what was skipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from slimrank.files import replace_file
from slimrank.report.figures import (
    NONE,
    answers,
    figures,
    interval,
    limits_line,
    machine_line,
    metric_name,
    probability,
    signed,
    verdict,
)
from slimrank.report.goal import bound_words, undecided
from slimrank.report.result import Result, Step, read


def write_markdown(result: Path, page: Path) -> None:
    """Reads a result file and writes the Markdown, whole or not at all.

    Raises:
        InputError: the file is missing or holds no result, or the page cannot be written.
    """
    replace_file(page, markdown(read(result, Result)).encode())


def markdown(result: Result) -> str:
    """The text."""
    parts = [f"# {escape(result.name)}" if result.name else "", *map(escape, answers(result)), _goal(result)]
    parts += [_figures(result), _proof(result)]
    parts += [_slices(result), _steps(result.slim.steps), escape(limits_line(result)), escape(machine_line(result))]
    return "\n\n".join(filter(None, parts)) + "\n"


def escape(words: str) -> str:
    """Text that Markdown, and HTML inside it, takes for nothing but text.

    >>> escape("a|b <i> *c*")
    'a\\\\|b &lt;i&gt; \\\\*c\\\\*'
    """
    safe = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]|#" else letter for letter in safe)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is words and the others numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _goal(result: Result) -> str:
    """Every bound of a search's goal, as the page has it."""
    if result.search is None:
        return ""
    rows = [(bound.key, *bound_words(bound)) for bound in result.search.bounds]
    notes = "\n\n".join(map(escape, undecided(result.search.bounds)))
    table = _table(["goal", "asked", "test rows", "95% interval", "verdict"], rows)
    return f"{table}\n\n{notes}" if notes else table


def _figures(result: Result) -> str:
    rows = [(line.name, line.teacher, line.slim, line.change) for line in figures(result)]
    return _table(["", "teacher", "slim", "change"], rows)


def _proof(result: Result) -> str:
    """The paired comparison, a line a seed."""
    rows = [
        (
            "test rows" if one.seed is None else f"seed {one.seed}",
            signed(one.difference),
            interval(one),
            probability(one.p),
            verdict(one),
        )
        for one in result.comparison
    ]
    titles = [f"{metric_name(result)}, slim less teacher", "difference", "95% interval", "p", "verdict"]
    return _table(titles, rows) if rows else ""


def _slices(result: Result) -> str:
    """The slices that lost, or that none did."""
    parts = [(field, part) for field, each in result.slices.items() for part in each if part.comparison]
    lost = [
        f"- {escape(field)}, {escape(part.name)}: {metric_name(result)} {signed(part.comparison.difference)} "
        f"({interval(part.comparison)}), p of a loss {probability(part.p_worse)}, corrected"
        for field, part in parts
        if part.lost and part.comparison
    ]
    if lost:
        return "\n".join(["**Lost within**", *lost])
    return f"No loss shown in any of {len(parts)} slices by train frequency." if parts else ""


def _steps(steps: Sequence[Step]) -> str:
    return "\n".join(_step_lines(steps))


def _step_lines(steps: Sequence[Step]) -> Iterator[str]:
    """What each step touched, and what it skipped and why."""
    for step in steps:
        touched = ", ".join(escape(one.name) for one in step.touched) or NONE
        yield f"- `{step.name}`: {touched}"
        for skipped in step.skipped:
            yield f"  - skipped {escape(skipped.name)}: {escape(skipped.reason)}"
