"""OpenTelemetry: a trace a request, across the API and the engine, sent over OTLP. Needs the extra `otel`.

Spans are made when the answer has left, of times that are measured anyway: tracing costs a request nothing on its way.
The engine's parts are measured in its own process, and placed after one another from the moment the work was sent.
"""

from collections.abc import Callable
from typing import Any, Protocol

from app.errors import SettingsError
from app.observability.journey import Journey
from app.observability.settings import ObservabilitySettings


class Traces(Protocol):
    """Where journeys are told."""

    def tell(self, journey: Journey) -> None:
        """A request is over."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class NoTraces:
    """Nobody listens."""

    def tell(self, journey: Journey) -> None:
        """See Traces.tell."""

    def close(self) -> None:
        """See Traces.close."""


def traces_of(settings: ObservabilitySettings, *, version: str) -> Traces:
    """Traces to the settings' endpoint. Raises SettingsError when the packages are not installed."""
    if settings.traces_endpoint is None:
        return NoTraces()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.propagate import extract
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as cause:
        raise SettingsError(
            "observability.traces_endpoint needs OpenTelemetry: pip install 'tollgate[otel]', or leave it out"
        ) from cause
    sampler = ParentBased(TraceIdRatioBased(settings.traces_share))
    resource = Resource.create({"service.name": "tollgate", "service.version": version})
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.traces_endpoint)))
    return OtelTraces(provider, extract)


class OtelTraces:
    """Journeys as spans."""

    def __init__(self, provider: Any, extract: Callable[[dict[str, str]], Any]) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("tollgate")
        self._extract = extract

    def tell(self, journey: Journey) -> None:
        """See Traces.tell. The caller's `traceparent` is the parent."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        carried = {"traceparent": journey.traceparent or "", "tracestate": journey.tracestate or ""}
        fields = journey.fields()
        root = self._tracer.start_span(
            f"{journey.method} {journey.route}", context=self._extract(carried), kind=SpanKind.SERVER,
            start_time=journey.began_ns, attributes=attributes_of(journey),
        )  # fmt: skip
        if journey.status >= 500:
            root.set_status(Status(StatusCode.ERROR))
        context = set_span_in_context(root)
        for name, start_s, seconds in parts_of(journey):
            start_ns = journey.began_ns + int(start_s * 1e9)
            span = self._tracer.start_span(name, context=context, start_time=start_ns)
            span.end(end_time=start_ns + int(seconds * 1e9))
        root.end(end_time=journey.began_ns + int(fields["duration_ms"] * 1e6))

    def close(self) -> None:
        """See Traces.close."""
        self._provider.shutdown()


def attributes_of(journey: Journey) -> dict[str, str | int]:
    """Names of the semantic conventions for HTTP and generative AI, where there are some."""
    found: dict[str, str | int] = {
        "http.request.method": journey.method, "http.route": journey.route,
        "http.response.status_code": journey.status, "tollgate.request_id": journey.request_id,
    }  # fmt: skip
    if (run := journey.watched) is not None:
        found |= {
            "gen_ai.operation.name": journey.task or "", "gen_ai.request.model": journey.model or "",
            "gen_ai.usage.input_tokens": run.input_tokens, "gen_ai.usage.output_tokens": run.output_tokens,
            "tollgate.tenant": journey.tenant or "", "tollgate.outcome": run.outcome,
        }  # fmt: skip
    return found


def parts_of(journey: Journey) -> list[tuple[str, float, float]]:
    """Name, begin after the request's, and length in seconds of each part that it came to."""
    run = journey.watched
    if run is None or run.submitted_s is None:
        return []
    sent_s = run.submitted_s - journey.began_s
    parts = [("admission", 0.0, sent_s), ("queue", sent_s, run.queue_s)]
    parts.append(("prefill", sent_s + run.queue_s, run.prefill_s))
    if run.decode_s:
        parts.append(("decode", sent_s + run.queue_s + run.prefill_s, run.decode_s))
    if journey.settle_began_s is not None:
        parts.append(("settle", journey.settle_began_s - journey.began_s, journey.settle_s))
    return parts
