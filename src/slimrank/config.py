"""Frozen configs, the one registry, and the error that a user can mend.

Everything that a user names (a dataset, a model, a table kind, a step, an export target) is a frozen
pydantic model registered under a kind and a name. A new one is a new file in the folder of its kind:
the registry imports that folder when it is first asked for the kind. Left out: what the named things do.
"""

from __future__ import annotations

import difflib
import importlib
import json
import pkgutil
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

FOLDERS = {
    "dataset": "slimrank.data.datasets",
    "index": "slimrank.indexing",
    "table": "slimrank.tables",
    "model": "slimrank.models",
    "loss": "slimrank.training.losses",
    "step": "slimrank.compression",
    "graph step": "slimrank.graphs",
    "target": "slimrank.exporting",
    "deployment target": "slimrank.deploying",
    "deployed": "slimrank.deploying",
}


class InputError(ValueError):
    """Something the user gave is wrong, and the message says what, what is allowed and the nearest match."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The part of an error message that names the allowed values and the one nearest to `name`.

    >>> nearest("frapp", ["frappe", "criteo"])
    "Did you mean 'frappe'? Allowed: criteo, frappe."
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}."


class Config(BaseModel):
    """A frozen record that refuses unknown keys, with the nearest known key in its error.

    `LATER` are keys that a later release added: where they are not set, the plain form is without them, so that older
    recipes, runs and fingerprints stay what they were.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=False, allow_inf_nan=False)
    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As plain data, without later keys that have their defaults."""
        unset = {key for key in self.LATER if getattr(self, key) == type(self).model_fields[key].default}
        return {key: value for key, value in handler(self).items() if key not in unset}

    @classmethod
    def parse(cls: type[C], values: Mapping[str, Any], where: str = "") -> C:
        """`cls(**values)`, with every fault in one `InputError` that names keys as the user wrote them.

        Raises:
            InputError: a key is unknown or a value is not allowed.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InputError(describe(error, cls, where or cls.__name__)) from None


C = TypeVar("C", bound=Config)


def check_one_given(config: Config, *names: str) -> None:
    """That exactly one of the settings `names` of `config` is given, so is not None.

    Raises:
        InputError: none or several are.
    """
    given = [name for name in names if getattr(config, name) is not None]
    if len(given) != 1:
        *most, last = names
        raise InputError(f"give exactly one of {', '.join(most)} and {last}, got {given or 'none'}")


def describe(error: ValidationError, config: type[Config], where: str) -> str:
    """All faults of a pydantic error, one a line: key, what was found, what is allowed, nearest match."""
    lines = []
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        place = f"{where}: {key}" if key else where
        if fault["type"] == "extra_forbidden":
            owner = _owner(config, fault["loc"][:-1])
            known = owner.model_fields if owner else ()
            lines.append(f"{where}: unknown key {key!r}. {nearest(str(fault['loc'][-1]), known)}")
        elif fault["type"] == "missing":
            lines.append(f"{place} is missing")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            found = "" if fault["type"] == "value_error" else f", got {fault['input']!r}"
            lines.append(f"{place}: {message}{found}")
    return "\n".join(lines)


def _owner(config: type[Config], path: Iterable[Any]) -> type[Config] | None:
    """The config class that a nested key belongs to, or None where the path leads through a union."""
    for part in path:
        field = config.model_fields.get(str(part))
        annotation = field.annotation if field is not None else None
        choices = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type)]
        owners = [one for one in choices if issubclass(one, Config)]
        if len(owners) != 1:
            return None
        config = owners[0]
    return config


@dataclass(frozen=True)
class Entry:
    """One registered thing: its name, its frozen config, and what runs it (a function or a class)."""

    name: str
    config: type[Any]
    run: Callable[..., Any]

    @property
    def summary(self) -> str:
        """The first line of the config's docstring, for tables in docs and on the terminal."""
        return (self.config.__doc__ or "").strip().splitlines()[0]


