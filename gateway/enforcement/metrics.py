"""What the enforcer counts, and the janitor beside it."""

from collections.abc import Callable

from prometheus_client import Counter, Gauge

from gateway.erasure.metrics import JanitorMetrics
from schemas.messages import EnforcementOutcome
from schemas.telemetry.metrics import KafkaCollector, make_registry


class EnforcerMetrics:
    """One enforcer's metrics, in a registry of their own; `janitor` are those of the janitor in the same process."""

    def __init__(self) -> None:
        self.registry = make_registry()
        self.kafka = KafkaCollector(self.registry)
        self.janitor = JanitorMetrics(self.registry)
        looks = Counter(
            "fediwarden_enforcer_looks",
            "Looks for a rejected file in pict-rs by what came of them: removed, absent, failed, ...",
            ("outcome",),
            registry=self.registry,
        )
        self.looks = {outcome: looks.labels(outcome.value) for outcome in EnforcementOutcome}
        self._open = Gauge(
            "fediwarden_enforcer_open", "Rejections whose last look has not been made.", registry=self.registry
        )
        self._overdue = Gauge(
            "fediwarden_enforcer_overdue_seconds",
            "For how long the look that is most overdue has been due; 0 while pict-rs answers.",
            registry=self.registry,
        )
        self.pict_rs_up = Gauge(
            "fediwarden_enforcer_pict_rs_up",
            "Whether the last request to a tenant's pict-rs was answered as expected.",
            ("tenant",),
            registry=self.registry,
        )

    def watch(self, count_open: Callable[[], float], overdue_s: Callable[[], float]) -> None:
        """Ask these for the gauges."""
        self._open.set_function(count_open)
        self._overdue.set_function(overdue_s)
