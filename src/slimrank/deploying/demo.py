"""What the demo page of the target `web` shows: its users and what is ranked for them, and the page around them.

Users are groups of example rows; what is alike in all rows of every group is the user's, the rest the candidate's.
Left out: how the page works (`browser/demo.js`), and the module it uses (`web`).
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from slimrank.config import InputError, nearest
from slimrank.data.files import read_csv, read_parquet
from slimrank.data.vocabulary import Vocabulary
from slimrank.runtime.opened import Opened

if TYPE_CHECKING:
    import polars

USERS, CANDIDATES = 24, 40  # of a page at most
GROUPED = 10_000  # rows that are put together by their values, where no column says whose they are


def page_json(examples: Path | None, candidates: Sequence[str], title: str | None, model: Opened, name: str) -> bytes:
    """`page.json`: the users of the demo page, each with its own values and what is ranked for it.

    Raises:
        InputError: the examples cannot be read, lack a field of the model, or have not the columns that are named; or
            there are none, and a candidate's field is a number, of which no values are known.
    """
    schema = model.encoding.schema
    finds = "logit" not in model.outputs
    if wrong := [field for field in candidates if field not in schema.inputs]:
        raise InputError("\n".join(f"candidates: no field {each!r}. {nearest(each, schema.inputs)}" for each in wrong))
    if examples is None:
        shown = _made_up(model, candidates)
    else:
        frame = read_parquet(examples) if examples.suffix == ".parquet" else read_csv(examples)
        _check_columns(frame, [*schema.inputs, *([title] if title else [])], examples)
        own = [] if finds else _candidates(frame, list(schema.inputs), candidates, schema.group)
        shown = _of_groups(frame, own, title, schema.group, model)
    page = {"name": name, "finds": finds, "made": examples is None, **shown}
    return json.dumps(page, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def demo_page(template: str, name: str, files: Mapping[str, bytes], runtime: str) -> str:
    """index.html: its title, the hash of every script and of what it shows (`page.json`), and what the browser may
    fetch and run, which is no more."""
    sums = {file: f"sha384-{base64.b64encode(hashlib.sha384(each).digest()).decode()}" for file, each in files.items()}
    links = [
        f'<link rel="modulepreload" href="{file}" integrity="{found}">'
        for file, found in sums.items()
        if file not in ("demo.js", "page.json")
    ]
    parts = urlsplit(runtime)
    elsewhere = f" {parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else ""
    values = {
        "NAME": html.escape(name),
        "PRELOADS": "\n".join(links),
        "DEMO_INTEGRITY": sums["demo.js"],
        "PAGE_INTEGRITY": sums["page.json"],
        "SCRIPTS": f"{html.escape(elsewhere)}{' blob:' if elsewhere else ''}",
        "FETCHES": html.escape(elsewhere),
    }
    for key, value in values.items():
        template = template.replace(f"{{{{{key}}}}}", value)
    return template


def _check_columns(frame: polars.DataFrame, needed: Sequence[str], path: Path) -> None:
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise InputError(
            "\n".join(f"{path.name}: no column {name!r}. {nearest(name, frame.columns)}" for name in missing)
        )
    if frame.is_empty():
        raise InputError(f"{path.name}: has no rows")


def _candidates(frame: polars.DataFrame, inputs: list[str], given: Sequence[str], group: str | None) -> list[str]:
    """The fields that are of a candidate: as told, or those that differ within a group."""
    import polars

    if given or group is None or group not in frame.columns:
        return [name for name in inputs if not given or name in given]
    differ = frame.group_by(group).agg(polars.col(name).n_unique().alias(f"n {name}") for name in inputs)
    return [name for name in inputs if name != group and (differ[f"n {name}"] > 1).any()]


def _of_groups(
    frame: polars.DataFrame, own: list[str], title: str | None, group: str | None, model: Opened
) -> dict[str, Any]:
    """The groups with the most rows, and of each the values that are its own and its candidates, each once."""
    schema = model.encoding.schema
    shared = [name for name in schema.inputs if name not in own]
    group = group if group is not None and group in frame.columns else None
    users = []
    for place, part in enumerate(_parts(frame, shared, own, group)):
        first = part.row(0, named=True)
        rows = part.unique(subset=own, keep="first", maintain_order=True).head(CANDIDATES) if own else part.head(0)
        users.append(
            {
                "name": f"row {place + 1}" if group is None else f"{group} {first[group]}",
                "shared": {name: _plain(first[name]) for name in shared},
                "candidates": [_candidate(row, own, title, schema.label) for row in rows.iter_rows(named=True)],
            }
        )
    return {"shared": shared, "own": own, "users": users}


def _parts(frame: polars.DataFrame, shared: list[str], own: list[str], group: str | None) -> list[polars.DataFrame]:
    """Rows by user, of those with the most: by group, else by what is the user's; by row where all is (a query)."""
    import polars

    if not own:
        return [frame[row : row + 1] for row in range(min(len(frame), USERS))]
    if group is not None:
        known = frame[group].value_counts(sort=True, name="count").head(USERS)[group]
        return [frame.filter(polars.col(group).eq_missing(each)) for each in known]
    places: dict[str, list[int]] = {}
    for place, row in enumerate(frame.select(shared).head(GROUPED).iter_rows()):
        places.setdefault(repr(row), []).append(place)
    return [frame[rows] for rows in sorted(places.values(), key=len, reverse=True)[:USERS]]


