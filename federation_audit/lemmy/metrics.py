"""What the process that asks Lemmy's database counts."""

from prometheus_client import Counter, Gauge

from schemas.telemetry.metrics import KafkaCollector, make_registry


class LemmyMetrics:
    """One process's metrics, in a registry of their own; the tenants are those of the settings."""

    def __init__(self) -> None:
        self.registry = make_registry()
        self.kafka = KafkaCollector(self.registry)
        self.looked = Counter(
            "fediwarden_lemmy_looks",
            "Images that were looked for, once each time.",
            ("tenant",),
            registry=self.registry,
        )
        self.found = Counter(
            "fediwarden_lemmy_found", "Looks that found where the image is.", ("tenant",), registry=self.registry
        )
        self.waiting = Gauge(
            "fediwarden_lemmy_waiting", "Images that are still looked for.", ("tenant",), registry=self.registry
        )
        self.database_up = Gauge(
            "fediwarden_lemmy_database_up",
            "Whether the tenant's database answered when it was last asked.",
            ("tenant",),
            registry=self.registry,
        )
