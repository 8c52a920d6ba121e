"""The models of one worker: their versions, loaded and replaced while requests are answered.

A new version is opened, verified and asked its golden rows before it answers anyone. Then it stands in the place of
the old one in a single assignment; who is being answered by the old one holds it until then, and with the last of
them it is gone. One that fails any of it never answers: the old one stays, and the reason is logged and told.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimrank.artifact import Artifact
from slimrank.config import InputError, nearest
from slimrank.metrics.drift import COUNT
from slimrank.runtime import Model as Scorer
from slimrank.runtime import Retriever
from slimrank.serving.batching import Batcher
from slimrank.serving.metrics import Metrics
from slimrank.serving.served import Served, open_served
from slimrank.serving.settings import ModelSettings, Settings
from slimrank.signing import SUFFIX, verify

if TYPE_CHECKING:
    from slimrank.runtime.shared import SharedScorer

LOG = logging.getLogger("slimrank.serving")
SHARES = 1 << 32
OpenedByPath = Mapping[Path, tuple[Served, str]]


class Unavailable(Exception):
    """A model is known and not loaded."""


class Unknown(InputError):
    """There is no such model or version."""


@dataclass(eq=False)
class Version:
    """One artifact that answers.

    Attributes:
        call: its graph, shared by requests that come in together.
        share: of the requests of its model.
        proof: what was found when it was asked its golden rows.
    """

    served: Served
    path: Path
    call: Batcher
    share: float
    proof: str
    splitting: ThreadPoolExecutor | None = None

    @property
    def name(self) -> str:
        """What requests may call it."""
        return self.served.version

    @property
    def measured(self) -> Mapping[str, Any]:
        """What the manifest says of the rows that the artifact was measured on (`reference_of`)."""
        told = self.served.artifact.manifest.get("reference")
        return told if isinstance(told, Mapping) else {}

    @cached_property
    def reference(self) -> NDArray[np.float64] | None:
        """How many of the artifact's own scores fell into each bin (`histogram`); None where it does not say."""
        try:
            counts = np.asarray(self.measured.get("scores"), np.float64)
        except (TypeError, ValueError):
            return None
        return counts if counts.shape == (COUNT,) and (counts >= 0).all() else None

    @cached_property
    def shared(self) -> SharedScorer:
        """Scores candidates whose shared features are looked up once; of a model that scores rows."""
        from slimrank.runtime.shared import SharedScorer

        assert isinstance(self.served.loaded, Scorer)
        background = None if self.splitting is None else self.splitting.submit
        return SharedScorer(self.served.loaded, fastest=True, background=background)

    def prepare_like(self, other: Version) -> None:
        """Make the graphs that another version has for shared fields, so that no request waits for them."""
        if isinstance(self.served.loaded, Scorer) and isinstance(other.served.loaded, Scorer):
            fields = {field.name for field in self.served.loaded.encoding.schema.fields}
            for shared in other.shared.known:
                if shared <= fields:
                    self.shared.prepared(shared)


@dataclass(eq=False)
class Model:
    """One model of the service.

    Attributes:
        versions: those that answer, in the order of its settings.
        reason: why it, or a new version of it, is not loaded; "" where nothing is wrong.
        failed: by path, what stood there when it could not be loaded, so that it is not tried over and over, and why.
    """

    settings: ModelSettings
    versions: tuple[Version, ...] = ()
    shadow: Version | None = None
    wanted: bool = True
    reason: str = ""
    failed: dict[Path, tuple[object, str]] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return bool(self.versions)

    def choose(self, key: str | None) -> Version:
        """The version for a request: the same for the same key, by shares."""
        if len(self.versions) == 1:
            return self.versions[0]
        place = random.random() if key is None else _place(f"{self.settings.name}/{key}")
        place *= sum(each.share for each in self.versions)
        for each in self.versions:
            place -= each.share
            if place < 0:
                return each
        return self.versions[-1]


def _place(key: str) -> float:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") / SHARES


