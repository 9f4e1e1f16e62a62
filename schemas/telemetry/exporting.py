"""Spans by OpenTelemetry's SDK. Imported when traces are asked for, and not before: it is an extra."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.telemetry.tracing import HEADER, Attribute, Kind, Span, is_scan_id

_KINDS = {
    "server": trace.SpanKind.SERVER,
    "internal": trace.SpanKind.INTERNAL,
    "producer": trace.SpanKind.PRODUCER,
    "consumer": trace.SpanKind.CONSUMER,
}
_PROPAGATOR = TraceContextTextMapPropagator()
_SEND_WITHIN_S = 5
_NOWHERE = contexts.Context()

_scan_id: ContextVar[str] = ContextVar("fediwarden_scan_id", default="")


class _ScanIds(RandomIdGenerator):
    """A trace has the id of the scan that it begins with."""

    def generate_trace_id(self) -> int:
        scan_id = _scan_id.get()
        return int(scan_id, 16) if scan_id else secrets.randbits(128) or 1


class OpenTelemetryTracer:
    """Makes spans that `processor` gets, of so large a part of all images. See `schemas.telemetry.tracing.span`."""

    def __init__(self, processor: SpanProcessor, sample_ratio: float, *, service: str, version: str = "") -> None:
        self._provider = TracerProvider(
            # An image's last hex digits are random: the ratio picks by them, so every service picks the same images.
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            id_generator=_ScanIds(),
            resource=Resource.create({"service.name": f"fediwarden-{service}", "service.version": version}),
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("fediwarden")

    @contextmanager
    def span(
        self, name: str, *, kind: Kind, scan_id: str, parent: str, attributes: Mapping[str, Attribute]
    ) -> Iterator[Span]:
        """As `schemas.telemetry.tracing.span`."""
        within: contexts.Context | None = None
        if parent:
            within = _PROPAGATOR.extract({HEADER: parent}, _NOWHERE)
        elif not trace.get_current_span().get_span_context().is_valid and not is_scan_id(scan_id):
            yield trace.INVALID_SPAN  # nobody would know which image it is about
            return
        token = _scan_id.set(scan_id if is_scan_id(scan_id) else "")
        try:
            made = self._tracer.start_span(name, within, _KINDS[kind], attributes=attributes)
        finally:
            _scan_id.reset(token)
        # An exception's text and traceback may name what must not leave: its type alone is told.
        with trace.use_span(made, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield made
            except Exception as error:
                made.set_status(trace.StatusCode.ERROR, type(error).__name__)
                raise

    def traceparent(self) -> str:
        """As `schemas.telemetry.tracing.current_traceparent`."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get(HEADER, "")

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        self._provider.shutdown()


def export_to(endpoint: str, sample_ratio: float, *, service: str, version: str) -> OpenTelemetryTracer:
    """A tracer whose spans go to an OTLP receiver in a thread of their own; at the end of the process the last ones."""
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_SEND_WITHIN_S)
    return OpenTelemetryTracer(BatchSpanProcessor(exporter), sample_ratio, service=service, version=version)
