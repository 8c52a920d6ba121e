"""What all pictures share: their colours, sizes and axes, and how a chart becomes an element of the page."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape
from typing import Any

from slimrank.config import InputError

WIDE, NARROW = 680, 300
AXIS = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal", "labelPadding": 6, "titlePadding": 10}
PLACEHOLDERS = {
    "ink": "#010101",
    "muted": "#020202",
    "line": "#030303",
    "teacher": "#040404",
    "student": "#050505",
    "slim": "#060606",
    "paper": "#070707",
}
"""Colours that nothing else draws with, by the name of the page's variable that replaces them."""


@dataclass(frozen=True)
class Picture:
    """One picture: SVG for a wide and for a narrow page, what it shows in words, and how to read it."""

    wide: str
    narrow: str
    words: str
    caption: str = ""


def round_numbers(low: float, high: float, most: int, powers: range = range(16)) -> list[float]:
    """At most `most` round numbers between two others, evenly apart on a logarithmic axis.

    >>> round_numbers(30_000, 3_000_000, 8), round_numbers(30_000, 3_000_000, 4)
    ([50000.0, 100000.0, 200000.0, 500000.0, 1000000.0, 2000000.0], [100000.0, 1000000.0])
    """
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= most:
            return inside
    return inside[:: -(-len(inside) // most)]


UNITS = (
    "datum.value >= 1e9 ? format(datum.value / 1e9, '~g') + ' GB' : "
    "datum.value >= 1e6 ? format(datum.value / 1e6, '~g') + ' MB' : "
    "datum.value >= 1e3 ? format(datum.value / 1e3, '~g') + ' KB' : datum.value + ' bytes'"
)


def altair_module() -> Any:
    """altair, which only the pictures need.

    Raises:
        InputError: it or vl-convert is not installed.
    """
    try:
        import altair
        import vl_convert  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(f'the report needs {error.name}: pip install "slimrank[train]"') from None
    return altair


def svg(chart: Any, name: str, words: str) -> str:
    """A chart as an element of the page: its colours the page's, its identifiers its own, its content one image."""
    ink, muted, line = (PLACEHOLDERS[key] for key in ("ink", "muted", "line"))
    styled = (
        chart.configure(background="transparent", font="system-ui, sans-serif", aria=False)
        .configure_view(stroke=None)
        .configure_axis(labelColor=muted, titleColor=muted, gridColor=line, domainColor=line, tickColor=line, **AXIS)
        .configure_title(color=ink, fontSize=13, fontWeight=600, offset=8)
        .configure_text(fontSize=12)
    )
    target = io.StringIO()
    styled.save(target, format="svg")
    text = target.getvalue()
    for key, colour in PLACEHOLDERS.items():
        text = text.replace(colour, f"var(--{key})")
    return _as_image(text, name, words)


def _as_image(text: str, name: str, words: str) -> str:
    """The SVG with an alternative text, and with identifiers that no other picture and no later drawing has."""
    # The renderer numbers them through for as long as its process lives.
    for place, old in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text))):
        text = re.sub(rf'(\bid="|url\(#|href="#){re.escape(old)}(?=["\)])', rf"\g<1>{name}-{place}", text)
    start = f'<svg role="img" aria-label="{escape(words, quote=True)}"'
    return text[text.index("<svg") :].replace("<svg", start, 1)
