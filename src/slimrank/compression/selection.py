"""Which tables a step works on, as settings, which steps of models and of graphs share; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch

from pydantic import ByteSize

from slimrank.config import Config, InputError, nearest


class Selection(Config):
    """The tables that a step works on: of the fields in `only` (all, where none is named) without those in `skip`.

    Both hold names of fields, such as "item", or patterns, such as "c1*" and "embedding.*"; a field of a module of
    your own is named by where its embedding sits. A table that shares its rows with another layer is left alone unless
    `tied`.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    tied: bool = False


class Budgeted(Selection):
    """A selection whose tables share `budget`: the bytes of the whole model, packed, such as 65536 or "64 KB"."""

    budget: ByteSize | None = None


def check_names(selection: Selection, names: Sequence[str], more: Sequence[str] = ()) -> None:
    """Raises `InputError` where a name or pattern of `selection` matches none of `names`, nor any of `more`."""
    for key in ("only", "skip"):
        for pattern in getattr(selection, key):
            if not any(fnmatch(each, pattern) for each in (*names, *more)):
                raise InputError(f"{key}: no table {pattern!r}. {nearest(pattern, names)}")


def selected(selection: Selection, embedding: str, field: str) -> bool:
    """Whether `selection` holds a field of the embedding of that name."""

    def named(patterns: Sequence[str]) -> bool:
        return any(fnmatch(name, pattern) for name in (field, f"{embedding}.{field}") for pattern in patterns)

    return (not selection.only or named(selection.only)) and not named(selection.skip)