def _candidate(row: Mapping[str, Any], own: Sequence[str], title: str | None, label: str) -> dict[str, Any]:
    found: dict[str, Any] = {"row": {name: _plain(row[name]) for name in own}}
    if title is not None and row[title] is not None:
        found["title"] = str(row[title])
    if isinstance(row.get(label), int | float):
        found["label"] = _plain(row[label])
    return found


def _made_up(model: Opened, given: Sequence[str]) -> dict[str, Any]:
    """One user of the most frequent values, and as candidates those of the field with the most."""
    encoding = model.encoding
    inputs = list(encoding.schema.inputs)
    usual = {each.name: _values(model, each.name, 1)[:1] for each in encoding.schema.looked_up}
    row: dict[str, Any] = {name: next(iter(usual.get(name, [])), None) for name in inputs}
    row |= {each.name: encoding.scales[each.name].mean for each in encoding.schema.numeric if not each.log}
    row |= {each.name: usual[each.name] for each in encoding.schema.sequences}
    sizes = {each.name: encoding.sizes[each.name] for each in encoding.schema.categorical}
    finds = "logit" not in model.outputs
    own = [] if finds else [*given] or sorted(sizes, key=lambda name: -sizes[name])[:1]
    if numbers := [each.name for each in encoding.schema.numeric if each.name in own]:
        raise InputError(f"candidates: {numbers[0]!r} is a number, of which no values are known; give examples")
    lists = {each.name for each in encoding.schema.sequences}
    columns = [[[value] if each in lists else value for value in _values(model, each, CANDIDATES)] for each in own]
    varied = [dict(zip(own, values, strict=True)) for values in zip(*columns, strict=False)]
    user = {
        "name": "the most frequent values",
        "shared": {name: value for name, value in row.items() if name not in own},
        "candidates": [{"row": each} for each in varied or ([] if finds else [{}])],
    }
    return {"shared": [name for name in inputs if name not in own], "own": own, "users": [user]}


def _values(model: Opened, name: str, most: int) -> list[Any]:
    codec = model.encoding.codecs.get(name)
    if isinstance(codec, Vocabulary):
        return list(codec.values.head(most).to_list())
    return list(range(min(most, getattr(codec, "num_ids", most))))


def _plain(value: Any) -> Any:
    """A value of a table as JSON has it: no NaN, and what JSON has not as text."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
