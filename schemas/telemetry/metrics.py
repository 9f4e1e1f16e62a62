"""What every process tells of itself and of its Kafka connections, under the same names everywhere."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import TypeVar

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from schemas.broker import Consumer, Producer

Result = TypeVar("Result")

STEP_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Of the steps that an image goes through within its deadline."""

_LOOP_WITHIN_S = 1.0


def make_registry() -> CollectorRegistry:
    """A registry of one process: its version, memory, processor time and open files are in it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    Gauge("fediwarden_build_info", "1; the version is in the label.", ("version",), registry=registry).labels(
        version("fediwarden")
    ).set(1)
    return registry


class KafkaCollector(Collector):
    """How a process stands with Kafka. What it is not connected by, or cannot tell just now, is left out.

    May be collected from any thread: the consumers are looked at on the event loop that they belong to.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._producer: Producer | None = None
        self._consumers: dict[str, Consumer] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        registry.register(self)

    def watch_producer(self, producer: Producer) -> None:
        """Tell of `producer`. Needs no running event loop."""
        self._producer = producer

    def watch_consumer(self, group: str, consumer: Consumer) -> None:
        """Tell of a member of `group` (named without the prefix). To be called on its event loop."""
        self._loop = asyncio.get_running_loop()
        self._consumers[group] = consumer

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The families, without a sample."""
        return _Families().each()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families, with what is known now."""
        families = _Families()
        if self._producer is not None:
            families.up.add_metric([], float(self._producer.connected))
            families.failing.add_metric([], self._producer.failing_for_s)
        for group, assigned, lags in self._on_loop(self._look_at_consumers) or ():
            families.assigned.add_metric([group], assigned)
            for (topic, partition), lag in lags.items():
                families.lag.add_metric([group, topic, str(partition)], lag)
        yield from families.each()

    def _look_at_consumers(self) -> list[tuple[str, int, dict[tuple[str, int], int]]]:
        return [(group, each.assigned, each.lag()) for group, each in self._consumers.items()]

    def _on_loop(self, look: Callable[[], Result]) -> Result | None:
        """What `look` gives on the consumers' loop; None where that has ended, or does not come to it in time."""
        if self._loop is None or self._loop.is_closed():
            return None
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            return look()

        async def ask() -> Result:
            return look()

        asking = ask()
        try:
            return asyncio.run_coroutine_threadsafe(asking, self._loop).result(_LOOP_WITHIN_S)
        except TimeoutError:
            return None
        except RuntimeError:  # closed since
            asking.close()
            return None


class _Families:
    def __init__(self) -> None:
        self.up = GaugeMetricFamily(
            "fediwarden_kafka_up", "Whether Kafka takes what this process publishes.", labels=()
        )
        self.failing = GaugeMetricFamily(
            "fediwarden_kafka_failing_seconds", "For how long messages have waited and none has got through.", labels=()
        )
        self.assigned = GaugeMetricFamily(
            "fediwarden_consumer_assigned_partitions", "Partitions that this process reads.", labels=("group",)
        )
        self.lag = GaugeMetricFamily(
            "fediwarden_consumer_lag_records",
            "Records of a partition of this process that are not done, as far as its last fetch knows.",
            labels=("group", "topic", "partition"),
        )

    def each(self) -> tuple[GaugeMetricFamily, ...]:
        return self.up, self.failing, self.assigned, self.lag