class Repository:
    """All models of one worker; what stands in `opened`, by path, was opened before, and is taken as it is."""

    def __init__(self, settings: Settings, metrics: Metrics, opened: OpenedByPath | None = None) -> None:
        self.settings, self.metrics, self.opened = settings, metrics, dict(opened or {})
        self.models = {each.name: Model(each, wanted=each.load) for each in settings.models}
        self.computing = ThreadPoolExecutor(1, "computing")
        self.loading = ThreadPoolExecutor(1, "loading")
        self.splitting = ThreadPoolExecutor(1, "splitting")

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models.values())

    @property
    def ready(self) -> bool:
        """Whether every model that is wanted answers."""
        return all(each.ready for each in self if each.wanted)

    def model(self, name: str) -> Model:
        """Raises `Unknown` where there is none of that name."""
        if name not in self.models:
            raise Unknown(f"unknown model {name[:80]!r}. {nearest(name[:80], self.models)}")
        return self.models[name]

    def version(self, name: str, version: str = "", key: str | None = None) -> Version:
        """What answers a request for a model, of a version where it names one.

        Raises:
            Unknown: there is no such model or version.
            Unavailable: the model is not loaded.
        """
        model = self.model(name)
        if not model.ready:
            raise Unavailable(f"model {name!r} is not loaded{f': {model.reason}' if model.reason else ''}")
        if not version:
            return model.choose(key)
        named = {each.name: each for each in model.versions}
        if version not in named:
            raise Unknown(f"unknown version {version[:80]!r} of {name!r}. {nearest(version[:80], named)}")
        return named[version]

    async def load(self, name: str) -> None:
        """Load what stands at the paths of a model now.

        Raises:
            InputError: an artifact cannot be loaded; what was loaded before stays.
        """
        model = self.model(name)
        model.wanted = True
        model.failed.clear()
        await self._refresh(model, always=True)
        if model.reason:
            raise InputError(model.reason)

    def unload(self, name: str) -> None:
        """Answer no more requests for a model."""
        model = self.model(name)
        model.wanted, model.versions, model.shadow, model.reason = False, (), None, "unloaded"
        LOG.info("unloaded %s", name)

    async def look(self) -> None:
        """Load what is new at the paths of the models that are wanted."""
        for model in self:
            if model.wanted:
                await self._refresh(model)

    async def _refresh(self, model: Model, *, always: bool = False) -> None:
        found, reasons = [], []
        there = {each.path: each for each in model.versions}
        for each in model.settings.versions:
            current, reason = await self._current(model, each.path, each.share, there.get(each.path), always)
            found.append(current)
            reasons.append(reason)
        shadow, reason = None, ""
        if model.settings.shadow is not None:
            shadow, reason = await self._current(model, model.settings.shadow, 0.0, model.shadow, always)
        if not model.wanted:  # unloaded meanwhile
            return
        self._exchange(model, tuple(each for each in found if each is not None))
        model.shadow = shadow
        model.reason = "; ".join(filter(None, [*reasons, reason]))

    def _exchange(self, model: Model, versions: tuple[Version, ...]) -> None:
        """These answer from now on."""
        if model.versions == versions:
            return
        gone = {each.name for each in model.versions} - {each.name for each in versions}
        model.versions = versions
        for each in versions:
            self.metrics.measured(model.settings.name, each.name, each.measured)
        last = self.settings.limits.timeout_ms / 1e3 + 1  # seconds that a request which has the old one may still take
        for name in gone:
            asyncio.get_running_loop().call_later(last, self._forget, model, name)

    def _forget(self, model: Model, version: str) -> None:
        """Take the series of a version that answers no more."""
        if all(each.name != version for each in model.versions):
            self.metrics.forget(model.settings.name, version)

    async def _current(
        self, model: Model, path: Path, share: float, now: Version | None, always: bool
    ) -> tuple[Version | None, str]:
        """The version at a path: the one there is now, or a new one; and why a new one is not loaded."""
        if now is not None and not always and now.served.artifact.unchanged() and now.served.artifact.path == _at(path):
            return now, ""
        stands = _stands(path)
        before, reason = model.failed.get(path, (self, ""))
        if before == stands:
            return now, reason
        name, loop = model.settings.name, asyncio.get_running_loop()
        try:
            served, proof = await loop.run_in_executor(self.loading, self._open, path)
        except Exception as error:  # whatever stands there, the old one answers on and other models are looked at
            foreseen = isinstance(error, InputError)
            reason = str(error) if foreseen else f"{path}: cannot be loaded ({type(error).__name__})"
            model.failed[path] = stands, reason
            self.metrics.reloads.labels(name, "failed").inc()
            stays = ", the old one stays" if now else ""
            LOG.error("%s: %s is not loaded%s: %s", name, path, stays, reason, exc_info=None if foreseen else error)
            return now, reason
        model.failed.pop(path, None)
        version = self._version(name, served, path, share, proof)
        if now is not None:
            await loop.run_in_executor(self.loading, version.prepare_like, now)
        self.metrics.reloads.labels(name, "loaded").inc()
        LOG.info("loaded %s, version %s, from %s (%s)", name, served.version, path, proof)
        return version, ""

    def _open(self, path: Path) -> tuple[Served, str]:
        before = self.opened.pop(path, None)
        return before if before and before[0].artifact.unchanged() else opened(path, self.settings)

    def _version(self, name: str, served: Served, path: Path, share: float, proof: str) -> Version:
        metrics = self.metrics

        def observe(rows: int) -> None:
            metrics.at(metrics.batch, name, served.version).observe(rows)

        seen = observe if share else lambda rows: None  # a shadow's calls are nobody's requests
        call = Batcher(served.run, self.settings.batching, self.computing, seen, joins=served.joins)
        return Version(served, path, call, share, proof, self.splitting)

    def close(self) -> None:
        """Stop the threads; what they do is ended first."""
        self.computing.shutdown()
        self.loading.shutdown()
        self.splitting.shutdown(cancel_futures=True)


def opened(path: Path, settings: Settings) -> tuple[Served, str]:
    """The artifact in `path`, verified and proven, and what its golden rows said.

    Raises:
        InputError: as `load_any`; the signature is not the settings' key's; a golden row is answered otherwise.
    """
    from slimrank.runtime.golden import check_golden

    def check(artifact: Artifact) -> None:
        if settings.public_key is not None:
            verify(artifact, settings.public_key)

    served = open_served(path, settings.threads, check)
    if isinstance(served.loaded, Retriever) and served.loaded.encoding.schema.catalogue is not None:
        served.loaded.prepare()
    return served, check_golden(served.loaded)


def _at(path: Path) -> Path | None:
    try:
        return path.resolve(strict=True)
    except OSError:
        return None


def _stands(path: Path) -> Any:
    """What changes when something else stands at a path, or more of it, or its signature comes."""
    try:
        whole = path.resolve()
        files = [*whole.iterdir(), *filter(Path.exists, [whole.with_name(whole.name + SUFFIX)])]
        facts = [(each.name, each.stat()) for each in files]
    except OSError:
        return None
    return sorted((name, fact.st_ino, fact.st_mtime_ns, fact.st_size) for name, fact in facts)
