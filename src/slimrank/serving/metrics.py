"""What a service tells Prometheus: requests, stages, queue, batches, unknown values, scores and their drift.

With several workers the figures of all of them are added up (the library's multiprocess mode, in a folder that the
first process makes); with one they stand in a registry of the application's own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from slimrank.metrics.drift import BINS, histogram, population_stability_index

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ROWS = (1, 4, 16, 64, 256, 1024, 4096)
DIFFERENCES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
Family = TypeVar("Family", Counter, Gauge, Histogram)
FADES = 1e5  # scores after which what was seen before counts for 1/e in the drift


class Metrics:
    """The metrics of one worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by how they ended.", "model", "version", "kind", "code")
        self.seconds = self._histogram(
            "request_seconds", "From the first byte to the answer.", SECONDS, "model", "kind"
        )
        self.stage = self._histogram("stage_seconds", "Parts of a request.", SECONDS, "model", "version", "stage")
        self.rows = self._histogram("request_rows", "Rows or candidates of a request.", ROWS, "model")
        self.batch = self._histogram("batch_rows", "Rows of a call of the graph.", ROWS, "model", "version")
        self.shed = self._counter("shed", "Requests that found no room.")
        self.unknown = self._counter(
            "unknown_values",
            "Values that the vocabulary does not hold, by rows: of a field that is shared for each candidate.",
            "model",
            "field",
        )
        self.shortened = self._counter(
            "shortened_values", "Histories and texts longer than is read, by rows.", "model", "field"
        )
        self.values = self._counter("values", "Rows whose fields were encoded.", "model")
        self.scores = self._counter("scores", "Predicted probabilities, by the lower end of their bin.", "model", "bin")
        self.drift = self._gauge(
            "score_drift", "Population stability index of scores against the artifact's own.", "model", "version"
        )
        field = "model", "version", "field"
        self.unknown_then = self._gauge(
            "unknown_values_reference", "unknown_values / values where the artifact was measured.", *field
        )
        self.shortened_then = self._gauge(
            "shortened_values_reference", "shortened_values / values where the artifact was measured.", *field
        )
        self.shadow = self._histogram(
            "shadow_difference", "Largest difference of a request's scores to the shadow's.", DIFFERENCES, "model"
        )
        self.unshadowed = self._counter("unshadowed", "Requests that the shadow was not asked.", "model")
        self.reloads = self._counter("reloads", "Versions that were tried, by how it ended.", "model", "outcome")
        self.seen: dict[tuple[str, str], NDArray[np.float64]] = {}
        self.fresh: dict[tuple[str, str], tuple[NDArray[np.int64], NDArray[np.float64] | None]] = {}
        self._bound: dict[tuple[Any, ...], Any] = {}

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"slimrank_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"slimrank_{name}", what, labels, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"slimrank_{name}", what, labels, registry=self.registry, multiprocess_mode="mostrecent")

    def at(self, metric: Family, *labels: str) -> Family:
        """The metric of those labels; the library's own look-up takes ten times as long."""
        key = (metric, *labels)
        found = self._bound.get(key)
        if found is None:
            found = self._bound[key] = metric.labels(*labels)
        return found

    def answered(self, model: str, version: str, kind: str, seconds: float, stages: Mapping[str, float]) -> None:
        """A request of `kind` was answered, and how long its stages took."""
        self.at(self.requests, model, version, kind, "ok").inc()
        self.at(self.seconds, model, kind).observe(seconds)
        for stage, taken in stages.items():
            self.at(self.stage, model, version, stage).observe(taken)

    def scored(
        self, model: str, version: str, probability: NDArray[np.float32], reference: NDArray[np.float64] | None
    ) -> None:
        """Probabilities were given by a version; `reference` is the histogram of its own, or None."""
        before = self.fresh.get((model, version))
        counts = histogram(probability)
        self.fresh[model, version] = (counts if before is None else before[0] + counts), reference

    def settle(self) -> None:
        """Tell the library of the scores since the last time: some forty numbers, which no request need wait for."""
        fresh, self.fresh = self.fresh, {}
        for (model, version), (counts, reference) in fresh.items():
            for place in np.flatnonzero(counts):
                self.at(self.scores, model, f"{BINS[place]:.6f}").inc(int(counts[place]))
            seen = self.seen.get((model, version), np.zeros(len(counts)))
            self.seen[model, version] = seen = seen * np.exp(-counts.sum() / FADES) + counts
            if reference is not None:
                self.at(self.drift, model, version).set(population_stability_index(reference, seen))

    def measured(self, model: str, version: str, reference: Mapping[str, Any]) -> None:
        """A version answers from now on whose manifest has this `reference`; what is none of it is left out."""
        for gauge, found in (
            (self.unknown_then, reference.get("unknown")),
            (self.shortened_then, reference.get("shortened")),
        ):
            for field, by_row in found.items() if isinstance(found, Mapping) else ():
                if isinstance(by_row, int | float):
                    self.at(gauge, model, version, field).set(by_row)

    def encoded(self, model: str, rows: int, unknown: Mapping[str, int], shortened: Mapping[str, int]) -> None:
        """Raw rows were encoded, and by field how many of their values were unknown and how many too long."""
        self.at(self.values, model).inc(rows)
        for counter, counts in ((self.unknown, unknown), (self.shortened, shortened)):
            for field, count in counts.items():
                if count:
                    counter.labels(model, field).inc(count)

    def forget(self, model: str, version: str) -> None:
        """A version answers no more: its series go. Of several workers they stay, as the library cannot take them."""
        self.settle()
        self.seen.pop((model, version), None)
        gone = [key for key in self._bound if key[1:3] == (model, version)]
        for key in gone:
            metric, *labels = key
            del self._bound[key]
            if FOLDER not in os.environ:
                metric.remove(*labels)

    def together(self) -> CollectorRegistry:
        """What all workers have counted; of the scores of others, what they have settled."""
        self.settle()
        if FOLDER not in os.environ:
            return self.registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return registry

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return bytes(generate_latest(self.together()))
