"""A vocabulary as what changed since the old one, and the file built again from its values.

`vocabulary.parquet` is compressed within, so that a value more changes most of its bytes. It is written by polars, and
another release of it writes other bytes of the same values: whoever makes a delta looks whether the file is what is
built here, and whoever applies it looks again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimrank.config import InputError
from slimrank.data.stored import read_vocabulary, vocabulary_parquet
from slimrank.data.vocabulary import Vocabulary

if TYPE_CHECKING:
    import polars


def changes(old: Path, new: Path) -> bytes | None:
    """What `rebuilt` makes the file `new` of, from `old`; None where it makes another one."""
    try:
        before, after = read_vocabulary(old), read_vocabulary(new)
        fields = {name: _runs(before.get(name), values) for name, values in after.items()}
        told = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        return told if rebuilt(old, told) == new.read_bytes() else None
    except (InputError, ValueError):
        return None


def rebuilt(old: Path, told: bytes) -> bytes:
    """The file of the new vocabulary.

    Raises:
        InputError: what is told has another form, or `old` is no vocabulary.
    """
    import polars

    before = read_vocabulary(old)
    codecs = {}
    try:
        for name, (kind, parts) in json.loads(told).items():
            known = before[name].to_list() if name in before else []
            values: list[Any] = []
            for part in parts:
                values += known[part[0] : part[0] + part[1]] if part[0] != "new" else part[1]
                if len(values) > len(known) + len(told):  # before any more of a run that comes over and over
                    break
            if len(set(values)) != len(values):
                raise ValueError(f"values of {name!r:.40} come twice")
            typed = polars.Int64 if kind == "int" else polars.String
            codecs[name] = Vocabulary(polars.Series("value", values, dtype=typed))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, polars.exceptions.PolarsError) as error:
        raise InputError(f"changes of a vocabulary of another form: {error}") from None
    return vocabulary_parquet(codecs)


def _runs(before: polars.Series | None, after: polars.Series) -> tuple[str, list[Any]]:
    """Values in order, as [first place, how many] of old ones and ["new", values] of others; integers or text."""
    places = {} if before is None else {value: at for at, value in enumerate(before.to_list())}
    parts: list[list[Any]] = []
    for value in after.to_list():
        at = places.get(value)
        last: Any = parts[-1] if parts else ["", 0]
        if at is None:
            if last[0] != "new":
                parts.append(last := ["new", []])
            last[1].append(value)
        elif last[0] != "new" and last[1] and last[0] + last[1] == at:
            last[1] += 1
        else:
            parts.append([at, 1])
    return ("int" if after.dtype.is_integer() else "str"), parts
