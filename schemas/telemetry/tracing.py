"""One image, one trace: spans of every service under the id of its scan.

A scan id is 32 hexadecimal digits, which is what a trace id is: an image's trace has the id that its log lines, its
answer and its verdict carry, whoever begins it, and also where it has waited on a disk in between. Which span led to
which travels in the ``traceparent`` header of Kafka records (W3C Trace Context).

Off until `configure_tracing`: then OpenTelemetry's SDK (the extra ``fediwarden[tracing]``) is imported, and not before.
Spans carry sizes, counts and decisions: no addresses, no names, no hashes, nothing of a picture.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from schemas.extras import install_command

HEADER = "traceparent"
Kind = Literal["server", "internal", "producer", "consumer"]
Attribute = str | bool | int | float

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SCAN_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")


class TracingSettings(BaseModel):
    """Traces of single images through all services (docs/monitoring.md); needs the extra `fediwarden[tracing]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Where spans go: an OTLP receiver over HTTP, such as `http://127.0.0.1:4318/v1/traces`."
        " Unset: no traces, and nothing of OpenTelemetry is loaded.",
    )
    sample_ratio: float = Field(
        1.0, ge=0.0, le=1.0, description="The part of all images that is traced; the same images in every service."
    )


class TracingUnavailable(Exception):
    """Traces are asked for and OpenTelemetry is not installed; the message says what to do."""


class Span(Protocol):
    """What is told of a step while it goes on."""

    def set_attribute(self, key: str, value: Attribute) -> Any:
        """Note one fact."""


class _NoSpan:
    def set_attribute(self, key: str, value: Attribute) -> None:
        """Nobody listens."""


_NO_SPAN: Span = _NoSpan()
_OFF: AbstractContextManager[Span] = nullcontext(_NO_SPAN)
_tracer: "Tracer | None" = None


class Tracer(Protocol):
    """Makes spans; `schemas.telemetry.exporting` has the one there is."""

    def span(
        self, name: str, *, kind: Kind, scan_id: str, parent: str, attributes: Mapping[str, Attribute]
    ) -> AbstractContextManager[Span]:
        """As `span` of this module."""

    def traceparent(self) -> str:
        """As `current_traceparent` of this module."""

    def close(self) -> None:
        """Send what is left."""


def span(
    name: str, *, kind: Kind = "internal", scan_id: str = "", parent: str = "", **attributes: Attribute
) -> AbstractContextManager[Span]:
    """A step of an image's way, for the time of the context.

    It belongs to the step that `parent` names, a ``traceparent``, where that is of the same image; else to the one that
    is under way in this task; else it is the first of the trace of `scan_id`. What is none of these is not traced.
    """
    if _tracer is None:
        return _OFF
    if not is_traceparent(parent) or (scan_id and parent[3:35] != scan_id and _SCAN_ID.fullmatch(scan_id)):
        parent = ""
    named = {f"fediwarden.{key}": value for key, value in attributes.items()}
    return _tracer.span(name, kind=kind, scan_id=scan_id, parent=parent, attributes=named)


def current_traceparent() -> str:
    """The step that is under way in this task, for the header of what it publishes; "" where there is none."""
    return "" if _tracer is None else _tracer.traceparent()


def is_traceparent(text: str) -> bool:
    """Whether `text` is a ``traceparent`` that can be gone on from."""
    return _TRACEPARENT.fullmatch(text) is not None


def is_scan_id(text: str) -> bool:
    """Whether a trace can have this scan id as its own."""
    return _SCAN_ID.fullmatch(text) is not None


def configure_tracing(settings: TracingSettings, *, service: str, version: str = "") -> None:
    """Trace from now on, if `settings` say so. `service` is the process's part (gateway, scanner).

    Raises `TracingUnavailable` where it is asked for and cannot be.
    """
    if settings.endpoint is None:
        return
    try:
        from schemas.telemetry.exporting import export_to
    except ImportError as error:
        raise TracingUnavailable(
            f"tracing.endpoint is set and OpenTelemetry is not installed ({error.name}): {install_command('tracing')},"
            " or unset tracing.endpoint"
        ) from error
    use_tracer(export_to(settings.endpoint, settings.sample_ratio, service=service, version=version))


def use_tracer(tracer: Tracer | None) -> None:
    """Make spans with `tracer` from now on; with none, make no more. What was in use sends what is left."""
    global _tracer
    before, _tracer = _tracer, tracer
    if before is not None:
        before.close()


@contextmanager
def traced_by(tracer: Tracer) -> Iterator[None]:
    """Make spans with `tracer` within the context."""
    use_tracer(tracer)
    try:
        yield
    finally:
        use_tracer(None)