_entries: dict[str, dict[str, Entry]] = {kind: {} for kind in FOLDERS}
_imported: set[str] = set()
R = TypeVar("R", bound=Callable[..., Any])


def register(kind: str, config: type[Config]) -> Callable[[R], R]:
    """Class or function decorator: what it decorates runs the things that `config` describes.

    The name is the default of the config's field `name`, so that a config written to TOML or JSON says what it is.
    """

    def decorate(run: R) -> R:
        name = config.model_fields["name"].default
        _entries[kind][name] = Entry(name, config, run)
        return run

    return decorate


def entries(kind: str) -> dict[str, Entry]:
    """All registered things of a kind, by name, importing the kind's folder the first time."""
    if kind not in _imported:
        package = importlib.import_module(FOLDERS[kind])
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{FOLDERS[kind]}.{module.name}")
        _imported.add(kind)
    return _entries[kind]


def find(kind: str, name: str) -> Entry:
    """The entry of that name.

    Raises:
        InputError: no entry has it; the message names the nearest.
    """
    known = entries(kind)
    if name not in known:
        raise InputError(f"unknown {kind} {name!r}. {nearest(name, known)}")
    return known[name]


def name_of(config: Config) -> str:
    """The name under which the thing that `config` describes is registered."""
    return str(type(config).model_fields["name"].default)


def runner(kind: str, config: Config) -> Callable[..., Any]:
    """What runs the thing that `config` describes."""
    return find(kind, name_of(config)).run


def resolver(kind: str) -> BeforeValidator:
    """What turns a pydantic field's input into a registered config of `kind`: `Annotated[Config, resolver("step")]`.

    Takes a config, a mapping with a key `name`, or the bare name, from Python, TOML and JSON alike.
    """
    return BeforeValidator(lambda value: as_config(kind, value))


def as_config(kind: str, value: Any) -> Any:
    """The registered config of `kind` that a name or a mapping with a key `name` describes; a config as it is.

    Raises:
        InputError: the name or a key is unknown, or a value is not allowed.
    """
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        return value
    if "name" not in value:
        raise InputError(f"a {kind} needs a name. {nearest('', entries(kind))}")
    entry = find(kind, str(value["name"]))
    return entry.config.parse(value, f"{kind} {entry.name}")


def read_named(word: str, option: str) -> dict[str, Any]:
    """What `as_config` takes from NAME or NAME:KEY=VALUE,KEY=VALUE. Values are those of TOML, and text without quotes.

    `option` is what the user gave it to, for the error.

    >>> read_named("quantize-tables:bits=4,scale=row", "--step")
    {'name': 'quantize-tables', 'bits': 4, 'scale': 'row'}

    Raises:
        InputError: a setting is not KEY=VALUE.
    """
    name, _, settings = word.partition(":")
    found: dict[str, Any] = {"name": name}
    for setting in filter(None, _settings(settings)):
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"{option} {word}: a setting is KEY=VALUE, got {setting!r}")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


def _settings(settings: str) -> Iterator[str]:
    """`settings` cut at commas, but for those inside of brackets."""
    depth, start = 0, 0
    for place, letter in enumerate(settings):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            yield settings[start:place]
            start = place + 1
    yield settings[start:]


def read_table(path: Path) -> dict[str, Any]:
    """The content of a TOML or JSON file that holds a table.

    Raises:
        InputError: the file is missing, is neither, or holds something else.
    """
    kinds: dict[str, tuple[str, Callable[[str], Any]]] = {
        ".toml": ("TOML", tomllib.loads),
        ".json": ("JSON", json.loads),
    }
    if path.suffix not in kinds:
        raise InputError(f"{path}: a recipe is a .toml, .json or .py file")
    name, loads = kinds[path.suffix]
    try:
        found = loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:  # of either format, or of its encoding
        raise InputError(f"{path}: not a {name} file: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no table but {type(found).__name__}")
    return found
