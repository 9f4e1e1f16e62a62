"""What the recorder counts."""

from prometheus_client import Counter, Gauge

from schemas.telemetry.metrics import make_registry


class RecorderMetrics:
    """One recorder's metrics, in a registry of their own. One that waits for the store's lease counts nothing."""

    def __init__(self) -> None:
        self.registry = make_registry()
        self.records = Counter(
            "fediwarden_recorder_records",
            "Records that are in the store, by topic.",
            ("topic",),
            registry=self.registry,
        )
        self.unreadable = Counter(
            "fediwarden_recorder_unreadable",
            "Records that could not be read, by reason; they are passed over.",
            ("reason",),
            registry=self.registry,
        )
        self.recording = Gauge(
            "fediwarden_recorder_active",
            "Whether this process has the store's lease, and writes.",
            registry=self.registry,
        )
        self.lag = Gauge(
            "fediwarden_recorder_lag_records",
            "Records that the topics have and the store has not; -1 while Kafka does not say.",
            registry=self.registry,
        )
        self.written_at = Gauge(
            "fediwarden_recorder_last_write_timestamp_seconds",
            "When it last wrote into the store, which it does every second or two.",
            registry=self.registry,
        )
