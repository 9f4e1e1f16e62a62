"""What the gateway counts and times, under the names that dashboards use."""

from collections.abc import Callable, Collection

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from gateway.refusals import RefusalCode
from schemas.messages import AnsweredBy, Decision
from schemas.telemetry.metrics import STEP_BUCKETS_S, KafkaCollector, make_registry

_REQUEST_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)

_GAUGES = {
    "in_flight": "Requests being answered now.",
    "in_flight_bytes": "Bytes of all bodies held now.",
    "images_in_flight": "Images that wait for a verdict.",
    "live_limit": "Images that may wait for a verdict at a time.",
    "frames_limit": "Files that may wait for their frames at a time.",
    "unpublished_bytes": "Bytes of frames in memory alone.",
    "known": "Verdicts in memory.",
    "overrides": "Overrides in memory.",
    "scanners": "Healthy scanners heard of lately.",
    "ledger_waiting": "Answers that Kafka does not have yet.",
    "partitions_avoided": "Partitions of images whose scanner is silent.",
    "spool_images": "Images on disk that wait for Kafka.",
    "spool_bytes": "Bytes of the spool on disk.",
    "spool_max_bytes": "Bytes that the spool may take (gateway.spool_max_bytes).",
    "spool_oldest_seconds": "Age of what has waited longest in the spool; 0 while it is empty.",
    "list_hashes": "Hashes of all lists in memory.",
    "lists_active": "Lists that are matched.",
    "lists_idle": "Lists that are not matched: expired, suspended, damaged.",
}


class Metrics:
    """One gateway's metrics, in a registry of their own.

    `deadline_s` becomes a bucket edge of the request histogram, so that the share answered in time is exact. `tenants`
    are those of the settings: no other name becomes a label.
    """

    def __init__(self, *, deadline_s: float, tenants: Collection[str] = ()) -> None:
        self.registry = make_registry()
        self.kafka = KafkaCollector(self.registry)
        self.deadline_seconds = Gauge(
            "fediwarden_gateway_deadline_seconds", "When a request is answered at the latest.", registry=self.registry
        )
        self.deadline_seconds.set(deadline_s)
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
        by_tenant = Counter(
            "fediwarden_gateway_tenant_answers",
            "Answers by tenant and whether the image was let in.",
            ("tenant", "accepted"),
            registry=self.registry,
        )
        self._by_tenant = {
            (tenant, accepted): by_tenant.labels(tenant, str(accepted).lower())
            for tenant in tenants
            for accepted in (True, False)
        }
        self.refusals = Counter(
            "fediwarden_gateway_refusals",
            "Requests that were answered with an error instead of a decision.",
            ("code",),
            registry=self.registry,
        )
        for code in RefusalCode:  # from 0 on, so that the first one is seen as an increase
            self.refusals.labels(code.value)
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
            buckets=STEP_BUCKETS_S,
            registry=self.registry,
        )
        self.publish_seconds = Histogram(
            "fediwarden_gateway_publish_seconds",
            "From publishing an image's frames to Kafka's acknowledgement.",
            buckets=STEP_BUCKETS_S,
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
        self.dead_letters = Counter(
            "fediwarden_gateway_dead_letters",
            "Images that were answered for and will not be judged: images.dead says why.",
            registry=self.registry,
        )
        self.unpublished = Counter(
            "fediwarden_gateway_scans_given_up",
            "Images that were answered for but could not be handed to Kafka.",
            registry=self.registry,
        )
        self._gauges = {
            name: Gauge(f"fediwarden_gateway_{name}", documentation, registry=self.registry)
            for name, documentation in _GAUGES.items()
        }

    def count_answer(
        self, answered_by: AnsweredBy, decision: Decision, seconds: float, *, tenant: str = "", accepted: bool = False
    ) -> None:
        """Count one answer that took `seconds`."""
        self._answers[answered_by, decision].inc()
        if (of_tenant := self._by_tenant.get((tenant, accepted))) is not None:
            of_tenant.inc()
        self.request_seconds.observe(seconds)

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Have the gauge ``fediwarden_gateway_<name>`` ask `read`. Raises KeyError for one that is not declared."""
        self._gauges[name].set_function(read)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
