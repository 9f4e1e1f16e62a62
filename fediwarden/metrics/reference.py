"""The reference of every metric, as Markdown, made from the registries themselves. docs/metrics.md holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

BEGIN = "<!-- reference: fediwarden metrics -->"
END = "<!-- end of reference -->"
_HISTOGRAM = ("_bucket", "_count", "_sum")


@dataclass(frozen=True, slots=True)
class MetricEntry:
    """One metric of a process: its name as it is exposed (a histogram's without its endings)."""

    name: str
    kind: str
    labels: tuple[str, ...]
    documentation: str

    @property
    def exposed(self) -> dict[str, tuple[str, ...]]:
        """The names that queries use, and the labels of each."""
        if self.kind != "histogram":
            return {self.name: self.labels}
        return {
            self.name + ending: (*self.labels, "le") if ending == "_bucket" else self.labels for ending in _HISTOGRAM
        }


def read_metrics() -> Mapping[str, tuple[MetricEntry, ...]]:
    """Every metric by process, in the order of names. Imports all services."""
    return {
        process: tuple(sorted(entries, key=lambda each: each.name))
        for process, entries in _entries_by_process().items()
    }


def metrics_reference() -> str:
    """A table of what every process has, and one for each process."""
    processes = read_metrics()
    shared = set.intersection(*(set(entries) for entries in processes.values()))
    parts = [_table("Every process", sorted(shared, key=lambda each: each.name))]
    for process, entries in processes.items():
        parts.append(_table(f"`{process}`", [each for each in entries if each not in shared]))
    return "\n".join(parts)


def _entries_by_process() -> dict[str, list[MetricEntry]]:
    from federation_audit.lemmy.metrics import LemmyMetrics
    from federation_audit.pages.metrics import make_families
    from federation_audit.recording.metrics import RecorderMetrics
    from federation_audit.rescans.metrics import make_gauges
    from gateway.enforcement.metrics import EnforcerMetrics
    from gateway.metrics import Metrics
    from gateway.relay.metrics import RelayMetrics
    from scanner.metrics import ScannerMetrics
    from schemas.telemetry.metrics import make_registry

    audit = [*make_families().values(), *make_gauges()]  # as its collectors describe themselves
    return {
        "gateway": _entries(Metrics(deadline_s=3.0, tenants=("default",)).registry),
        "scanner": _entries(ScannerMetrics().registry),
        "enforcer": _entries(EnforcerMetrics().registry),
        "recorder": _entries(RecorderMetrics().registry),
        "audit": [*_entries(make_registry()), *map(_entry, audit)],
        "relay": _entries(RelayMetrics().registry),
        "lemmy": _entries(LemmyMetrics().registry),
    }


def _entries(registry: CollectorRegistry) -> list[MetricEntry]:
    found = []
    for collector in registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            found.append(
                MetricEntry(
                    collector._name + ("_total" if collector._type == "counter" else ""),
                    str(collector._type),
                    tuple(collector._labelnames),
                    collector._documentation,
                )
            )
        else:
            describe = getattr(collector, "describe", collector.collect)
            found += map(_entry, describe())
    return found


def _entry(family: Metric) -> MetricEntry:
    name = family.name + ("_total" if family.type == "counter" else "")
    return MetricEntry(name, family.type, tuple(getattr(family, "_labelnames", ())), family.documentation)


def _table(title: str, entries: Sequence[MetricEntry]) -> str:
    rows = "".join(
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.documentation} |\n"
        for each in entries
    )
    return f"### {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n{rows}"
