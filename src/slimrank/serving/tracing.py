"""Spans of OpenTelemetry around requests, where it is installed; else nothing.

Which exporter gets them is the process's own setting (`opentelemetry-instrument`, `OTEL_...`). A request that names the
span it belongs to (`traceparent`) becomes a part of that trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any


@cache
def _library() -> Any:
    try:
        from opentelemetry import propagate, trace
    except ModuleNotFoundError:
        return None
    return trace, propagate


def span(kind: str, model: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
    """A span for one request of a model."""
    library = _library()
    if library is None:
        return nullcontext()
    trace, propagate = library
    found: AbstractContextManager[Any] = trace.get_tracer("slimrank.serving").start_as_current_span(
        f"slimrank {kind}",
        context=propagate.extract(headers),
        kind=trace.SpanKind.SERVER,
        attributes={"slimrank.model": model[:128]},
    )
    return found
