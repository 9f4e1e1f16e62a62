"""Spans: one trace for one image, whoever begins it; nothing of OpenTelemetry when it is off."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from schemas.telemetry import tracing
from schemas.telemetry.exporting import OpenTelemetryTracer

SCAN_ID = "0193a1b2c3d4" + "5f" * 10


def tracer_into(exporter: InMemorySpanExporter, sample_ratio: float = 1.0) -> OpenTelemetryTracer:
    return OpenTelemetryTracer(SimpleSpanProcessor(exporter), sample_ratio, service="test")


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    with tracing.traced_by(tracer_into(exporter)):
        yield exporter


def trace_of(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


def test_the_trace_of_an_image_has_the_id_of_its_scan(exported: InMemorySpanExporter) -> None:
    with tracing.span("scan", kind="server", scan_id=SCAN_ID), tracing.span("frames", count=2):
        pass
    inner, outer = exported.get_finished_spans()
    assert {trace_of(inner), trace_of(outer)} == {SCAN_ID}
    assert inner.parent is not None and inner.parent.span_id == outer.context.span_id
    assert outer.parent is None
    assert dict(inner.attributes or {}) == {"fediwarden.count": 2}


def test_it_goes_on_in_another_process_by_the_header(exported: InMemorySpanExporter) -> None:
    with tracing.span("scan", scan_id=SCAN_ID):
        header = tracing.current_traceparent()
    assert tracing.is_traceparent(header) and header[3:35] == SCAN_ID
    with tracing.span("judge", kind="consumer", scan_id=SCAN_ID, parent=header):
        pass
    scan, judge = exported.get_finished_spans()
    assert judge.parent is not None and judge.parent.span_id == scan.context.span_id
    assert trace_of(judge) == SCAN_ID


def test_without_a_header_or_with_that_of_another_image_it_is_still_its_own_trace(
    exported: InMemorySpanExporter,
) -> None:
    another = f"00-{'ab' * 16}-{'cd' * 8}-01"
    for parent in ("", "nonsense", another):
        with tracing.span("judge", scan_id=SCAN_ID, parent=parent):
            pass
    assert {trace_of(span) for span in exported.get_finished_spans()} == {SCAN_ID}


def test_what_belongs_to_no_image_is_not_traced(exported: InMemorySpanExporter) -> None:
    with tracing.span("frames"):
        assert tracing.current_traceparent() == ""
    assert exported.get_finished_spans() == ()


def test_an_error_is_told_by_its_type_alone(exported: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="secret"), tracing.span("scan", scan_id=SCAN_ID):
        raise ValueError("https://example.org/secret.png")
    (span,) = exported.get_finished_spans()
    assert "example.org" not in span.to_json()
    assert span.status.description == "ValueError"


def test_every_service_samples_the_same_images() -> None:
    scan_ids = [f"0193a1b2c3d4{number * 0x9E3779B97F4A7C15 % 2**80:020x}" for number in range(1, 201)]

    def sampled() -> set[str]:
        exporter = InMemorySpanExporter()
        with tracing.traced_by(tracer_into(exporter, 0.25)):
            for scan_id in scan_ids:
                with tracing.span("judge", scan_id=scan_id):
                    pass
        return {trace_of(span) for span in exporter.get_finished_spans()}

    first = sampled()
    assert 20 < len(first) < 80
    assert sampled() == first


def test_when_it_is_off_neither_sdk_nor_exporter_is_imported() -> None:
    code = (  # (FastAPI looks by itself whether OpenTelemetry's API is there)
        "import sys\n"
        "import gateway.service, gateway.enforcement.service, scanner.service, federation_audit.recording.service\n"
        "from schemas.telemetry import tracing\n"
        "tracing.configure_tracing(tracing.TracingSettings(), service='gateway')\n"
        f"with tracing.span('scan', scan_id={SCAN_ID!r}) as span:\n"
        "    span.set_attribute('a', 1)\n"
        "    assert tracing.current_traceparent() == ''\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "schemas.telemetry.exporting", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    settings = tracing.TracingSettings(endpoint="http://127.0.0.1:4318/v1/traces")
    with pytest.raises(tracing.TracingUnavailable, match=r"fediwarden\[tracing\]"):
        tracing.configure_tracing(settings, service="gateway")
