"""GET /metrics beside the pages: what waits for people, what the ledger has open, and how the recorder fares."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from ipaddress import ip_address, ip_network

import structlog
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from federation_audit.accounts.database import Database
from federation_audit.assessing.assessor import Assessor
from federation_audit.pages.waiting import read_waiting
from federation_audit.statistics.levels import Level
from federation_audit.store.errors import StoreError
from federation_audit.store.state import read_state
from federation_audit.store.sums import read_sums
from schemas.clock import now_ms
from schemas.telemetry.metrics import make_registry
from schemas.topics import DAY_MS

log = structlog.get_logger("federation_audit.pages")

PATH = "/metrics"
_NEW_AFTER_S = 30.0
_OPEN_DAYS = 7  # what is older has left Kafka: it is judged no more, and would be told of for ever
_NEAR = tuple(
    map(
        ip_network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10")
    )
)
_FORWARDED = ("forwarded", "x-forwarded-for", "via")


def make_metrics_app(*collectors: Collector) -> ASGIApp:
    """Answers `PATH`. It has no password, so it answers those alone who come by themselves from this machine or a
    private network: not a proxy, behind which anybody may be."""
    registry = make_registry()
    for collector in collectors:
        registry.register(collector)

    async def give(request: Request) -> Response:
        if not _is_near(request):
            return PlainTextResponse("Metrics are for this machine and private networks, without a proxy.\n", 403)
        body = await asyncio.to_thread(generate_latest, registry)  # it asks the database
        return Response(
            body, media_type="text/plain; version=0.0.4; charset=utf-8", headers={"cache-control": "no-store"}
        )

    return Starlette(routes=[Route(PATH, give, methods=["GET"])])


class AuditCollector(Collector):
    """Numbers of the store, asked for at most twice a minute. While the database does not answer there are none."""

    def __init__(
        self,
        database: Database,
        assessor: Assessor,
        *,
        verified_lists: Collection[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._assessor = assessor
        self._verified_lists = frozenset(verified_lists)
        self._monotonic = monotonic
        self._read_at = float("-inf")
        self._families: tuple[GaugeMetricFamily, ...] = ()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The families, without a sample."""
        return tuple(make_families().values())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families, at most half a minute old."""
        if self._monotonic() - self._read_at >= _NEW_AFTER_S:
            try:
                self._families = self._read()
            except StoreError as error:
                log.warning("no numbers of the store for the metrics", error=str(error))
                self._families = ()
            self._read_at = self._monotonic()
        yield from self._families

    def _read(self) -> tuple[GaugeMetricFamily, ...]:
        assessed, now = self._assessor.newest(), now_ms()
        with self._database.reading() as connection:
            waiting = read_waiting(connection, assessed, now, verified_lists=self._verified_lists)
            sums = read_sums(connection, since_day=now // DAY_MS - _OPEN_DAYS)
            state = read_state(connection)
        levels = [each.level for each in assessed.assessment]
        open_days = [day for day, each in sums.items() if each.unjudged]
        families = make_families()
        families["ledger_open"].add_metric([], sum(each.unjudged for each in sums.values()))
        if open_days:
            families["ledger_oldest"].add_metric([], min(open_days) * DAY_MS / 1000)
        families["reviews"].add_metric([], waiting.reviews)
        families["recommended"].add_metric([], len(waiting.recommended))
        families["ended"].add_metric([], len(waiting.ended))
        for level in Level:
            families["instances"].add_metric([level.name.lower()], levels.count(level))
        if state.recorded_at:
            families["recorded_at"].add_metric([], state.recorded_at / 1000)
            if state.lag >= 0:
                families["lag"].add_metric([], state.lag)
        return tuple(families.values())


def make_families() -> dict[str, GaugeMetricFamily]:
    """The families of `AuditCollector`, without a sample."""

    def gauge(name: str, documentation: str, labels: tuple[str, ...] = ()) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"fediwarden_{name}", documentation, labels=labels)

    return {
        "ledger_open": gauge(
            "ledger_open_images",
            "Images that were answered for without a verdict in the last 7 days, and have none yet.",
        ),
        "ledger_oldest": gauge(
            "ledger_oldest_open_timestamp_seconds",
            "The day (its beginning, UTC) on which the oldest of them was answered for; missing where there is none.",
        ),
        "reviews": gauge("audit_reviews_waiting", "Rows of the review queue."),
        "recommended": gauge(
            "audit_recommendations_waiting", "Instances for which a measure is recommended and nobody has decided."
        ),
        "ended": gauge(
            "audit_decisions_expired", "Decisions whose time is over, so that somebody has to decide again."
        ),
        "instances": gauge("audit_instances", "Instances by level of the assessment.", ("level",)),
        "recorded_at": gauge("audit_recorded_timestamp_seconds", "When a recorder last wrote into the store."),
        "lag": gauge("audit_lag_records", "Records that the store lacked then."),
    }


def _is_near(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in _NEAR)
