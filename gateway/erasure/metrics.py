"""What the janitor sees of the lanes: how far each scanner group is, and for how long the oldest image has waited."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from schemas.broker import Partition


class JanitorMetrics:
    """The janitor's metrics, made anew at every pass."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.erased = Counter(
            "fediwarden_janitor_erased_records", "Judged images that were deleted from the lanes.", registry=registry
        )
        self.failures = Gauge(
            "fediwarden_janitor_failures",
            "Partitions, topics and groups that the last pass failed at.",
            registry=registry,
        )
        self.passed_at = Gauge(
            "fediwarden_janitor_last_pass_timestamp_seconds", "When the last pass ended.", registry=registry
        )
        self._lag = Gauge(
            "fediwarden_lane_lag_records",
            "Images of a lane that a scanner group is not done with, whether or not a scanner runs.",
            ("group", "topic", "partition"),
            registry=registry,
        )
        self._oldest = Gauge(
            "fediwarden_lane_oldest_seconds",
            "Age of the oldest image in a lane that a scanner group is not done with; 0 for none.",
            ("group", "topic"),
            registry=registry,
        )
        self._shown: set[tuple[str, ...]] = set()

    def show_lanes(self, lags: Mapping[tuple[str, Partition], int], oldest_s: Mapping[tuple[str, str], float]) -> None:
        """Show what a pass saw: by group and partition, and by group and topic. Groups that are gone are left out."""
        lag_of = {(group, place.topic.name, str(place.number)): lag for (group, place), lag in lags.items()}
        for labels, lag in lag_of.items():
            self._lag.labels(*labels).set(lag)
        for labels_of_age, age_s in oldest_s.items():
            self._oldest.labels(*labels_of_age).set(age_s)
        for gone in self._shown - lag_of.keys() - oldest_s.keys():
            (self._lag if len(gone) == 3 else self._oldest).remove(*gone)
        self._shown = {*lag_of, *oldest_s}
