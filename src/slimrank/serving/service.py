"""What a request gets, whichever way it came: checked, answered by a version of its model, measured.

HTTP and gRPC read and write; between them stands this, so that both give the same answers and count the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimrank.config import InputError
from slimrank.runtime import Graph, Predictions, Retriever, sigmoid
from slimrank.runtime import Model as Scorer
from slimrank.serving.batching import TooLate
from slimrank.serving.bounds import check_rows
from slimrank.serving.control import Control
from slimrank.serving.gate import Gate, Overloaded, Stopwatch
from slimrank.serving.metrics import Metrics
from slimrank.serving.protocol import Unsayable
from slimrank.serving.ranking import Ranking, find, first_places
from slimrank.serving.repository import OpenedByPath, Repository, Unavailable, Version
from slimrank.serving.served import Arrays
from slimrank.serving.settings import Settings
from slimrank.serving.tracing import span

LOG = logging.getLogger("slimrank.serving")
Decode = Callable[[Version], tuple[Arrays, list[str]]]


class Failed(Exception):
    """Something that nobody foresaw went wrong; what it was is in the log, and tells a client nothing."""


FORESEEN = (InputError, TooLate, Unavailable, Overloaded, Unsayable)


@dataclass(frozen=True)
class Asked:
    """What every request says, whichever way it came.

    Attributes:
        model: the name of a model.
        version: of it, "" for any.
        id: the caller's own name for the request; the same is answered by the same version, where there are several.
        until: when it is given up, of `time.perf_counter`.
    """

    model: str
    version: str
    id: str | None
    until: float


class Service:
    """One worker's models behind one gate.

    `folder` is what it shares with other workers, None where there are none; `opened` are artifacts that are open.
    """

    def __init__(self, settings: Settings, folder: Path | None = None, opened: OpenedByPath | None = None) -> None:
        self.settings, self.metrics, self.gate = settings, Metrics(), Gate(settings.limits)
        self.repository = Repository(settings, self.metrics, opened)
        self.control = Control(self.repository, folder)
        self.comparing: set[asyncio.Task[None]] = set()

    def until(self, watch: Stopwatch, seconds: float | None = None) -> float:
        """When a request is given up: by the service's limit from its first byte on, or so many seconds from now."""
        limit = watch.begun + self.settings.limits.timeout_ms / 1e3
        return limit if seconds is None else min(limit, time.perf_counter() + max(0.0, seconds))

    @asynccontextmanager
    async def request(
        self, kind: str, model: str, watch: Stopwatch, headers: Mapping[str, str]
    ) -> AsyncIterator[dict[str, str]]:
        """Around the work of one request: its place at the gate, and what is counted of it.

        `headers` may name the trace that it belongs to. The version that answers is to be put into what this yields, as
        `version`.
        """
        told = {"version": ""}
        known = model if model in self.repository.models else ""  # what a client makes up is no label
        try:
            async with self.gate.room(known):
                watch.lap("wait")
                with span(kind, model, headers):
                    yield told
        except Overloaded:
            self.metrics.shed.inc()
            raise
        except BaseException as error:
            self.gate.learn(known, watch.worked)
            self.metrics.requests.labels(known, told["version"], kind, _code(error)).inc()
            if isinstance(error, (*FORESEEN, asyncio.CancelledError)):
                raise
            LOG.exception("%s of %s failed", kind, model[:80])
            raise Failed from error
        self.gate.learn(known, watch.worked)
        _soon(self.metrics.answered, model, told["version"], kind, watch.last - watch.begun, watch.stages)

    async def infer(
        self, asked: Asked, decode: Decode, watch: Stopwatch, told: dict[str, str]
    ) -> tuple[Version, Arrays, list[str]]:
        """The arrays that a model answers with, and which of them are asked for.

        Args:
            asked: what every request says.
            watch: learns of the stages.
            told: learns of the version, as what `request` yields.
            decode: reads the arrays of the request, and the outputs it asks for, by what the version takes.

        Raises:
            Unknown, Unavailable, TooLate, InputError: as they say.
        """
        version = self._chosen(asked, told)
        arrays, outputs = decode(version)
        version.served.check(arrays)
        rows = version.served.count(arrays)
        watch.lap("parse")
        answers = await version.call(arrays, rows, asked.until, watch)
        watch.lap("queue")  # until those that were answered before it had let go
        _soon(self.metrics.at(self.metrics.rows, asked.model).observe, rows)
        _soon(self._score, asked.model, version, answers)
        _soon(self._shadow, asked, answers, lambda shadow: _by_tensors(shadow, arrays, asked.until))
        return version, answers, outputs

    def _chosen(self, asked: Asked, told: dict[str, str]) -> Version:
        version = self.repository.version(asked.model, asked.version, asked.id)
        told["version"] = version.name
        return version

    async def rank(
        self, asked: Asked, ranking: Ranking, watch: Stopwatch, told: dict[str, str]
    ) -> tuple[Version, dict[str, Any]]:
        """The answer to a ranking request, but for its names; `told` learns of the version.

        Raises:
            Unknown, Unavailable, TooLate, InputError: as they say.
        """
        version = self._chosen(asked, told)
        loaded = version.served.loaded
        if isinstance(loaded, Graph):
            raise InputError(f"{asked.model!r} is asked by tensors, not by rows: POST /v2/models/{asked.model}/infer")
        if isinstance(loaded, Retriever):
            if ranking.candidates is None and loaded.encoding.schema.catalogue is not None:
                check_rows(min(ranking.k or 0, loaded.count), self.settings.limits.max_rows)
            found = await version.call.alone(lambda: find(loaded, ranking), max(1, ranking.count), asked.until, watch)
            watch.lap("queue")
            _soon(self._count_found, asked, ranking, found)
            return version, found
        predictions = await self._predict(version, ranking, asked.until, watch)
        if not np.isfinite(predictions.probability).all():
            raise Unsayable("a probability is NaN, which JSON cannot say")
        _soon(self._count_scored, asked, ranking, version, predictions)
        return version, _answer(predictions, ranking.k)

    def _count_found(self, asked: Asked, ranking: Ranking, found: Mapping[str, Any]) -> None:
        """What is counted of a query that found items."""
        self.metrics.at(self.metrics.rows, asked.model).observe(max(1, ranking.count))
        self.metrics.encoded(asked.model, 1, found["unknown"], found["shortened"])
        self._shadow(asked, {"": _scores_of(found)}, partial(_find_again, ranking=ranking, until=asked.until))

    def _count_scored(self, asked: Asked, ranking: Ranking, version: Version, predictions: Predictions) -> None:
        """What is counted of candidates that were scored."""
        self.metrics.at(self.metrics.rows, asked.model).observe(ranking.count)
        counts = (_by_candidate(each, version, ranking) for each in (predictions.unknown, predictions.shortened))
        self.metrics.encoded(asked.model, ranking.count, *counts)
        self._scored(asked.model, version, predictions.probability)
        self._shadow(asked, {"": predictions.probability}, lambda shadow: self._again(shadow, ranking, asked.until))

    async def _predict(self, version: Version, ranking: Ranking, until: float, watch: Stopwatch) -> Predictions:
        """Probabilities of the candidates; what they share is looked up and multiplied once."""
        loaded = version.served.loaded
        assert isinstance(loaded, Scorer)
        if ranking.candidates is None:
            raise InputError('"candidates" is missing: a list of rows, or an object of columns')
        if ranking.shared and ranking.count:
            shared, candidates = ranking.shared, ranking.candidates
            scorer = version.shared
            predicted = partial(scorer.predict, shared, candidates)
            found = await version.call.alone(predicted, ranking.count, until, watch)
            watch.lap("queue")
            return found
        rows = [] if ranking.shared else ranking.candidates  # nothing that is shared by nobody is looked at
        inputs, unknown, shortened = loaded.encoder(rows)
        arrays = {name: getattr(inputs, name) for name in version.served.inputs}
        version.served.check(arrays)
        watch.lap("encode")
        answers = await version.call(arrays, len(inputs), until, watch)
        watch.lap("queue")
        return Predictions(sigmoid(answers["logit"]), unknown, shortened)

    def _score(self, model: str, version: Version, answers: Arrays) -> None:
        if isinstance(version.served.loaded, Scorer):
            self._scored(model, version, sigmoid(answers["logit"]))

    def _scored(self, model: str, version: Version, probability: NDArray[np.float32]) -> None:
        """Count probabilities; one that is none is a fault of the model and told by who answers."""
        probability = probability[np.isfinite(probability)]
        self.metrics.scored(model, version.name, probability, version.reference)

    def _shadow(self, asked: Asked, answers: Arrays, again: Callable[[Version], Any]) -> None:
        """Ask the shadow the same: one request at a time, and none while others would wait for it."""
        shadow = self.repository.models[asked.model].shadow
        if shadow is None:
            return
        if self.comparing or 2e3 * self.gate.work > self.settings.limits.max_wait_ms:
            self.metrics.at(self.metrics.unshadowed, asked.model).inc()
            return
        task = asyncio.get_running_loop().create_task(self._compare(asked.model, shadow, answers, again))
        self.comparing.add(task)
        task.add_done_callback(self.comparing.discard)

    async def _compare(self, model: str, shadow: Version, answers: Arrays, again: Callable[[Version], Any]) -> None:
        try:
            others: Arrays = await again(shadow)
            pairs = [(answers[name], others[name]) for name in answers if name in others]
            differences = [float(np.abs(a - b).max()) for a, b in pairs if a.shape == b.shape and a.size]
        except Exception as error:  # whatever it is, it is the shadow's alone
            LOG.warning("%s: the shadow %s does not answer: %s", model, shadow.path, error)
            return
        if differences:
            self.metrics.shadow.labels(model).observe(max(differences))

    async def _again(self, shadow: Version, ranking: Ranking, until: float) -> Arrays:
        if not isinstance(shadow.served.loaded, Scorer):
            raise InputError("it does not score rows")
        return {"": (await self._predict(shadow, ranking, until, Stopwatch())).probability}


