"""What the relay counts."""

from collections.abc import Callable
from enum import StrEnum

from prometheus_client import Counter, Gauge, generate_latest

from schemas.telemetry.metrics import KafkaCollector, make_registry

_GAUGES = {"origins_waiting": "Origins that Kafka does not have yet."}


class Outcome(StrEnum):
    """How a request ended.

    broken: pict-rs hung up in the middle of its answer; unreachable: it gave none; refused: it was no HTTP/1.1 that
    could be passed on.
    """

    PASSED = "passed"
    CLIENT_GONE = "client_gone"
    BROKEN = "broken"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


class RelayMetrics:
    """One relay's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = make_registry()
        self.kafka = KafkaCollector(self.registry)
        requests = Counter(
            "fediwarden_relay_requests", "Requests by how they ended.", ("outcome",), registry=self.registry
        )
        self.requests = {outcome: requests.labels(outcome) for outcome in Outcome}
        self.published = Counter("fediwarden_relay_origins", "Origins that Kafka has.", registry=self.registry)
        self.dropped = Counter(
            "fediwarden_relay_origins_dropped",
            "Origins forgotten because too many waited for Kafka, or because it never takes them.",
            registry=self.registry,
        )
        rejections = Counter(
            "fediwarden_relay_rejections",
            "Rejected images by whether it could be told which answer was theirs.",
            ("matched",),
            registry=self.registry,
        )
        self.rejections = {matched: rejections.labels(str(matched).lower()) for matched in (True, False)}
        self._gauges = {
            name: Gauge(f"fediwarden_relay_{name}", documentation, registry=self.registry)
            for name, documentation in _GAUGES.items()
        }

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Have the gauge ``fediwarden_relay_<name>`` ask `read`. Raises KeyError for one that is not declared."""
        self._gauges[name].set_function(read)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
