"""Spans of OpenTelemetry around requests, where it is installed; else nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any


@cache
def _tracer() -> Any:
    try:
        from opentelemetry import trace
    except ModuleNotFoundError:
        return None
    return trace.get_tracer("slimrank.serving")


def span(kind: str, model: str) -> AbstractContextManager[Any]:
    """A span for one request of a model; which exporter gets it is the process's own setting (`OTEL_...`)."""
    tracer = _tracer()
    if tracer is None:
        return nullcontext()
    span: AbstractContextManager[Any] = tracer.start_as_current_span(
        f"slimrank {kind}", attributes={"slimrank.model": model[:128]}
    )
    return span
