"""What a service is asked to be: models and their versions, where it listens, and what one request may cost.

The same in Python, on the command line and in a TOML file (`settings_of`).
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from pydantic import field_validator as validates

from slimrank.artifact import named
from slimrank.config import Config, InputError, nearest

Port = Annotated[int, Field(ge=0, le=65535)]
MODEL_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, Field(pattern=MODEL_NAME)]


class Limits(Config):
    """What one request may ask for, and how much may wait.

    Attributes:
        max_body_bytes: of the body as sent, and as unpacked; more is answered with 413.
        max_held_bytes: of all bodies that are being read, by worker; with more a request is answered with 503.
        max_rows: rows, or candidates, of one request; more is answered with 413.
        max_text: characters of one value; more is answered with 413.
        max_requests: requests in work at once, by worker, without those that are still being sent; more are answered
            with 503.
        max_wait_ms: work that may stand before a new request, by what requests took lately; more is answered with 503.
        timeout_ms: how long a request may take from its first byte to its answer; then it is given up with 504.
        max_connections: open connections, by worker; more are answered with 503.
        idle_ms: how long a connection may stay without a whole request, or its answer unread; then it is closed.
    """

    max_body_bytes: PositiveInt = 4 << 20
    max_held_bytes: PositiveInt = 256 << 20
    max_rows: PositiveInt = 4096
    max_text: PositiveInt = 20_000
    max_requests: PositiveInt = 256
    max_wait_ms: PositiveFloat = 20.0
    timeout_ms: PositiveInt = 5_000
    max_connections: PositiveInt = 4096
    idle_ms: PositiveInt = 5_000


class Batching(Config):
    """How requests for the same model share a call of its graph.

    Attributes:
        max_rows: rows of one call.
        delay_ms: how long the first of a call waits for others; 0 takes those that came in together, and has a graph
            that answers faster than they can be joined called for each.
    """

    max_rows: PositiveInt = 1024
    delay_ms: NonNegativeFloat = 0.0


class VersionSettings(Config):
    """One artifact that answers for a model, and its share of the requests."""

    path: Path
    share: PositiveFloat = 1.0


class ModelSettings(Config):
    """One model of the service.

    Attributes:
        name: what requests call it.
        versions: artifacts that answer, each with its share of the requests.
        shadow: an artifact that is asked the same and whose answers are only compared.
        load: whether it is loaded when the service starts; else by the repository's call.
    """

    name: Name
    versions: Annotated[tuple[VersionSettings, ...], Field(min_length=1)]
    shadow: Path | None = None
    load: bool = True


class Settings(Config):
    """A whole service.

    Attributes:
        port, grpc_port: of HTTP and of gRPC; 0 takes any free one, and None is no gRPC.
        workers: processes; each has all models, whose weights are mapped once.
        threads: of one call of a graph.
        poll_ms: how often artifacts are looked at for a new version.
        token_file: holds the token that every request must bear, but for health.
        tls_certificate, tls_key: PEM files; both or none.
        public_key: a PEM file; artifacts are loaded only where this key has signed them.
        log: lines as "text" or "json".
        remote_load: whether requests may load and unload models; None: where the service is on loopback or has a token.
    """

    models: Annotated[tuple[ModelSettings, ...], Field(min_length=1)]
    host: str = "127.0.0.1"
    port: Port = 8000
    grpc_port: Port | None = None
    workers: PositiveInt = 1
    threads: PositiveInt = 1
    limits: Limits = Limits()
    batching: Batching = Batching()
    poll_ms: PositiveInt = 500
    drain_ms: NonNegativeInt = 10_000
    token_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    public_key: Path | None = None
    log: str = "text"
    remote_load: bool | None = None

    @property
    def open_to_all(self) -> bool:
        """Whether whoever reaches the port may ask: it is not on loopback, and wants no token."""
        return self.token_file is None and not _is_loopback(self.host)

    @property
    def may_load(self) -> bool:
        """Whether requests may load and unload models."""
        return not self.open_to_all if self.remote_load is None else self.remote_load

    @validates("models")
    @classmethod
    def _names_differ(cls, models: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        names = [each.name for each in models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"model {twice[0]!r} is named twice")
        return models

    @validates("log")
    @classmethod
    def _log_known(cls, log: str) -> str:
        if log not in ("text", "json"):
            raise ValueError(f"unknown form {log!r}. {nearest(log, ['text', 'json'])}")
        return log

    @model_validator(mode="after")
    def _tls_whole(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("TLS needs both tls_certificate and tls_key")
        return self


def models_of(artifacts: Sequence[str | Path]) -> tuple[ModelSettings, ...]:
    """A model for each artifact, PATH or NAME=PATH, named as `named` says.

    Raises:
        InputError: a name is not allowed.
    """
    models = []
    for each in artifacts:
        name, path = named(each)
        models.append(ModelSettings.parse({"name": name, "versions": [{"path": path}]}, str(each)))
    return tuple(models)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def settings_of(
    artifacts: Sequence[str], config: Path | None, options: Mapping[str, Any], changes: Sequence[str] | None = None
) -> Settings:
    """What the command line says: a file's keys, then artifacts, options and changes (KEY=VALUE) on top.

    Raises:
        InputError: the file cannot be read; models are named in both places or in none; a key or value is not allowed.
    """
    keys = {} if config is None else _read(config)
    if artifacts and "models" in keys:
        raise InputError(f"{config}: has models already; give artifacts there or on the command line")
    if artifacts:
        keys["models"] = models_of(artifacts)
    if "models" not in keys:
        raise InputError("nothing to serve: give an artifact, or a --config with models")
    keys |= options
    for change in changes or ():
        _put(keys, change)
    return Settings.parse(keys, str(config or "serve"))


def _read(path: Path) -> dict[str, Any]:
    """The keys of a TOML file."""
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    return found


def _put(keys: dict[str, Any], change: str) -> None:
    """Set the key of KEY=VALUE, a dotted one in its table; the value is read as TOML, and else is text."""
    path, equals, text = change.partition("=")
    if not equals or not path:
        raise InputError(f"--set: got {change!r}, must be KEY=VALUE")
    *tables, last = path.split(".")
    for table in tables:
        keys = keys.setdefault(table, {})
        if not isinstance(keys, dict):
            raise InputError(f"--set: {path!r} has no table {table!r}")
    try:
        keys[last] = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        keys[last] = text
