"""Every registered name with its keys, as one page of Markdown: `python -m slimrank.reference > docs/reference.md`.

Written from the registry and the configs themselves, so that the page cannot say what the code does not do.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from slimrank.config import FOLDERS, Config, entries
from slimrank.data.schema import Field
from slimrank.data.splits import Split
from slimrank.recipe import Recipe, Student, Teacher
from slimrank.searching.search import Search
from slimrank.training.loop import Training
from slimrank.training.losses.loss import Distillation
from slimrank.training.stability import Stability

TITLES = {
    "dataset": "Datasets",
    "model": "Models",
    "table": "Tables",
    "loss": "Losses",
    "step": "Steps",
    "graph step": "Steps on ONNX graphs",
    "target": "Targets",
    "deployment target": "Deployment targets",
    "index": "Indices",
}
RECIPE: dict[str, type[Config]] = {
    "recipe": Recipe,
    "teacher": Teacher,
    "student": Student,
    "training": Training,
    "distillation": Distillation,
    "stability": Stability,
    "search": Search,
}
DATA: dict[str, type[Config]] = {"split": Split, "field": Field}
WORDS = {
    **{int: "integer", float: "number", str: "text", bool: "true or false", Path: "path", Any: "anything"},
    datetime: "date and time",
}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
HEAD = """# Reference

Written by `python -m slimrank.reference` from the registry and the configs; a test holds this page to them.
A registered thing is named in a recipe by `name`, with the keys below it; what is not set has the default.
"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD, "## Recipe\n\nThe keys of a recipe, and of the tables in it.\n"]
    parts += [_entry(name, config) for name, config in RECIPE.items()]
    parts += ["## Data\n\nTables that the keys of datasets name.\n"]
    parts += [_entry(name, config) for name, config in DATA.items()]
    for kind, title in TITLES.items():
        folder = FOLDERS[kind].replace(".", "/")
        parts.append(f"## {title}\n\nOne file each in `src/{folder}/`.\n")
        parts += [_entry(name, entry.config) for name, entry in sorted(entries(kind).items())]
    return "\n".join(parts)


def _entry(name: str, config: type[Config]) -> str:
    """A heading, the config's own words, and the table of its keys."""
    words = inspect.cleandoc(config.__doc__ or "").split("\nAttributes:")[0].strip()
    said = _attributes(config)
    rows = [
        (f"`{key}`", _allowed(field.annotation, field.metadata), _default(field), said.get(key, "").replace("|", "\\|"))
        for key, field in config.model_fields.items()
        if key != "name" or not get_args(field.annotation)
    ]
    titles = ("key", "allowed", "default", "what it is")[: 4 if said else 3]
    lines = [titles, ("---",) * len(titles), *rows] if rows else []
    table = "\n".join(f"| {' | '.join(line[: len(titles)])} |" for line in lines) or "No keys."
    return f"### `{name}`\n\n{words}\n\n{table}\n"


def _attributes(config: type[Config]) -> dict[str, str]:
    """What the section `Attributes` of the docstrings of a config and what it is made from says, by key."""
    found: dict[str, str] = {}
    for each in reversed(config.__mro__):
        text = inspect.cleandoc(each.__doc__ or "").partition("\nAttributes:")[2] if issubclass(each, Config) else ""
        key = ""
        for line in filter(None, map(str.strip, text.splitlines())):
            name, colon, rest = line.partition(": ")
            if colon and name in each.model_fields:  # type: ignore[attr-defined]
                key, line = name, rest
                found[key] = line
            elif key:
                found[key] += f" {line}"
    return found


def _allowed(annotation: Any, metadata: list[Any]) -> str:
    """The type and its bounds in words."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _allowed(inside[0], [*inside[1:], *metadata])
    if origin in (Union, UnionType):
        words = " or ".join(_allowed(each, []) for each in inside if each is not NoneType)
    elif origin is Literal:
        words = ", ".join(f"`{each}`" for each in inside)
    elif origin is tuple:
        words = f"list of: {_allowed(inside[0], [])}"
    elif origin is dict:
        words = "table"
    elif isinstance(annotation, type) and issubclass(annotation, Config):
        words = f"table ({annotation.__name__.lower()})"
    else:
        words = WORDS.get(annotation, str(annotation))
    words = "name, or table with `name`" if annotation is Config else words
    return ", ".join([words, *_bounds(metadata)])


def _bounds(metadata: list[Any]) -> Iterator[str]:
    """`at least 1` and the like, from what pydantic keeps of a bound."""
    for each in metadata:
        inner = getattr(each, "metadata", None)
        yield from _bounds(inner) if isinstance(inner, list) else ()
        for key, words in BOUNDS.items():
            if (limit := getattr(each, key, None)) is not None:
                yield f"{words} {limit}"


def _default(field: FieldInfo) -> str:
    """The default as TOML would say it; a dash where there is none."""
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if value is None or value == ():
        return "–"
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    """A value as TOML says it; of a config only what differs from its own defaults."""
    if isinstance(value, Config):
        fields = type(value).model_fields
        keys = {key: getattr(value, key) for key in fields}
        told = {key: got for key, got in keys.items() if key == "name" or got != fields[key].get_default()}
        return "{" + ", ".join(f"{key} = {_plain(got)}" for key, got in sorted(told.items(), key=_name_first)) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str | Path) else str(value)


def _name_first(item: tuple[str, Any]) -> bool:
    return item[0] != "name"


if __name__ == "__main__":
    print(reference(), end="")
