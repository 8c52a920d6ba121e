"""The table on the terminal: framed where someone looks at it, plain lines where a file or a pipe reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table
from rich.text import Text

from slimrank.report.figures import Figure, answers, figures, limits_line, machine_line
from slimrank.report.result import Result, read

HEAD = Figure("", "", "teacher", "slim", "change")


def print_result(source: Path | Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the table of a result file, or of its content.

    Raises:
        InputError: the file is missing or holds no result.
    """
    result, console = read(source, Result), console or Console()
    if console.is_terminal:
        console.print(framed(result))
        for line in filter(None, (limits_line(result), machine_line(result))):
            console.print(Text(line, style="dim"))
    else:
        print_plain(console, plain_lines(result))


def plain_lines(result: Result) -> list[str]:
    """The table in columns of spaces, then the answer and the machine."""
    rows = [HEAD, *figures(result)]
    cells = [(row.name, row.teacher, row.slim, row.change) for row in rows]
    return [line for line in (*columns(cells), *answers(result), limits_line(result), machine_line(result)) if line]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in columns of spaces: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([name.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]).rstrip() for name, *rest in rows]


def print_plain(console: Console, lines: Iterable[str]) -> None:
    """Prints lines as they are, for a file or a pipe."""
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)


def framed(result: Result) -> Table:
    """The table for a terminal: a rule between groups, good changes green and bad ones red."""
    table = Table(
        title=Text(result.name or "teacher and slim"),
        caption=Text("\n".join(answers(result))),
        header_style="bold",
        box=HORIZONTALS,
    )
    table.add_column("")
    for name in (HEAD.teacher, HEAD.slim, HEAD.change):
        table.add_column(name, justify="right")
    lines = figures(result)
    for line, following in zip(lines, [*lines[1:], HEAD], strict=True):
        style = {True: "green", False: "red", None: ""}[line.better]
        # A range stands below its mean, so that the table fits 80 columns.
        values = (Text(words.replace(" (", "\n").removesuffix(")")) for words in (line.teacher, line.slim))
        table.add_row(
            Text(line.name), *values, Text(line.change, style=style), end_section=line.group != following.group
        )
    return table
