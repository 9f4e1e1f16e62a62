"""How far the rescan at work is, in Prometheus' words."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from federation_audit.rescans.watching import IDLE_AFTER_MS, RescanWatch
from schemas.clock import now_ms

_LABELS = ("rescan", "tier")
_GAUGES = {
    "records_done": "Records of a rescan's spans that are judged.",
    "records_left": "Records of a rescan's spans that are not judged yet.",
    "rate": "Records a second, over the last half minute.",
    "seconds_left": "Seconds that the rest takes at that rate.",
}


class RescanCollector(Collector):
    """The gauges ``fediwarden_rescan_...`` of the rescan that is being judged. Without one, or where Kafka has not told
    for a minute, there are none: a number that nobody knows is left out."""

    def __init__(self, watch: RescanWatch, *, clock: Callable[[], int] = now_ms) -> None:
        self._watch = watch
        self._clock = clock

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The gauges, without a sample."""
        return make_gauges()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Each gauge, with its one sample at most."""
        seen = self._watch.seen
        progress = seen.progress if seen is not None else None
        if seen is None or progress is None or self._clock() - progress.at_ms >= IDLE_AFTER_MS:
            return
        labels = (seen.job.rescan, seen.job.tier.value)
        values = {
            "records_done": float(progress.done),
            "records_left": float(progress.left),
            "rate": progress.rate,
            "seconds_left": progress.left_s,
        }
        for name, value in values.items():
            gauge = _gauge(name, _GAUGES[name])
            if value is not None:
                gauge.add_metric(labels, value)
                yield gauge


def make_gauges() -> list[GaugeMetricFamily]:
    """The gauges of `RescanCollector`, without a sample."""
    return [_gauge(name, documentation) for name, documentation in _GAUGES.items()]


def _gauge(name: str, documentation: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fediwarden_rescan_{name}", documentation, labels=_LABELS)
