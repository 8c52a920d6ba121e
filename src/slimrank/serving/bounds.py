"""What is too much for one request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from slimrank.config import InputError


class TooMany(InputError):
    """A request with more rows, or longer text, than the service takes at once."""


def check_rows(rows: int, max_rows: int) -> None:
    """Raise `TooMany` where there are more than allowed."""
    if rows > max_rows:
        raise TooMany(f"{rows} rows in one request, at most {max_rows} are allowed")


def check_text(name: str, values: Iterable[Any], longest: int) -> None:
    """Raise `TooMany` where one of the values of a field is a longer text."""
    for value in values:
        if isinstance(value, str) and len(value) > longest:
            raise TooMany(f"field {name[:80]!r}: a text of {len(value)} characters, at most {longest} are allowed")
