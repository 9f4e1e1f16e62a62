"""What the gateway counts and times, under the names that dashboards use."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from schemas.messages import AnsweredBy, Decision

_REQUEST_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """One gateway's metrics, in a registry of their own.

    `deadline_s` becomes a bucket edge of the request histogram, so that the share answered in time is exact.
    """

    def __init__(self, *, deadline_s: float) -> None:
        self.registry = CollectorRegistry()
        edges = tuple(sorted({*_REQUEST_BUCKETS_S, deadline_s}))
        self.request_seconds = Histogram(
            "fediwarden_gateway_request_seconds",
            "From a request's arrival to its answer, body included.",
            buckets=edges,
            registry=self.registry,
        )
        answers = Counter(
            "fediwarden_gateway_answers",
            "Answers by how they came about and what they said.",
            ("answered_by", "decision"),
            registry=self.registry,
        )
        # Looked up once here: labels() takes a lock and builds a key at each call.
        self._answers = {(by, decision): answers.labels(by, decision) for by in AnsweredBy for decision in Decision}
        self.refusals = Counter(
            "fediwarden_gateway_refusals",
            "Requests that were answered with an error instead of a decision.",
            ("code",),
            registry=self.registry,
        )
        self.over_rate = Counter(
            "fediwarden_gateway_over_rate",
            "Images that a tenant posted beyond its rate_limit: refused, or taken and judged later.",
            ("tenant", "outcome"),
            registry=self.registry,
        )
        self.clients_gone = Counter(
            "fediwarden_gateway_clients_gone",
            "Clients that hung up before their whole body was here.",
            registry=self.registry,
        )
        self.frames_seconds = Histogram(
            "fediwarden_gateway_frames_seconds",
            "From handing a file to the frame workers to having its frames, waiting included.",
            buckets=_STEP_BUCKETS_S,
            registry=self.registry,
        )
        self.publish_seconds = Histogram(
            "fediwarden_gateway_publish_seconds",
            "From publishing an image's frames to Kafka's acknowledgement.",
            buckets=_STEP_BUCKETS_S,
            registry=self.registry,
        )
        self.unreadable = Counter(
            "fediwarden_gateway_unreadable",
            "Files that could not be read as an image.",
            ("reason",),
            registry=self.registry,
        )
        self.list_matches = Counter(
            "fediwarden_gateway_list_matches",
            "Images found on a known-hash list, once for each request and list.",
            ("list", "kind", "action"),
            registry=self.registry,
        )
        self.hedges = Counter(
            "fediwarden_gateway_hedges",
            "Images published a second time because the scanner they waited for has fallen silent.",
            registry=self.registry,
        )
        self.unpublished = Counter(
            "fediwarden_gateway_scans_given_up",
            "Images that were answered for but could not be handed to Kafka.",
            registry=self.registry,
        )

    def count_answer(self, answered_by: AnsweredBy, decision: Decision, seconds: float) -> None:
        """Count one answer that took `seconds`."""
        self._answers[answered_by, decision].inc()
        self.request_seconds.observe(seconds)

    def watch(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Add the gauge ``fediwarden_gateway_<name>``, read when it is asked for."""
        Gauge(f"fediwarden_gateway_{name}", documentation, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
