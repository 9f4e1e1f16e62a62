"""How far the rescan at work is, in Prometheus' words."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from federation_audit.rescans.watching import IDLE_AFTER_MS, RescanWatch
from schemas.clock import now_ms

PATH = "/metrics"
_LABELS = ("rescan", "tier")
_NEAR = tuple(
    map(
        ip_network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10")
    )
)
_FORWARDED = ("forwarded", "x-forwarded-for", "via")


def make_metrics_app(watch: RescanWatch | None) -> ASGIApp:
    """Answers `PATH`. It has no password, so it answers those alone who come by themselves from this machine or a
    private network: not a proxy, behind which anybody may be."""
    registry = CollectorRegistry()
    if watch is not None:
        registry.register(RescanCollector(watch))

    async def give(request: Request) -> Response:
        if not _is_near(request):
            return PlainTextResponse("Metrics are for this machine and private networks, without a proxy.\n", 403)
        body = generate_latest(registry)
        return Response(
            body, media_type="text/plain; version=0.0.4; charset=utf-8", headers={"cache-control": "no-store"}
        )

    return Starlette(routes=[Route(PATH, give, methods=["GET"])])


class RescanCollector(Collector):
    """The gauges ``fediwarden_rescan_...`` of the rescan that is being judged. Without one, or where Kafka has not told
    for a minute, there are none: a number that nobody knows is left out."""

    def __init__(self, watch: RescanWatch, *, clock: Callable[[], int] = now_ms) -> None:
        self._watch = watch
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Each gauge, with its one sample at most."""
        seen = self._watch.seen
        progress = seen.progress if seen is not None else None
        if seen is None or progress is None or self._clock() - progress.at_ms >= IDLE_AFTER_MS:
            return
        labels = (seen.job.rescan, seen.job.tier.value)
        for name, documentation, value in (
            ("records_done", "Records of a rescan's spans that are judged.", float(progress.done)),
            ("records_left", "Records of a rescan's spans that are not judged yet.", float(progress.left)),
            ("rate", "Records a second, over the last half minute.", progress.rate),
            ("seconds_left", "Seconds that the rest takes at that rate.", progress.left_s),
        ):
            gauge = GaugeMetricFamily(f"fediwarden_rescan_{name}", documentation, labels=_LABELS)
            if value is not None:
                gauge.add_metric(labels, value)
                yield gauge


def _is_near(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in _NEAR)
