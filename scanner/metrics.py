"""What a scanner counts and times, under the names that dashboards use."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from scanner.failures import FailureReason
from schemas.messages import Decision, Stage
from schemas.telemetry.metrics import STEP_BUCKETS_S, KafkaCollector, make_registry

_QUEUE_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 60.0, 600.0, 3600.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_ID_DIGITS = 12


@runtime_checkable
class OnDevice(Protocol):
    """A model that knows how full the memory of its device is."""

    @property
    def device_memory(self) -> tuple[str, int, int] | None:
        """The device's name, and the bytes of its memory that are in use (by anybody) and in all; None on a CPU."""


class ScannerMetrics:
    """One scanner's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = make_registry()
        self.kafka = KafkaCollector(self.registry)
        self._memory = _DeviceMemory()
        self.registry.register(self._memory)
        self._verdicts = Counter(
            "fediwarden_scanner_verdicts",
            "Verdicts by decision, lane, models (name:id) and policy (id); ids are cut short.",
            ("decision", "stage", "models", "policy"),
            registry=self.registry,
        )
        self.unjudgeable = Counter(
            "fediwarden_scanner_unjudgeable",
            "Records that no verdict is given on, by reason: what goes to images.dead, unless this is a shadow.",
            ("reason",),
            registry=self.registry,
        )
        for reason in FailureReason:  # from 0 on, so that the first one is seen as an increase
            self.unjudgeable.labels(reason.value)
        self.late = Counter(
            "fediwarden_scanner_put_behind",
            "Images that came too late to be answered in time, and were moved to the backlog.",
            registry=self.registry,
        )
        self.suspected = Counter(
            "fediwarden_scanner_suspected",
            "Images that a model hung or broke on, and that were left to another try.",
            registry=self.registry,
        )
        self.queue_seconds = Histogram(
            "fediwarden_scanner_queue_seconds",
            "From an image's publication to its being taken, by lane; clocks of two machines may differ.",
            ("stage",),
            buckets=_QUEUE_BUCKETS_S,
            registry=self.registry,
        )
        self.decode_seconds = Histogram(
            "fediwarden_scanner_decode_seconds",
            "Decrypting, decoding and preparing one image, in its thread.",
            buckets=STEP_BUCKETS_S,
            registry=self.registry,
        )
        self.inference_seconds = Histogram(
            "fediwarden_scanner_inference_seconds",
            "One batch through all models.",
            buckets=STEP_BUCKETS_S,
            registry=self.registry,
        )
        self.batch_frames = Histogram(
            "fediwarden_scanner_batch_frames", "Frames of one batch.", buckets=_BATCH_BUCKETS, registry=self.registry
        )
        in_hand = Gauge(
            "fediwarden_scanner_in_flight", "Images in hand now, by lane.", ("stage",), registry=self.registry
        )
        self._in_hand = {stage: in_hand.labels(stage.value) for stage in (Stage.LIVE, Stage.BACKLOG)}

    def watch_in_hand(self, stage: Stage, count: Callable[[], int]) -> None:
        """Ask `count` how many images of a lane are in hand."""
        self._in_hand[stage].set_function(count)

    def watch_models(self, models: Sequence[object]) -> None:
        """Ask those of `models` that know it how full their device's memory is."""
        self._memory.models = [model for model in models if isinstance(model, OnDevice)]

    def count_verdict(self, decision: Decision, stage: Stage, models: Mapping[str, str], policy: str) -> None:
        """Count one verdict of `models` (name to id) and the policy of that id."""
        named = "+".join(f"{name}:{number[:_ID_DIGITS]}" for name, number in sorted(models.items()))
        self._verdicts.labels(decision.value, stage.value, named, policy[:_ID_DIGITS]).inc()


class _DeviceMemory(Collector):
    def __init__(self) -> None:
        self.models: list[OnDevice] = []

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        used, total = self._families()
        for name, in_use, in_all in sorted({found for model in self.models if (found := model.device_memory)}):
            used.add_metric([name], in_use)
            total.add_metric([name], in_all)
        yield used
        yield total

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily(
                "fediwarden_scanner_gpu_memory_used_bytes",
                "Memory of the GPU that anybody uses; where a checkpoint (clip) runs on one.",
                labels=("device",),
            ),
            GaugeMetricFamily(
                "fediwarden_scanner_gpu_memory_total_bytes",
                "Memory of the GPU; where a checkpoint (clip) runs on one.",
                labels=("device",),
            ),
        )