def _soon(count: Callable[..., object], *arguments: Any) -> None:
    """Count something when the answer has been written: it takes a tenth of a millisecond that nobody needs to wait."""
    asyncio.get_running_loop().call_soon(count, *arguments)


async def _find_again(shadow: Version, ranking: Ranking, until: float) -> Arrays:
    loaded = shadow.served.loaded
    if not isinstance(loaded, Retriever):
        raise InputError("it does not find items")
    found = await shadow.call.alone(lambda: find(loaded, ranking), max(1, ranking.count), until, Stopwatch())
    return {"": _scores_of(found)}


def _scores_of(found: Mapping[str, Any]) -> NDArray[np.float64]:
    """The scores that a finder answered with; of an item that it does not know 0."""
    return np.array([score or 0.0 for score in found["score"]], np.float64)


async def _by_tensors(shadow: Version, arrays: Arrays, until: float) -> Arrays:
    shadow.served.check(arrays)
    return await shadow.call(arrays, shadow.served.count(arrays), until, Stopwatch())


def _by_candidate(counts: Mapping[str, int], version: Version, ranking: Ranking) -> Mapping[str, int]:
    """Counts as they were if candidates shared nothing, as where the artifact was measured."""
    if not ranking.shared or not any(counts.values()):
        return counts
    once = version.shared.fields_of(ranking.shared)
    return {name: count * ranking.count if name in once else count for name, count in counts.items()}


def _answer(predictions: Predictions, k: int | None) -> dict[str, Any]:
    told = {"unknown": predictions.unknown, "shortened": predictions.shortened}
    if k is None:
        return {"probability": predictions.probability.tolist(), **told}
    first = first_places(predictions.probability, k)
    return {"top": first.tolist(), "probability": predictions.probability[first].tolist(), **told}


def _code(error: BaseException) -> str:
    """How a request ended, as a label."""
    kinds = {InputError: "refused", TooLate: "late", Unavailable: "unavailable", asyncio.CancelledError: "cancelled"}
    return next((name for kind, name in kinds.items() if isinstance(error, kind)), "failed")
