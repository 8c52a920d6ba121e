"""Parts of the page as text: sections, tables, lists, pictures. Every word of the data passes through `escape`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from slimrank.report.drawing import Picture


def section(title: str, content: str) -> str:
    """A part of the page under its heading."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def scroll(content: str, name: str, caption: str = "") -> str:
    """A table that scrolls by itself where the page is narrower; reachable by keyboard, and named, for that."""
    named = f"<caption>{escape(caption)}</caption>" if caption else ""
    region = f'class="scroll" tabindex="0" role="region" aria-label="{escape(name)}"'
    return f"<div {region}><table>{named}{content}</table></div>"


def header(*titles: str, words: Sequence[int] = ()) -> str:
    """The head of a table; columns in `words` hold text and not numbers."""
    tones = [' class="words"' if place in words else "" for place in range(len(titles))]
    cells = [
        f'<th scope="col"{tone}>{escape(title)}</th>' if title else "<td></td>"
        for title, tone in zip(titles, tones, strict=True)
    ]
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def table_row(name: str, *values: str, bad: bool = False) -> str:
    """A row of a table: its name, then numbers; a `bad` one in the colour of what got worse."""
    tone = "number bad" if bad else "number"
    cells = "".join(f'<td class="{tone}">{escape(value)}</td>' for value in values)
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'


def picture_section(title: str, picture: Picture | None) -> str:
    """A picture, wide or narrow as the page is; its alternative text is the image's own."""
    if picture is None:
        return ""
    drawn = f'<div class="wide">{picture.wide}</div><div class="narrow">{picture.narrow}</div>'
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    return section(title, f"<figure>{drawn}{caption}</figure>")


def listed(lines: Sequence[str]) -> str:
    """Lines as a list, or the word nothing."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else "nothing"


def folded(title: str, content: str) -> str:
    """What is shown when its title is opened."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"
