"""Requests as spans of OpenTelemetry, in the trace that their headers name."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Where all spans of this process go; the library takes a provider once."""
    found, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    trace.set_tracer_provider(provider)
    return found


def test_a_request_is_a_span_of_the_trace_it_names(
    serving: Any, linear: Any, row: dict[str, Any], exporter: InMemorySpanExporter
) -> None:
    served = serving(linear.path)
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    answer = served.http.post("/v2/models/linear/rank", json={"candidates": [row]}, headers=headers)
    assert answer.status_code == 200
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.attributes) == ("slimrank rank", {"slimrank.model": "linear"})
    assert f"{span.context.trace_id:032x}" == TRACE
    exporter.clear()
    assert served.infer(inputs=[]).status_code == 400
    (span,) = exporter.get_finished_spans()
    assert span.name == "slimrank infer"
    assert not span.status.is_ok
